"""The numbers and names of the rules that stand in more than one place.

Whoever audits a rule writes its formula anew, so that a slip in one of the two is seen; but both take its numbers from
here. Nothing heavy is imported.
"""

# In `interests` a behavior is a number, from 1 on in this order; 0 is padding.
BEHAVIORS = ("view", "search", "cart", "favorite", "purchase")
BEHAVIOR_CODES = {behavior: code for code, behavior in enumerate(BEHAVIORS, 1)}

# The short span of `interests`; W and the whole history are settings.
WEEK_DAYS = 7

# Interest has moved if chance alone would show as much less often than this: the level of the G-test.
SIGNIFICANCE = 0.05
# So many of the next items an example keeps.
MOST_ITEMS = 100

# So many categories and items a prediction lists.
TOP_CATEGORIES = 10
TOP_ITEMS = 20
# The first that applies is a user's segment.
SEGMENTS = ("new", "at_risk", "migrating", "stable")

"""Numbers and names of rules that several modules use.

An audit has its own formula of a rule, so that a mistake in one of the two is detected; but both take the numbers from
here. Nothing heavy is imported.
"""

# In `interests` a behavior is a number, from 1 on in this order; 0 is padding.
BEHAVIORS = ("view", "search", "cart", "favorite", "purchase")
BEHAVIOR_CODES = {behavior: code for code, behavior in enumerate(BEHAVIORS, 1)}
# The weight of one event as evidence of interest, by how much a shopper commits to the item, where
# MEANDER_BEHAVIOR_WEIGHTS says nothing else.
WEIGHTS = {"view": 1, "search": 1, "favorite": 2, "cart": 3, "purchase": 4}

# A user with a larger share of the events of a landing day may stand for everybody without an account. Of days with
# fewer events than these nothing is said: a small shop has such users.
LARGE_USER_SHARE, EVENTS_TO_JUDGE_USERS = 0.2, 5000

# The longest id, in bytes of UTF-8. A row of an index of PostgreSQL has room for 2,688.
MAX_ID_BYTES = 2048

# The short span of `interests`; W and the whole history are settings.
WEEK_DAYS = 7

# Landing days are summed up in blocks of these sizes, each a multiple of the one before. A set of the days of the
# largest fits into a whole number of 64 bits.
BLOCK_DAYS = (8, 64)

# The level of the G-test: interest has moved if its p-value is below this.
SIGNIFICANCE = 0.05
# The number of next items that an example keeps.
MAX_ITEMS = 100

# The number of categories and of items in a prediction.
TOP_CATEGORIES = 10
TOP_ITEMS = 20
# The first that applies is a user's segment.
SEGMENTS = ("new", "at_risk", "migrating", "stable")

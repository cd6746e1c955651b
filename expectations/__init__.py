"""One suite a table, each in the module of its name, and audit.py, the one place that runs them."""

import lake  # noqa: F401  it sees to it that what is imported next is imported in less time

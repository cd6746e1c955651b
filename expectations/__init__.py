"""One suite a table, each in the module of its name, and audit.py, the one place that runs them.

Great Expectations is imported here, before a suite asks for it, without what it imports for expectations that no suite
has: a chart of one, and tests that compare distributions. That is half of its import, which a small day feels.
"""

import os

from lake.imports import absent, empty

# It reports usage to its makers by default; the jobs of a data platform must not.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")

with empty("altair", "scipy", "scipy.stats"), absent("boto3", "botocore", "sqlalchemy", "pyspark.ml", "ipywidgets"):
    import great_expectations  # noqa: F401

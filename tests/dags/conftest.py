"""Airflow without a database: an empty home, set before a test module imports it."""

import atexit
import os
import shutil
import tempfile

HOME = tempfile.mkdtemp(prefix="meander-airflow-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

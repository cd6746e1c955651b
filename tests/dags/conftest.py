"""Airflow without a database: an empty home, set before a test module imports it; and golden files."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOME = tempfile.mkdtemp(prefix="meander-airflow-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, Any], None]:
    """Compare with a file in golden/; with UPDATE_GOLDEN=1 in the environment, write that file."""

    def compare(name: str, found: Any) -> None:
        file = GOLDEN / name
        text = json.dumps(found, indent=2) + "\n"
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(text)
        assert file.exists(), f"no golden file {file}; look at the output, then run with UPDATE_GOLDEN=1"
        assert text == file.read_text()

    return compare

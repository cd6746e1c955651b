"""What the tests of the model share."""

import pytest


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory):
    """An empty MLflow store, made once: some sixty migrations take seconds, and a copy of the file none."""
    from model.versions.registry import create_sqlite

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    create_sqlite(path)
    return path

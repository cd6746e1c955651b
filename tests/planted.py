"""Secrets that a test puts into the environment, to look for them where nobody may read them."""

SECRETS = {
    "MEANDER_MLFLOW_URI": "postgresql://me:planted-1@db/mlflow",
    "MEANDER_SERVING_URL": "postgresql://me:planted-2@db/shop",
    "MEANDER_ALERT_WEBHOOK": "https://chat/planted-3",
    "MEANDER_ALERT_NOTIFIER_OPTIONS": '{"token": "planted-4"}',
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://me:planted-5@db/airflow",
    "AIRFLOW_CONN_SPARK_DEFAULT": "spark://planted-6",
    "_AIRFLOW_X": "planted-7",
    "AWS_SECRET_ACCESS_KEY": "planted-8",
    "MLFLOW_TRACKING_PASSWORD": "planted-9",
    "SPARK_CONNECT_AUTHENTICATE_TOKEN": "planted-10",
    "PGPASSWORD": "planted-11",
    "GITHUB_TOKEN": "planted-12",
    "MEANDER_PSEUDONYM_KEY": "planted-13",
}
STORE = {"AWS_SECRET_ACCESS_KEY"}
SPARK = {"SPARK_CONNECT_AUTHENTICATE_TOKEN"}
REGISTRY = {"MEANDER_MLFLOW_URI", "MLFLOW_TRACKING_PASSWORD"}
PSEUDONYMS = {"MEANDER_PSEUDONYM_KEY"}
APPLICATIONS = {"MEANDER_SERVING_URL", "PGPASSWORD"}


def planted(environment: dict[str, str]) -> set[str]:
    """Return the names of the variables that hold one of them."""
    return {name for name, value in environment.items() if "planted" in value}

"""Each command gets the variables that it needs, and no password besides."""

import pytest

from lake.environment import COMMANDS, environment_of, handed_to_tasks
from lake.settings import Settings
from tests.planted import APPLICATIONS, PSEUDONYMS, REGISTRY, SECRETS, SPARK, STORE, planted

OTHERS = {"PATH": "/bin", "LC_ALL": "C", "MEANDER_LAKE": "/lake", "MEANDER_HORIZON_DAYS": "28", "TF_CONFIG": "{}"}
# Why: what stages or audits runs on Spark and reads the store; what trains or judges keeps its model in the registry;
# jobs.serve alone knows the applications' database, jobs.ingest the key of pseudonyms; nobody but Airflow sends alerts.
NEEDS = {
    "jobs.ingest": STORE | SPARK | PSEUDONYMS,
    "jobs.sessionize": STORE | SPARK,
    "jobs.interests": STORE | SPARK,
    "jobs.examples": STORE | SPARK,
    "jobs.serve": STORE | APPLICATIONS,
    "expectations.audit": STORE | SPARK,
    "lake.publish": STORE,
    "lake.upkeep": STORE,
    "model.prepare": STORE | SPARK | REGISTRY,
    "model.pretrain": STORE | SPARK | REGISTRY,
    "model.finetune": STORE | SPARK | REGISTRY,
    "model.evaluate": STORE | REGISTRY,
    "model.promote": STORE | REGISTRY,
    "model.score": STORE | SPARK | REGISTRY,
    "model.monitor": STORE | REGISTRY,
    "worker": STORE | REGISTRY,
    "spark-connect-server": STORE | SPARK,
    "mlflow-server": STORE | REGISTRY,
    "step-server": set(),
    "a module that nobody has listed": set(),
}


@pytest.mark.parametrize(("command", "secrets"), NEEDS.items())
def test_a_command_gets_the_secrets_it_needs(command, secrets):
    found = environment_of(command, SECRETS | OTHERS)
    assert planted(found) == secrets
    # What makes a process believe that it is one of several workers is said by their launcher alone.
    assert found.keys() - secrets == OTHERS.keys() - {"TF_CONFIG"}


def test_every_command_is_in_this_test():
    assert NEEDS.keys() - COMMANDS.keys() == {"a module that nobody has listed"}
    assert COMMANDS.keys() - NEEDS.keys() == set()


def test_a_command_gets_every_setting_that_is_no_secret_and_not_about_alerts():
    every = {f"MEANDER_{name.upper()}": "x" for name in Settings.model_fields}
    left_out = every.keys() - environment_of("lake.publish", every).keys()
    assert left_out == {
        "MEANDER_MLFLOW_URI",
        "MEANDER_SERVING_URL",
        "MEANDER_PSEUDONYM_KEY",
        "MEANDER_ALERT_WEBHOOK",
        "MEANDER_ALERT_NOTIFIER",
        "MEANDER_ALERT_NOTIFIER_OPTIONS",
        "MEANDER_ALERT_QUIET_HOURS",
    }


@pytest.mark.parametrize(
    ("uri", "sent"),
    [
        ("http://mlflow:5000", True),
        ("sqlite:////shared/mlflow.db", True),
        (
            "postgresql://mlflow@db/mlflow",
            False,
        ),  # its password may be in a file of the executor; nor is a user's name sent
        ("postgresql://mlflow:secret@db/mlflow", False),
        ("postgresql://db/mlflow?password=secret", False),
    ],
)
def test_tasks_of_spark_are_sent_the_address_of_a_registry_without_a_password_only(uri, sent):
    handed, theirs = handed_to_tasks({"MEANDER_MLFLOW_URI": uri, "MEANDER_LAKE": "/lake", "TF_CONFIG": "{}"})
    assert handed == {"MEANDER_LAKE": "/lake"} | ({"MEANDER_MLFLOW_URI": uri} if sent else {})
    assert theirs == ([] if sent else ["MEANDER_MLFLOW_URI"])


def test_tasks_of_spark_are_told_how_to_reach_mlflow_and_need_themselves_what_logs_in_there():
    """Without a login that the driver has, an executor would fail at the first call, hours into a training."""
    way = {
        "MLFLOW_TRACKING_INSECURE_TLS": "true",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/ca.pem",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "300",
    }
    login = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret", "MLFLOW_TRACKING_TOKEN": "secret"}
    uri = {"MEANDER_MLFLOW_URI": "https://mlflow"}
    assert handed_to_tasks(uri | way) == (uri | way, [])
    assert handed_to_tasks(uri | way | login) == (uri | way, list(login))
    with_password = {"MEANDER_MLFLOW_URI": "https://me:secret@mlflow"}
    assert handed_to_tasks(with_password | {"MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_TRACKING_USERNAME": ""}) == (
        {},
        ["MEANDER_MLFLOW_URI", "MLFLOW_TRACKING_TOKEN"],
    )


def test_tasks_of_spark_are_sent_no_secret():
    handed, _ = handed_to_tasks(SECRETS | OTHERS)
    assert planted(handed) == set()

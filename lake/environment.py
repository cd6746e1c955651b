"""Which environment variables each of our commands gets: those that it needs, and no password besides.

A process that trains, scores or reads files of others is the likeliest to be taken over, and its environment is then
read first. So whoever starts a command asks `environment_of`. This is the only list, and a variable that is not on it
is left out. A command that is not in COMMANDS gets EVERYBODY and the settings that are no secrets.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from pydantic import SecretStr

from lake.settings import Settings

# Names, or patterns of names.
Names = tuple[str, ...]

EVERYBODY: Names = (
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "HOSTNAME",
        *("TMPDIR", "TMP", "TEMP"),
        "TZ",
        "LANG",
        "LANGUAGE",
        "LC_*",
        "TERM",
        "XDG_*",
    ),
    *("PYTHON*", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_*", "COLUMNS", "NO_COLOR"),
    *("OMP_*", "MKL_*", "KMP_*", "OPENBLAS_*"),
    # How to reach servers, and whom to believe.
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
# Lake and landing: keys of the object store; for hdfs:// also Java.
STORAGE: Names = (
    *("AWS_*", "AZURE_*", "IDENTITY_*", "MSI_*", "GOOGLE_*", "GCS_*", "CLOUDSDK_*", "STORAGE_EMULATOR_HOST"),
    *("FSSPEC_*", "HADOOP_*", "ARROW_*", "CLASSPATH", "KRB5*", "JAVA_HOME", "LIBHDFS_*"),
)
# The token of a Connect server among them.
SPARK: Names = (
    *("SPARK_*", "PYSPARK_*", "GRPC_*", "JAVA_*", "_JAVA_OPTIONS", "JDK_*", "YARN_*", "KUBERNETES_*", "KUBECONFIG"),
)
TENSORFLOW: Names = ("TF_*", "XLA_*", "KERAS_*", "CUDA_*", "NVIDIA_*", "NCCL_*")
# By which MLflow logs in; and those of MLflow's variables that say how a server is reached, and are no secrets.
MLFLOW_LOGIN: Names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
MLFLOW_WAY: Names = (
    *("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    *("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_HTTP_REQUEST_*"),
)
# Of PostgreSQL's variables those of a connection alone: PGPASSWORD may be the serving store's.
REGISTRY: Names = ("MEANDER_MLFLOW_URI", "MLFLOW_*", "PGSSL*", "PGPASSFILE")
SERVING: Names = ("MEANDER_SERVING_URL", "PG*")
# Whoever knows this key can say whose each pseudonym is, by trying the ids of users.
PSEUDONYMS: Names = ("MEANDER_PSEUDONYM_KEY",)

COMMANDS: dict[str, Names] = {
    "jobs.ingest": STORAGE + SPARK + PSEUDONYMS,
    "jobs.sessionize": STORAGE + SPARK,
    "jobs.interests": STORAGE + SPARK,
    "jobs.examples": STORAGE + SPARK,
    "jobs.serve": STORAGE + SERVING,
    "expectations.audit": STORAGE + SPARK,
    "lake.publish": STORAGE,
    "lake.upkeep": STORAGE,
    "model.prepare": STORAGE + SPARK + REGISTRY,
    "model.pretrain": STORAGE + SPARK + TENSORFLOW + REGISTRY,
    "model.finetune": STORAGE + SPARK + TENSORFLOW + REGISTRY,
    "model.evaluate": STORAGE + TENSORFLOW + REGISTRY,
    "model.promote": STORAGE + REGISTRY,
    "model.score": STORAGE + SPARK + TENSORFLOW + REGISTRY,
    "model.monitor": STORAGE + REGISTRY,
    # No modules: a worker of a training on several machines, and the servers of `make up` and `make mlflow`.
    "worker": STORAGE + TENSORFLOW + REGISTRY,
    "spark-connect-server": STORAGE + SPARK + TENSORFLOW,
    "mlflow-server": STORAGE + REGISTRY,
    # Each step that it forks gets its own variables.
    "step-server": (),
}

SECRETS = {f"MEANDER_{name.upper()}" for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
# Alerts are sent by Airflow itself, and the options of a notifier may hold a token.
SETTINGS: Names = tuple(
    variable
    for name in Settings.model_fields
    if (variable := f"MEANDER_{name.upper()}") not in SECRETS and not name.startswith("alert_")
)
# What makes a process believe that it is one of several workers; only their launcher sets it.
OF_A_WORKER = "TF_CONFIG"


def environment_of(command: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a command gets of an environment.

    >>> environment_of("jobs.ingest", {"MEANDER_LAKE": "/lake", "AWS_REGION": "r", "MEANDER_SERVING_URL": "a secret"})
    {'MEANDER_LAKE': '/lake', 'AWS_REGION': 'r'}
    >>> environment_of("somebody's own", {"PATH": "/bin", "AWS_REGION": "r", "AIRFLOW_CONN_DB": "a secret"})
    {'PATH': '/bin'}
    """
    return _chosen(EVERYBODY + SETTINGS + COMMANDS.get(command, ()), environment)


def handed_to_tasks(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return what the tasks of a Spark stage are told of the driver's environment: nothing with a password.

    A task travels pickled, by the network and the disks of the cluster. All else, keys of the object store among it, is
    for the environment of the executors to say.

    Returns:
        the variables, and the names of those that the executors must have themselves.

    >>> handed_to_tasks({"MEANDER_LAKE": "/lake", "MEANDER_MLFLOW_URI": "http://mlflow:5000"})
    ({'MEANDER_LAKE': '/lake', 'MEANDER_MLFLOW_URI': 'http://mlflow:5000'}, [])
    >>> handed_to_tasks({"MEANDER_MLFLOW_URI": "postgresql://me:secret@db/mlflow", "AWS_SECRET_ACCESS_KEY": "secret"})
    ({}, ['MEANDER_MLFLOW_URI'])
    >>> handed_to_tasks({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"})
    ({}, ['MLFLOW_TRACKING_USERNAME', 'MLFLOW_TRACKING_PASSWORD'])
    """
    registry = urlsplit(environment.get("MEANDER_MLFLOW_URI", ""))
    is_secret = "@" in registry.netloc or bool(registry.query)
    names = (*SETTINGS, "TF_*", "XLA_*", "KERAS_*", *MLFLOW_WAY, *(() if is_secret else ("MEANDER_MLFLOW_URI",)))
    theirs = ["MEANDER_MLFLOW_URI"] if is_secret else []
    return _chosen(names, environment), [*theirs, *(name for name in MLFLOW_LOGIN if environment.get(name))]


def _chosen(names: Names, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name != OF_A_WORKER and any(fnmatchcase(name, pattern) for pattern in names)
    }

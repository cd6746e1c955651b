"""What containers may do, know and call: properties of every workload of compose.yaml and of the Kubernetes manifests.

The workloads are found in the files, so a new one without these properties fails.
"""

import json
import os
import re
import subprocess
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from lake import places
from lake.tables import TABLES
from tests import postgres

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
MANIFESTS = [
    thing
    for file in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    if file.name != "values.yaml"
    for thing in yaml.safe_load_all(file.read_text())
]
VALUES = yaml.safe_load((DOCKER / "kubernetes" / "values.yaml").read_text())
# The processes that Airflow's chart starts, by the key of their values, with the label that the chart gives them.
OF_CHART = {
    "workers": "worker",
    "apiServer": "api-server",
    "dagProcessor": "dag-processor",
    "triggerer": "triggerer",
    "scheduler": "scheduler",
    "migrateDatabaseJob": "run-airflow-migrations",
}


def of_chart(key: str) -> dict[str, Any]:
    """Return what the values say of one of the chart's processes."""
    return VALUES["workers"]["celery"] if key == "workers" else VALUES[key]


def pods() -> dict[str, dict[str, Any]]:
    """Return every pod, by its name: those of manifests, those that Spark makes, those of the chart with our values."""
    found = {}
    for thing in MANIFESTS:
        if "template" in thing.get("spec", {}):
            found[thing["metadata"]["name"]] = thing["spec"]["template"]
        for name, text in thing.get("data", {}).items():
            if name.endswith(".yaml"):
                found[f"{thing['metadata']['name']}: {name}"] = yaml.safe_load(text)
    for key, component in OF_CHART.items():
        container = {
            "name": key,
            "securityContext": VALUES["securityContexts"]["containers"],
            "image": f"{VALUES['images']['airflow']['repository']}@{VALUES['images']['airflow']['digest']}",
            "envFrom": yaml.safe_load(VALUES["extraEnvFrom"]),
            "env": [*yaml.safe_load(VALUES["extraEnv"]), *of_chart(key).get("env", [])],
            "volumeMounts": VALUES["volumeMounts"],
        }
        spec = {
            "securityContext": VALUES["securityContexts"]["pod"],
            "containers": [container],
            "volumes": VALUES["volumes"],
            **of_chart(key).get("serviceAccount", {}),
        }
        found[f"chart: {component}"] = {
            "metadata": {"labels": {**VALUES["labels"], "tier": "airflow", "component": component}},
            "spec": spec,
        }
    return found


PODS = pods()


def test_every_pod_is_found():
    assert set(PODS) == {
        *("meander-trainer", "meander-serve"),
        *("meander-spark: executor.yaml", "meander-spark-training: executor.yaml"),
        *(f"chart: {component}" for component in OF_CHART.values()),
    }
    kinds = {thing["kind"] for thing in MANIFESTS}
    assert kinds == {
        *("Namespace", "NetworkPolicy", "ConfigMap", "Deployment", "ServiceAccount", "Role", "RoleBinding"),
    }, "another kind may have pods: `pods` has to find them"
    # What else the chart would start, and its first user has the password `admin`.
    off = ("postgresql", "redis", "statsd", "createUserJob")
    assert [VALUES[name]["enabled"] for name in off] == [False] * len(off)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_not_root_gains_no_rights_and_writes_into_its_volumes_alone(name):
    """The rules of the Pod Security Standard `restricted`, and a root file system that nobody writes to."""
    spec = PODS[name]["spec"]
    of_pod = spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == 50000
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not [volume for volume in spec["volumes"] if not {"emptyDir", "configMap"} & volume.keys()]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/meander"} <= mounted, "Spark, Airflow and Python write there"


def test_kubernetes_itself_refuses_other_pods():
    (space,) = (thing for thing in MANIFESTS if thing["kind"] == "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# ---- who knows what ----

AIRFLOW = {"meander-database", "meander-broker", "meander-fernet", "meander-api", "meander-jwt", "meander-logs"}
# Beyond what every process of Airflow knows. The chart gives its own secrets to each of its processes.
KNOWS = {
    "chart: worker": {"meander-ingest", "meander-pseudonyms", "meander-registry", "meander-alerts"},
    "meander-trainer": {"meander-train", "meander-registry", "meander-alerts"},
    "meander-serve": {"meander-serve", "meander-alerts"},
    "chart: api-server": {"meander-page", "meander-registry"},
    "chart: dag-processor": {"meander-page", "meander-alerts"},
    "chart: triggerer": {"meander-page", "meander-alerts"},
    "chart: scheduler": set(),
    "chart: run-airflow-migrations": set(),
    # Python of a job runs there: nothing of Airflow.
    "meander-spark: executor.yaml": {"meander-ingest"},
    "meander-spark-training: executor.yaml": {"meander-train", "meander-registry"},
}


def secrets(pod: dict[str, Any]) -> set[str]:
    """Return the names of the secrets that the containers of a pod get."""
    return {
        source["secretRef"]["name"]
        for container in pod["spec"]["containers"]
        for source in container["envFrom"]
        if "secretRef" in source
    } | {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for container in pod["spec"]["containers"]
        for entry in container.get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    }


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gets_the_secrets_of_its_role_alone(name):
    found = secrets(PODS[name])
    assert found - AIRFLOW == KNOWS[name]
    if "executor" in name:
        assert not found & AIRFLOW


def test_only_drivers_of_spark_have_a_token_of_kubernetes():
    holders = {name for name, pod in PODS.items() if pod["spec"].get("automountServiceAccountToken") is not False}
    assert holders == {"chart: worker", "meander-trainer"}


# The role of each service of compose.yaml is the user of the object store that it is.
ROLES = {
    **dict.fromkeys(("spark-worker", "worker"), "ingest"),
    "trainer": "train",
    "serve": "serve",
    **dict.fromkeys(("api-server", "dag-processor", "triggerer"), "page"),
    "demo": "shop",
}
OF_AIRFLOW = {
    "FERNET_KEY",
    "API_SECRET_KEY",
    "JWT_SECRET",
    "AIRFLOW_PASSWORD",
    "REDIS_PASSWORD",
    "S3_LOGS_KEY",
}
S3_USERS = {"INGEST", "TRAIN", "SERVE", "PAGE", "LOGS", "SHOP"}
KNOWN = {
    "postgres": {"POSTGRES_PASSWORD", "AIRFLOW_PASSWORD", "MLFLOW_PASSWORD", "SERVING_PASSWORD"},
    "redis": {"REDIS_PASSWORD"},
    "s3": {"S3_ROOT_KEY"},
    "buckets": {"S3_ROOT_KEY", *(f"S3_{role}_KEY" for role in S3_USERS)},
    "spark-master": {"SPARK_SECRET"},
    "spark-worker": {"SPARK_SECRET", "S3_INGEST_KEY"},
    "prepare": {*OF_AIRFLOW, "ADMIN_PASSWORD"},
    "api-server": {*OF_AIRFLOW, "S3_PAGE_KEY", "MLFLOW_PASSWORD"},
    "scheduler": OF_AIRFLOW,
    "dag-processor": {*OF_AIRFLOW, "S3_PAGE_KEY"},
    "triggerer": {*OF_AIRFLOW, "S3_PAGE_KEY"},
    "worker": {*OF_AIRFLOW, "S3_INGEST_KEY", "PSEUDONYM_KEY", "MLFLOW_PASSWORD", "SPARK_SECRET"},
    "trainer": {*OF_AIRFLOW, "S3_TRAIN_KEY", "MLFLOW_PASSWORD", "SPARK_SECRET"},
    "serve": {*OF_AIRFLOW, "S3_SERVE_KEY", "SERVING_PASSWORD"},
    "demo": {*OF_AIRFLOW, "S3_SHOP_KEY"},
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_the_secrets_of_its_role_alone(name):
    service = SERVICES[name]
    text = json.dumps({key: value for key, value in service.items() if key not in ("image", "build")})
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", text)) == KNOWN[name]
    # Other processes of a machine can read a command line.
    assert "${" not in json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
    key = service["environment"].get("AWS_ACCESS_KEY_ID")
    assert key == ROLES.get(name)
    if key:
        assert service["environment"]["AWS_SECRET_ACCESS_KEY"].startswith(f"${{S3_{key.upper()}_KEY")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_not_root_gains_no_rights_and_writes_into_its_volumes_alone(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"], "and no profile but Docker's own"
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    if "build" in service:
        assert service.get("user") is None, "the images say user 50000"
    elif name not in ("s3", "buckets"):  # new volumes belong to root
        assert service["user"] == name
    for volume in service["volumes"]:
        outside, _, inside = volume.rpartition(":")
        if outside.startswith("."):
            assert inside == "ro", "files of the host are read alone"


@pytest.mark.parametrize("image", ["airflow", "spark", "trainer"])
def test_what_runs_in_an_image_of_ours_is_not_root(image):
    said = (DOCKER / f"{image}.Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"(?m)^USER (.*)$", said) == ["50000"]


# ---- digests ----


def test_no_image_is_taken_by_a_tag_that_somebody_can_move():
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["args"]["PYTHON"] == "${PYTHON_IMAGE:?set it in docker/.env}", name
        else:
            assert re.fullmatch(r"\$\{[A-Z]+_IMAGE(:\?set it in docker/.env)?\}", service["image"]), name
    for image in ("airflow", "spark", "trainer"):
        text = (DOCKER / f"{image}.Dockerfile").read_text()
        assert re.findall(r"(?m)^FROM (\S+)", text) == ["${PYTHON}", "${PYTHON}"]
        assert re.findall(r"(?m)^ARG PYTHON.*$", text) == ["ARG PYTHON"], "it has no default"
    in_pods = {
        container["image"] for pod in PODS.values() for container in pod["spec"]["containers"] if "image" in container
    }
    of_spark = {
        text
        for thing in MANIFESTS
        for text in re.findall(
            r"kubernetes\.container\.image +(\S+)", thing.get("data", {}).get("spark-defaults.conf", "")
        )
    }
    # Those of ours have a digest once a site has pushed them; until it fills that in, Kubernetes starts nothing.
    assert {image.partition("@")[2] for image in in_pods | of_spark} == {"sha256:FILL_IN"}


DIGEST = "sha256:" + "0123456789abcdef" * 4


def fill_env(folder: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run docker/fill-env.sh with a docker that knows this answer."""
    fake = folder / "bin" / "docker"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/asked"\necho "{answer}"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    command = [str(DOCKER / "fill-env.sh"), str(folder / "env")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_secrets_are_made_and_digests_asked_for_and_both_are_kept(tmp_path):
    done = fill_env(tmp_path, DIGEST)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    first = dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.*)$", (tmp_path / "env").read_text()))
    named = re.findall(r"(?m)^([A-Z0-9_]+)=", (DOCKER / "env.example").read_text())
    assert list(first) == named
    assert {name: value for name, value in first.items() if name.endswith("_IMAGE")} == {
        "PYTHON_IMAGE": f"python:3.11.13-slim-bookworm@{DIGEST}",
        "POSTGRES_IMAGE": f"postgres:15.13-bookworm@{DIGEST}",
        "REDIS_IMAGE": f"redis:7.2.9-bookworm@{DIGEST}",
        "MINIO_IMAGE": f"minio/minio:RELEASE.2025-04-22T22-12-26Z@{DIGEST}",
    }
    secret = {name: value for name, value in first.items() if not name.endswith("_IMAGE")}
    del secret["COMPOSE_PROJECT_NAME"]
    assert len(set(secret.values())) == len(secret)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}=", secret.pop("FERNET_KEY"))
    assert {bool(re.fullmatch(r"[0-9a-f]{48}", value)) for value in secret.values()} == {True}
    assert not [value for value in secret.values() if value in done.stdout + done.stderr]
    # Again, with nothing added, and with a name of a person's own.
    assert fill_env(tmp_path, "").returncode == 0
    mine = {**first, "COMPOSE_PROJECT_NAME": "shop", "MEANDER_ALERT_WEBHOOK": "https://chat.example/a|b"}
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in mine.items()))
    assert fill_env(tmp_path, DIGEST.replace("0", "1")).returncode == 0
    again = dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.*)$", (tmp_path / "env").read_text()))
    assert again == mine
    assert len((tmp_path / "asked").read_text().splitlines()) == 4


@pytest.mark.parametrize("answer", ["", "sha256:", "latest", f"{DIGEST} {DIGEST}"])
def test_what_is_no_digest_is_not_written(tmp_path, answer):
    done = fill_env(tmp_path, answer)
    assert done.returncode != 0
    assert "python:3.11.13-slim-bookworm was expected" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("env")] == []


# ---- the object store ----

LAKE, LANDING, LOGS = "meander-lake", "meander-landing", "meander-logs"


def may(role: str, action: str, bucket: str, key: str = "") -> bool:
    """Return whether the policy of a role allows an action of S3; what nothing allows is refused."""
    thing = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    return any(
        statement["Effect"] == "Allow" and action in statement["Action"]
        and any(fnmatchcase(thing, pattern) for pattern in statement["Resource"])
        for statement in json.loads((DOCKER / "s3" / f"{role}.json").read_text())["Statement"]
    )  # fmt: skip


def files_of_the_lake(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return a file of each part of the lake, by the name of the part."""
    monkeypatch.setenv("MEANDER_LAKE", "lake")
    return {
        **{table: places.table_path(table) + "/_delta_log/0.json" for table in TABLES},
        "audits": places.audits_path() + "/_delta_log/0.json",
        "order": places.order_path() + "/_delta_log/0.json",
        "runs": places.run_folder("r") + "/events.json",
        "models": places.metrics_file("r"),
        "registry": places.registry_folder() + "/1/artifacts/card.json",
        "monitor": places.monitor_file(date(2025, 1, 1)),
        "alerts": places.alerts_folder("lake") + "/sent/x.json",
        "probe": places.probe_file(),
    }


def test_each_role_has_a_key_with_the_rights_it_needs(monkeypatch):
    files = files_of_the_lake(monkeypatch)
    writes = {
        role: {part for part, key in files.items() if may(role, "s3:PutObject", LAKE, key)}
        for role in ("ingest", "train", "serve", "page", "logs", "shop")
    }
    assert writes == {
        "ingest": set(files),
        "train": {"models", "registry", "alerts"},
        "serve": {"alerts"},
        "page": {"alerts"},
        "logs": set(),
        "shop": set(),
    }
    for role, parts in writes.items():
        assert parts == {part for part, key in files.items() if may(role, "s3:DeleteObject", LAKE, key)}
        reads = {may(role, "s3:GetObject", LAKE, key) for key in files.values()}
        assert reads == {role not in ("logs", "shop")}
        assert may(role, "s3:ListBucket", LAKE) is (role not in ("logs", "shop"))
    # A row of the landing is read by ingest alone, and written by the shop alone; the page sees which days there are.
    for action, who in {
        "s3:GetObject": {"ingest", "shop"},
        "s3:PutObject": {"shop"},
        "s3:DeleteObject": {"shop"},
    }.items():
        assert {role for role in writes if may(role, action, LANDING, "landing/dt=2025-01-01/a.csv")} == who, action
        assert {role for role in writes if may(role, action, LOGS, "logs/x.log")} == {"logs"}, action
    assert {role for role in writes if may(role, "s3:ListBucket", LANDING)} == {"ingest", "page", "shop"}


def test_no_key_is_more_than_that_of_objects_in_these_buckets():
    for file in (DOCKER / "s3").glob("*.json"):
        for statement in json.loads(file.read_text())["Statement"]:
            assert not [action for action in statement["Action"] if "*" in action]
            buckets = {resource.removeprefix("arn:aws:s3:::").partition("/")[0] for resource in statement["Resource"]}
            assert buckets <= {LAKE, LANDING, LOGS}
    made = re.findall(r"(?m)^add (\w+) ", (DOCKER / "s3" / "buckets.sh").read_text())
    assert {file.stem for file in (DOCKER / "s3").glob("*.json")} == set(made)
    settings = SERVICES["worker"]["environment"]
    assert settings["MEANDER_LAKE"] == f"s3://{LAKE}/lake", "as the policies spell it"
    assert settings["MEANDER_LANDING"].startswith(f"s3://{LANDING}/")
    assert settings["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"].startswith(f"s3://{LOGS}/")


MC = """#!/bin/sh
[ -n "$MC_HOST_store" ] || exit 1
echo "$*" >>{folder}/asked
case "$*" in
    "admin user add store") read -r user; read -r key; echo "$user $key" >>{folder}/users ;;
    *"user info store "*) echo '{{"status":"success","policyName":"{attached}"}}' ;;
esac
"""


@pytest.mark.parametrize("attached", ["", "train"])
def test_each_role_becomes_a_user_with_its_policy_and_no_key_is_seen_on_a_command_line(tmp_path, attached):
    tool = tmp_path / "mc"
    tool.write_text(MC.format(folder=tmp_path, attached=attached))
    tool.chmod(0o755)
    keys = {f"S3_{role}_KEY": f"key-of-{role}" for role in S3_USERS}
    root = {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "key-of-ROOT"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **keys, **root}
    subprocess.run(["sh", DOCKER / "s3" / "buckets.sh"], env=environment, check=True)
    users = dict(line.split() for line in (tmp_path / "users").read_text().splitlines())
    assert users == {role.lower(): f"key-of-{role}" for role in S3_USERS}
    asked = (tmp_path / "asked").read_text()
    assert "key-of" not in asked
    assert re.findall(r"mb --ignore-existing store/(\S+)", asked) == [LAKE, LANDING, LOGS]
    assert dict(re.findall(r"policy create store (\S+) (\S+)", asked)) == {
        user: str(DOCKER / "s3" / f"{user}.json") for user in users
    }
    given = dict(re.findall(r"policy attach store (\S+) --user (\S+)", asked))
    assert given == {user: user for user in users if user != attached}


# ---- the databases ----


def test_the_owner_of_a_database_gets_into_no_other_one():
    import psycopg

    passwords = {"airflow": "one'1", "mlflow": "two", "serving": "three"}
    server = postgres.Server()
    try:
        environment = {
            "PATH": f"{server.bin}:{os.environ['PATH']}",
            **{f"{name.upper()}_PASSWORD": secret for name, secret in passwords.items()},
            **{"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": postgres.PASSWORD},
        }
        done = subprocess.run([DOCKER / "databases.sh"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for user, secret in passwords.items():
            for database in (*passwords, "postgres"):
                where = {"host": "127.0.0.1", "port": server.port, "user": user, "password": secret}
                if user == database:
                    with psycopg.connect(**where, dbname=database) as connection:
                        connection.execute("create schema own; create table own.t (a int); create table t (a int)")
                        rights = "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = %s"
                        assert connection.execute(rights, [user]).fetchone() == (False, False, False)
                else:
                    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                        psycopg.connect(**where, dbname=database)
    finally:
        server.remove()


# ---- who may call whom ----

POLICIES = [thing["spec"] for thing in MANIFESTS if thing["kind"] == "NetworkPolicy"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a selector of Kubernetes selects a pod with these labels."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def lets_through(rule: dict[str, Any], side: str, other: dict[str, str] | None, port: int) -> bool:
    """Return whether a rule admits another pod of the namespace, or one outside (None), at a port."""
    ports = [entry["port"] for entry in rule.get("ports", []) if entry["protocol"] == "TCP"]
    if "ports" in rule and port not in ports:
        return False
    if side not in rule:
        return True
    return other is not None and any(
        "namespaceSelector" not in peer and selects(peer["podSelector"], other) for peer in rule[side]
    )


def allowed(direction: str, of: dict[str, str], other: dict[str, str] | None, port: int) -> bool:
    """Return what the policies say of one direction, `ingress` or `egress`, of a pod."""
    chosen = [
        policy
        for policy in POLICIES
        if direction.capitalize() in policy["policyTypes"] and selects(policy["podSelector"], of)
    ]
    side = {"ingress": "from", "egress": "to"}[direction]
    assert chosen, "every pod is selected, or everything would be allowed"
    return any(lets_through(rule, side, other, port) for policy in chosen for rule in policy.get(direction, []))


EXECUTOR, TRAINING = "meander-spark: executor.yaml", "meander-spark-training: executor.yaml"
WORKER, TRAINER = "chart: worker", "meander-trainer"
LABELS = {name: pod["metadata"]["labels"] for name, pod in PODS.items()} | {"a pod of somebody": {"app": "else"}}
RANDOM_PORT = 40123
# Pods of a job, which call each other at any port: drivers and their executors.
JOBS = {
    *((WORKER, EXECUTOR), (EXECUTOR, WORKER), (EXECUTOR, EXECUTOR)),
    *((TRAINER, TRAINING), (TRAINING, TRAINER), (TRAINING, TRAINING)),
}
CALLS = {
    8080: {
        (task, "chart: api-server")
        for task in (WORKER, TRAINER, "meander-serve", "chart: triggerer", "chart: dag-processor")
    },
    8793: {("chart: api-server", WORKER)},
    8794: {("chart: api-server", "chart: triggerer")},
}


def test_each_pod_is_called_by_those_that_have_to_and_at_a_random_port_by_its_job_alone():
    for port in (*CALLS, RANDOM_PORT, 5432, 6379, 443, 22):
        found = {
            (caller, callee)
            for caller, source in LABELS.items()
            for callee, target in LABELS.items()
            if allowed("egress", source, target, port) and allowed("ingress", target, source, port)
        }
        assert found == JOBS | CALLS.get(port, set()), port


def test_a_training_is_called_by_its_own_pods_alone():
    servers = [LABELS[TRAINING], LABELS["meander-trainer"]]
    callers = {
        name
        for name, labels in LABELS.items()
        for server in servers
        for port in (1, 2222, RANDOM_PORT, 65535)
        if allowed("ingress", server, labels, port)
    }
    assert callers == {TRAINING, "meander-trainer"}
    assert not allowed("ingress", LABELS["meander-trainer"], LABELS["meander-trainer"], RANDOM_PORT)
    assert not any(allowed("ingress", server, None, RANDOM_PORT) for server in servers)


def test_what_leaves_the_namespace_is_what_each_pod_needs():
    reaches = {
        port: {name for name, labels in LABELS.items() if allowed("egress", labels, None, port)}
        for port in (443, 5432, 6379, 6443, 80, 22, 25, RANDOM_PORT)
    }
    everybody = set(LABELS)
    assert reaches.pop(443) == everybody, "the object store"
    of_airflow = {name for name in PODS if name.startswith("chart") or name in ("meander-trainer", "meander-serve")}
    assert reaches == {
        5432: of_airflow | {TRAINING},
        6379: {"chart: scheduler", "chart: worker", "meander-trainer", "meander-serve"},
        6443: {"chart: worker", "meander-trainer"},
        **{port: set() for port in (80, 22, 25, RANDOM_PORT)},
    }


SHARED = {
    "postgres": {"database"},
    "redis": {"broker"},
    "s3": {"store"},
    "spark-master": {"spark"},
}


def test_services_of_compose_share_a_network_with_those_that_they_call_alone():
    assert {name for name, network in COMPOSE["networks"].items() if not network.get("internal")} == {"outside"}
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {"api-server"}
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}, "and to this machine alone"
    for name, networks in SHARED.items():
        assert set(SERVICES[name]["networks"]) == networks
    on = {
        network: {name for name, service in SERVICES.items() if network in service["networks"]}
        for network in COMPOSE["networks"]
    }
    assert on["broker"] == {"redis", "scheduler", "worker", "trainer", "serve"}
    assert on["spark"] == {"spark-master", "spark-worker", "worker", "trainer"}
    # Executors run Python of jobs: they reach neither Airflow nor a database.
    assert set(SERVICES["spark-worker"]["networks"]) == {"spark", "store"}


# ---- Spark ----


def test_every_job_of_spark_asks_for_a_secret_and_encrypts():
    wanted = {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.network.crypto.cipher": "AES/GCM/NoPadding",
        "spark.io.encryption.enabled": "true",
    }
    for thing in MANIFESTS:
        if text := thing.get("data", {}).get("spark-defaults.conf"):
            lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
            assert wanted.items() <= dict(lines).items(), thing["metadata"]["name"]
    drivers = {name for name, service in SERVICES.items() if "SPARK_SECRET" in service["environment"]}
    assert drivers == {"worker", "trainer"}
    for name in drivers:
        assert SERVICES[name]["command"][:3] == ["sh", "/driver.sh", "airflow"]
        assert "./driver.sh:/driver.sh:ro" in SERVICES[name]["volumes"]
    written = dict(re.findall(r"(?m)^(spark\.\S+) +(\S+)$", (DOCKER / "driver.sh").read_text()))
    assert written == {**wanted, "spark.authenticate.secret": "$SPARK_SECRET"}
    options = {"spark.authenticate": "true", **{key: value for key, value in wanted.items() if "network" in key}}
    for name in ("spark-master", "spark-worker"):
        assert dict(re.findall(r"-D(\S+?)=(\S+)", SERVICES[name]["environment"]["SPARK_DAEMON_JAVA_OPTS"])) == options

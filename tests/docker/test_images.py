"""The images without an engine: each Dockerfile's own install commands and entry, run in an empty folder.

What differs from a build: the base image is this machine, and packages may come from uv's cache.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from dags.local.ports import free_port
from tests.waiting import until

REPO = Path(__file__).resolve().parents[2]
DOCKER = REPO / "docker"
REACHING = re.compile(r"UV_|PIP_|SSL_|REQUESTS_|https?_proxy|no_proxy", re.IGNORECASE)
IMAGES = ("airflow", "spark", "trainer")
# What a container of each is asked, beyond that its entry starts, and what it has to say. Few processes: each loads
# Airflow or TensorFlow.
ASKED = {
    "airflow": {
        "airflow plugins": "meander",
        "python -c 'import airflow.providers.celery.executors.celery_executor as c, dags.behavior_daily; c.app; "
        "from model.versions import registry; from dags.page.views import RUNBOOK; print(RUNBOOK.is_file())'": "True",
    },
    "spark": {
        "python -m jobs.ingest --help": "--day",
        "python -c 'import great_expectations, keras, lightgbm, model.score as s; "
        "print(s.__file__)'": "site-packages/model/",
    },
    "trainer": {
        "airflow version": ".",
        "python -c 'import mlflow, lightgbm, model.data.petastorm_reader, keras, model.pretrain, model.evaluate as e; "
        "print(e.__file__)'": "site-packages/model/",
    },
}


def instructions(image: str) -> list[tuple[str, str]]:
    """Return (instruction, its text) of a Dockerfile, continued lines joined."""
    text = (DOCKER / f"{image}.Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def pinned(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return {package: (version, hashes)} of a lock."""
    found = {}
    for name, version, hashes in re.findall(
        r"(?m)^([a-z0-9._-]+)(?:\[[^]]*\])?==(\S+)((?: \\\n    --hash=\S+)+)", lock.read_text()
    ):
        found[name] = (version, frozenset(re.findall(r"--hash=(\S+)", hashes)))
    return found


@pytest.mark.parametrize("lock", sorted(DOCKER.glob("*.lock")), ids=lambda path: path.stem)
def test_a_lock_of_an_image_is_a_part_of_the_one_that_is_tested(lock):
    whole, part = pinned(REPO / "requirements.lock"), pinned(lock)
    assert len(part) == lock.read_text().count("==")
    # The CUDA libraries are the one thing that no test here can use.
    own = {name for name in part if name.startswith("nvidia-")} if lock.stem == "trainer-cuda" else set()
    assert {name: part[name] for name in part.keys() - own} == {name: whole.get(name) for name in part.keys() - own}
    assert bool(own) is (lock.stem == "trainer-cuda")


@pytest.mark.parametrize("image", IMAGES)
def test_a_dockerfile_is_well_kept(image):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKER / f"{image}.Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    said = instructions(image)
    last_stage = max(n for n, (name, _) in enumerate(said) if name == "FROM")
    assert "USER" in [name for name, _ in said[last_stage:]]
    assert "HEALTHCHECK" in [name for name, _ in said]
    assert ("ENV", "UV_COMPILE_BYTECODE=1") in said[:last_stage]
    assert [text for name, text in said[last_stage:] if name == "ENTRYPOINT" and '"tini"' in text]
    assert [
        text for name, text in said[last_stage:] if "build-essential" in text or "uv" in shlex.split(text)[:1]
    ] == []


# Debian's package of each library that is not in the image of Python, which has the C and C++ libraries.
OF_PACKAGE = {"libgomp.so.1": "libgomp1"}
IN_PYTHON = re.compile(r"(libc|libm|libdl|libpthread|librt|ld-linux-.*|libstdc\+\+|libgcc_s)\.so\.\d+")


@pytest.mark.parametrize("image", [image for image in IMAGES if image != "airflow"])
def test_what_lightgbm_is_linked_with_is_in_the_images_that_load_it(image):
    """The environment of this machine has more libraries than an image: no other test sees one that is missing."""
    library = Path(sysconfig.get_path("purelib"), "lightgbm", "lib", "lib_lightgbm.so")
    names = set(re.findall(rb"[\w+.-]+\.so(?:\.\d+)+", library.read_bytes()))
    needed = {name.decode() for name in names if not IN_PYTHON.fullmatch(name.decode())}
    assert "libgomp.so.1" in needed, "else this looks at nothing"
    lock = pinned(DOCKER / ("trainer-cpu.lock" if image == "trainer" else f"{image}.lock"))
    assert "lightgbm" in lock
    said = instructions(image)
    last_stage = max(n for n, (name, _) in enumerate(said) if name == "FROM")
    installed = {word for name, text in said[last_stage:] if name == "RUN" for word in shlex.split(text)}
    assert {name: OF_PACKAGE.get(name) in installed for name in needed} == dict.fromkeys(needed, True)


@pytest.mark.e2e
@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_and_starts_from_what_its_dockerfile_copies_alone(image, tmp_path, request):
    uv = str(Path(sys.executable).with_name("uv"))
    source, environment = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    # Jars come from elsewhere than packages: only `make test-s3a` asks for them.
    jars = request.config.getoption("--s3a-jars")
    place = {"/opt/meander": str(environment), "${VARIANT}": "cpu", "--no-cache ": "", "uv pip": f"{uv} pip"}
    place |= {"/opt/s3a": str(jars and jars.resolve())}
    not_here = ["apt-get", "pip install --no-cache-dir", *([] if jars else ["s3a.sh"])]

    def here(text: str) -> str:
        for there, ours in place.items():
            text = text.replace(there, ours)
        return text

    said = instructions(image)
    last_stage = max(n for n, (name, _) in enumerate(said) if name == "FROM")
    # How this machine reaches a package index is not the image's concern.
    reaching = {name: value for name, value in os.environ.items() if REACHING.match(name)}
    clean = {**reaching, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    # The cache lies in the home that the test has left.
    clean["UV_CACHE_DIR"] = subprocess.run(
        [uv, "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for name, text in said[:last_stage]:
        if name == "COPY":
            *parts, target = text.split()
            for part in map(here, parts):
                to = source / target / Path(part).name if target.endswith("/") else source / target
                to.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (REPO / part).is_dir() else shutil.copy
                copy(REPO / part, to)
        elif name == "ENV" and jars:  # what it asks for takes as long as the installation
            clean |= dict(word.split("=", 1) for word in shlex.split(text))
        elif name == "RUN" and not any(part in text for part in not_here):
            run(here(text), source, clean)
    for name, text in said[last_stage:]:
        if name == "COPY" and "--from=" not in text:
            origin, target = map(here, text.split())
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / origin, target)
    shutil.rmtree(source)
    packages = environment / "lib" / "python3.11" / "site-packages"
    if jars:
        assert not_compiled(packages, "jobs", "pyspark") == [], "the user of an image may not write bytecode"
    else:
        lend_bytecode(packages)

    inside = {
        "PATH": f"{environment}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
    }
    if "JAVA_HOME" in os.environ:
        inside["JAVA_HOME"] = os.environ["JAVA_HOME"]
    words = dict(said[last_stage:])
    started = [*json.loads(words["ENTRYPOINT"]), *json.loads(words["CMD"])]
    assert started[:2] == ["tini", "--"]
    assert shutil.which(started[2], path=inside["PATH"]) == f"{environment}/bin/{started[2]}"
    for command, answer in ASKED[image].items():
        assert answer in run(command, tmp_path, inside), command
    if image == "spark":
        require_health(said, inside, tmp_path)
    # Nothing of the workplace has come along: the packages are those of the lock, and ours.
    listed = run(f"{uv} pip list --format json --python {environment}/bin/python", tmp_path, clean)
    names = {entry["name"] for entry in json.loads(listed)}
    lock = pinned(DOCKER / ("trainer-cpu.lock" if image == "trainer" else f"{image}.lock"))
    assert names == lock.keys() | {"meander"}


def lend_bytecode(packages: Path) -> None:
    """Give an environment the bytecode of this one: most of its files are the same, and compiling them takes a minute.

    Python takes it where file and time are those that it was made of, and compiles the others.
    """
    ours = Path(sysconfig.get_path("purelib"))
    for compiled in ours.rglob("__pycache__"):
        beside = packages / compiled.relative_to(ours)
        if beside.parent.is_dir():
            beside.mkdir(exist_ok=True)
            # The folders may lie on two disks.
            give = os.link if compiled.stat().st_dev == beside.stat().st_dev else shutil.copy2
            for file in compiled.iterdir():
                if not (beside / file.name).exists():
                    give(file, beside / file.name)


def not_compiled(packages: Path, *names: str) -> list[Path]:
    """Return the modules of these packages beside which no bytecode lies."""
    modules = [file for name in names for file in (packages / name).rglob("*.py")]
    assert modules
    return [file for file in modules if not list(file.parent.glob(f"__pycache__/{file.stem}.*.pyc"))]


def require_health(said: list[tuple[str, str]], environment: dict[str, str], folder: Path) -> None:
    """Start what the image of a Spark master starts, on free ports, and wait until its HEALTHCHECK finds it well."""
    port, page = str(free_port()), str(free_port())
    (command,) = (json.loads(text.replace("7077", port)) for name, text in said if name == "CMD")
    (check,) = (text.partition(" CMD ")[2].replace("8080", page) for name, text in said if name == "HEALTHCHECK")
    given = {**environment, "SPARK_MASTER_WEBUI_PORT": page}

    def is_well() -> bool:
        return (
            subprocess.run(json.loads(check), env=given, cwd=folder, capture_output=True, check=False).returncode == 0
        )

    assert not is_well()
    with (folder / "master.log").open("w") as log, subprocess.Popen(
        ["spark-entry", *command], env=given, cwd=folder, stdout=log, stderr=log
    ) as master:  # fmt: skip
        try:

            def answers() -> bool:
                assert master.poll() is None
                return is_well()

            until("the master's page to answer its check", answers)
        finally:
            master.kill()


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a shell command in a folder with this environment alone, and return what it printed."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- compose ---

COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_compose_takes_every_secret_from_outside_and_the_example_names_them_all():
    text = (DOCKER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    assert asked == set(re.findall(r"\$\{([A-Z0-9_]+):\?set it in docker/.env\}", text)), (
        "it does not start without one"
    )
    assert re.findall(r"\$\{[A-Z0-9_]+:?[-+=]", text) == [], "a default would be everybody's password"
    named = set(re.findall(r"(?m)^([A-Z0-9_]+)=", (DOCKER / "env.example").read_text())) - {"COMPOSE_PROJECT_NAME"}
    assert asked == named
    given = dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.*)$", (DOCKER / "env.example").read_text()))
    assert {name for name, value in given.items() if value} == {"COMPOSE_PROJECT_NAME"}


def test_compose_builds_images_that_exist_and_waits_for_what_can_say_that_it_is_well():
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), name
        for other, wanted in service.get("depends_on", {}).items():
            waited = COMPOSE["services"][other]
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in waited or "build" in waited, f"{name} waits for {other}, which has no check"
    assert {"default", "train", "serve"} <= {
        queue for service in COMPOSE["services"].values() for queue in map(str, service.get("command") or [])
    }, "each queue has a worker"


def test_the_key_of_pseudonyms_is_in_the_workers_that_ingest_and_nowhere_else():
    with_it = {name for name, service in COMPOSE["services"].items() if "MEANDER_PSEUDONYM_KEY" in str(service)}
    assert with_it == {"worker"}
    assert "default" in COMPOSE["services"]["worker"]["command"]
    assert "MEANDER_PSEUDONYM_KEY" in [env["name"] for env in VALUES["workers"]["celery"]["env"]]
    others = {name: value for name, value in VALUES.items() if name != "workers"}
    assert "seudonym" not in str([*MANIFESTS.values(), others])


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="Debian's docker-compose is not installed")
@pytest.mark.parametrize("beside", [[], ["-f", DOCKER / "compose.cuda.yaml"]], ids=["cpu", "cuda"])
def test_compose_itself_takes_the_file_and_refuses_it_without_secrets(beside, tmp_path):
    example = (DOCKER / "env.example").read_text()
    (tmp_path / "full").write_text(re.sub(r"(?m)^([A-Z0-9_]+)=$", r"\1=secret", example))
    command = ["docker-compose", "-f", DOCKER / "compose.yaml", *beside]
    full = subprocess.run(
        [*command, "--env-file", tmp_path / "full", "config"], capture_output=True, text=True, check=False
    )
    assert full.returncode == 0, full.stderr
    empty = subprocess.run(
        [*command, "--env-file", DOCKER / "env.example", "config"], capture_output=True, text=True, check=False
    )
    assert empty.returncode != 0
    assert "set it in docker/.env" in empty.stderr


# --- Kubernetes ---

KUBERNETES = DOCKER / "kubernetes"
MANIFESTS = {
    file.stem: list(yaml.safe_load_all(file.read_text()))
    for file in sorted(KUBERNETES.glob("*.yaml"))
    if file.stem != "values"
}
VALUES = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
TEMPLATES = [
    yaml.safe_load(thing["data"]["executor.yaml"])
    for thing in MANIFESTS["settings"]
    if "executor.yaml" in thing.get("data", {})
]


def test_kubernetes_takes_the_manifests():
    assert len(TEMPLATES) == 2
    for template in TEMPLATES:
        (container,) = template["spec"]["containers"]
        container["image"] = "given by Spark"
    for thing in [*(thing for things in MANIFESTS.values() for thing in things), *TEMPLATES]:
        kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["trainer", "serve"])
def test_a_worker_beside_the_chart_has_the_settings_and_the_secrets_of_airflow_that_the_chart_gives_to_its_own(name):
    (pod,) = (thing["spec"]["template"]["spec"] for thing in MANIFESTS[name])
    (container,) = pod["containers"]
    shared = yaml.safe_load(VALUES["extraEnvFrom"])
    assert [source for source in shared if source not in container["envFrom"]] == []
    by_key = {env["name"]: env["valueFrom"].get("secretKeyRef", {}).get("name") for env in container["env"]}
    by_key.pop("SPARK_LOCAL_HOSTNAME", None)
    assert by_key == {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": VALUES["data"]["metadataSecretName"],
        "AIRFLOW__CELERY__BROKER_URL": VALUES["data"]["brokerUrlSecretName"],
        "AIRFLOW__CORE__FERNET_KEY": VALUES["fernetKeySecretName"],
        "AIRFLOW__API_AUTH__JWT_SECRET": VALUES["jwtSecretName"],
    }


def test_the_secrets_and_the_config_maps_that_are_named_are_those_that_are_described():
    named = {}
    for file in KUBERNETES.glob("*.yaml"):
        text = re.sub(r"(?m)^\s*#.*$", "", file.read_text())
        for kind, pattern in {
            "secret": r"(?:secretKeyRef: \{name: |secretRef: \{name: |secretRef:\s+name: |SecretName: )([\w-]+)",
            "config map": r"(?:configMapRef: \{name: |configMapRef:\s+name: |configMap: \{name: )([\w-]+)",
        }.items():
            named.setdefault(kind, set()).update(re.findall(pattern, text))
    described = re.findall(r"create secret generic (\S+)", (KUBERNETES / "settings.yaml").read_text())
    assert named["secret"] == set(described)
    maps = {thing["metadata"]["name"] for thing in MANIFESTS["settings"] if thing["kind"] == "ConfigMap"}
    assert named["config map"] == maps

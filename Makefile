# `make` alone prints the targets. Needs GNU make 4, bash, Python 3.11 and, for Spark, a Java 17 to 22 runtime;
# everything else is installed into $(VENV). Variables can be overridden: make setup PYTHON=/opt/python3.11

PYTHON ?=
VENV ?= .venv

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Containers often forbid bytecode; each of our processes would then compile Airflow, TensorFlow or Great Expectations anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
# Jars for Spark on S3.
S3A := $(VENV)-s3a
STAMP := $(VENV)/.installed
# Flower, whose versions of other packages are not ours.
FLOWER := $(VENV)-flower
# Spark's classes as a JVM on this machine takes them in at once.
CLASSES := $(VENV)/spark-classes.jsa
# What a run of tests tells of them at its end.
SLOWEST := --durations=20 --durations-min=1

.PHONY: help setup demo federated test test-fast test-cluster test-s3a s3a-jars torture mutants drill check audit format docs up down mlflow bench lock java

help: ## Print this help
	@echo 'Usage: make TARGET [PYTHON=python3.11] [VENV=.venv]'
	echo
	awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: java $(STAMP) $(CLASSES) ## Create .venv from requirements.lock (nothing to do when it is current)
	@echo "Ready: $$($(BIN)/python --version) in $(VENV). Next: make demo"

demo: java $(STAMP) $(CLASSES) ## Load a real shop log, train and judge a model on it, predict in the days that follow
	@$(BIN)/python -m dags.local demo

federated: java $(STAMP) $(CLASSES) $(FLOWER)/.installed ## Train with three shops that do not pool their logs, beside each alone and all pooled
	@$(BIN)/python -m pytest -q tests/federated
	$(BIN)/python -m tests.bench.federated --flower $(FLOWER)/bin/python

# Three at once, a file as a whole, also on two cores: much of the time is waiting for others to start.
test: java $(STAMP) $(CLASSES) ## Run every test, the end-to-end ones with a real Airflow scheduler included
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(SLOWEST)

test-fast: $(STAMP) ## Run the tests that need neither Spark, TensorFlow nor Airflow's scheduler
	@$(BIN)/python -m pytest -m 'not spark and not tf and not e2e' $(SLOWEST)

torture: java $(STAMP) $(CLASSES) ## Run the property tests with hundreds of random examples, for MINUTES=10, from SEED=, or RESUME=1
	@$(BIN)/python -m tests.torture $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(RESUME),--resume)

mutants: java $(STAMP) $(CLASSES) ## Make each plausible mistake of tests/mutants in a copy, and tell which ones no test notices
	@$(BIN)/python -m tests.mutants $(MUTANTS)

test-cluster: java $(STAMP) $(CLASSES) ## Run alone the test of a whole cluster: Celery, Redis, PostgreSQL, a Spark master and workers
	@$(BIN)/python -m pytest tests/e2e/test_cluster.py

test-s3a: s3a-jars ## Run the tests of a lake on S3, and of the image with its jars
	@$(BIN)/python -m pytest --s3a-jars $(S3A) tests/e2e/test_s3a.py \
	    'tests/docker/test_images.py::test_an_image_installs_and_starts_from_what_its_dockerfile_copies_alone[spark]'

s3a-jars: java $(STAMP) ## Fetch the jars of docker/s3a.xml for Spark on S3, and check them against docker/s3a.sha256
	@docker/s3a.sh $(BIN)/python $(S3A)

drill: java $(STAMP) $(CLASSES) ## Break it in six ways, hear what page, alert and runbook say, and repair it
	@$(BIN)/python -m tests.drill

check: $(STAMP) ## Lint, formatting, types, import rules, known vulnerabilities; changes no file of the project
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m tests.audit --may-be-offline

audit: $(STAMP) ## Write bills of materials (build/sbom), and ask for known vulnerabilities; fails without an answer
	@$(BIN)/python -m tests.audit

format: $(STAMP) ## Format the code and repair what ruff can
	@$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(STAMP) ## Write docs/tables.md and docs/settings.md, which list what the code says
	@$(BIN)/python -m lake.docs

up: java $(STAMP) $(CLASSES) ## Start Airflow with its UI and say how to log in
	@$(BIN)/python -m dags.local up

down: $(STAMP) ## Stop what `make up` started
	@$(BIN)/python -m dags.local down

mlflow: $(STAMP) ## Open MLflow's UI on the runs and model versions; Ctrl-C stops it
	@$(BIN)/python -m dags.local mlflow

bench: java $(STAMP) $(CLASSES) ## Measure the daily pipeline on simulated events, and sessions beside other engines
	@$(BIN)/python -m tests.bench.daily
	@$(BIN)/python -m tests.bench.sessionize

# Hashes but no header: a lock that names no package index works with any. For every Python 3.11, not only this one.
lock: $(STAMP) ## Resolve pyproject.toml again into requirements.lock (UPGRADE=--upgrade takes newer versions)
	@$(find_uv)
	"$$uv" pip compile --quiet pyproject.toml --all-extras --generate-hashes --no-header --no-annotate \
	    --python $(BIN)/python --python-version 3.11 $(UPGRADE) --output-file requirements.lock >/dev/null
	# What each image installs: parts of the same lock.
	part() { "$$uv" pip compile --quiet "$${@:2}" --constraint requirements.lock --generate-hashes --no-header \
	    --no-annotate --python $(BIN)/python --python-version 3.11 --output-file "docker/$$1.lock" >/dev/null; }
	worker=(pyproject.toml --extra airflow --extra production --extra spark --extra serving --extra s3)
	part airflow "$${worker[@]}" --extra registry
	part spark pyproject.toml --extra spark --extra train --extra s3
	part trainer-cpu "$${worker[@]}" --extra train
	part trainer-cuda docker/cuda.in "$${worker[@]}" --extra train
	part build docker/build.in
	"$$uv" pip compile --quiet federated/requirements.in --generate-hashes --no-header --no-annotate \
	    --python $(BIN)/python --python-version 3.11 $(UPGRADE) --output-file federated/requirements.lock >/dev/null
	echo "requirements.lock holds $$(grep -c == requirements.lock) packages. Next: make setup test"

# Spark 4.1 is compiled for 17; its Hadoop calls Subject.getSubject, which fails from 23 on.
java:
	@java=$${JAVA_HOME:+$$JAVA_HOME/bin/java}
	java=$${java:-$$(command -v java || true)}
	found=$$({ "$$java" -version 2>&1 || true; } | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1)
	if [ "$${found:-0}" -ge 17 ] && [ "$$found" -le 22 ]; then exit 0; fi
	if [ -n "$${JAVA_HOME:-}" ]; then where="JAVA_HOME=$$JAVA_HOME"; else where="the PATH"; fi
	{
	    if [ -n "$$found" ]; then
	        echo "Spark needs a Java runtime of version 17 to 22; from $$where it would get:"
	        "$$java" -version 2>&1 | sed -n '/ version /s/^/    /p'
	    else
	        echo "Spark needs a Java runtime of version 17 to 22, and there is none (looked at $$where)."
	    fi
	    echo "  Debian, Ubuntu:  sudo apt-get install openjdk-17-jre-headless"
	    echo "  Fedora:          sudo dnf install java-21-openjdk-headless"
	    echo "  macOS:           brew install openjdk@17"
	    echo "Then run make again; if another one comes first on the PATH, set JAVA_HOME to the folder of this one."
	} >&2
	exit 1

$(STAMP): requirements.lock pyproject.toml
	@$(find_python)
	$(find_uv)
	if ! $(BIN)/python -c '$(IS_3_11)' 2>/dev/null; then
	    "$$uv" venv --quiet --clear --python "$$python" $(VENV)
	fi
	if [ -t 2 ]; then quiet=; else quiet=--quiet; fi
	echo "Installing $$(grep -c == requirements.lock) packages of requirements.lock into $(VENV) (3 GB; minutes the first time)"
	export VIRTUAL_ENV="$(abspath $(VENV))"
	"$$uv" pip sync $$quiet --require-hashes requirements.lock
	"$$uv" pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(FLOWER)/.installed: federated/requirements.lock $(STAMP)
	@$(find_uv)
	"$$uv" venv --quiet --clear --python $(BIN)/python $(FLOWER)
	VIRTUAL_ENV="$(abspath $(FLOWER))" "$$uv" pip sync --quiet --require-hashes federated/requirements.lock
	touch $@

# An order of its own: `java` is phony, and would have it made again each time.
$(CLASSES): $(STAMP) | java
	@echo "Writing an archive of Spark's classes, from which each JVM starts in less time (half a minute, once)"
	$(BIN)/python -m dags.local.jvm

# --- shell fragments -------------------------------------------------------------------------------

IS_3_11 := import sys; sys.exit(sys.version_info[:2] != (3, 11))

# Sets $python. A name on the PATH may be a shim that leads nowhere, so each candidate is run.
define find_python
python=
for candidate in $(or $(PYTHON),python3.11 python3 python); do
    if "$$candidate" -c '$(IS_3_11)' >/dev/null 2>&1; then python=$$(command -v "$$candidate"); break; fi
done
if [ -z "$$python" ] && [ -z "$(PYTHON)" ] && uv --version >/dev/null 2>&1; then
    python=$$(uv python find --quiet --system --no-python-downloads 3.11 2>/dev/null || true)
fi
if [ -z "$$python" ]; then
    {
        echo "Meander needs Python 3.11; $(if $(PYTHON),PYTHON=$(PYTHON) is not one,neither python3.11 nor python3 nor python on the PATH is one)."
        echo "  Debian 12:   sudo apt-get install python3.11 python3.11-venv"
        echo "  Fedora:      sudo dnf install python3.11"
        echo "  macOS:       brew install python@3.11"
        echo "  with uv:     uv python install 3.11"
        echo "  with pyenv:  pyenv install 3.11 && pyenv shell 3.11"
        echo "Then run make again; if it is not on the PATH, name it: make setup PYTHON=/path/to/python3.11"
    } >&2
    exit 1
fi
endef

# Sets $uv: the one on the PATH, or one in a folder of its own. Not `pip install --user`: the Pythons of
# Debian and of others refuse it.
define find_uv
uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=$(VENV)-uv/bin/uv
    if ! "$$uv" --version >/dev/null 2>&1; then
        python=$${python:-$(BIN)/python}
        echo "Installing uv into $(VENV)-uv"
        rm -rf $(VENV)-uv
        hashed="--quiet --disable-pip-version-check --require-hashes --requirement docker/build.lock"
        if "$$python" -m venv $(VENV)-uv >/dev/null 2>&1; then
            $(VENV)-uv/bin/python -m pip install $$hashed
        elif ! "$$python" -m pip install $$hashed --target $(VENV)-uv; then
            {
                echo "uv is missing and could not be installed: $$python has neither venv nor pip that work."
                echo "  Debian, Ubuntu:  sudo apt-get install python3-venv"
                echo "Or install uv in any other way; it has to be on the PATH. Then run make again."
            } >&2
            exit 1
        fi
    fi
fi
endef

"""The files around the code say what is true: the lock, the documents, the sources that ship."""

import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.rejections import REASONS
from jobs.source import load_source, shipped_sources
from lake import errors

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
DESIGN = (REPO / "docs" / "design.md").read_text(encoding="utf-8")
RUNBOOK = (REPO / "docs" / "runbook.md").read_text(encoding="utf-8")
LOCK = (REPO / "requirements.lock").read_text(encoding="utf-8")
MAKEFILE = (REPO / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCUMENTS = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docker/README.md")),
    *sorted((REPO / "docs").rglob("*.md")),
]
CODE = ("dags", "jobs", "expectations", "lake", "model")
CODES = sorted(
    thing.code for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.MeanderError)
)


def locked() -> dict[str, str]:
    """Return {package: exact version} of the lock."""
    pins = (line.split(" ")[0].split("==") for line in LOCK.splitlines() if not line.startswith(" "))
    return {canonicalize_name(name.split("[")[0]): version for name, version in pins}


# --- the lock ------------------------------------------------------------------------------------------


def test_every_locked_package_has_hashes():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    pinned = re.compile(r"\S+==\S+( ; [^\\]+)? \\\n +--hash=sha256:")
    assert [entry for entry in entries if not pinned.match(entry)] == []


def test_the_lock_names_no_place_to_download_from():
    assert re.findall(r"://|^\s*-(?!-hash=).*|^#.*", LOCK, flags=re.MULTILINE) == []


@pytest.mark.parametrize(
    "requirement",
    [
        *PROJECT["dependencies"],
        *(line for lines in EXTRAS.values() for line in lines),
    ],
)
def test_the_lock_is_current(requirement):
    wanted = Requirement(requirement)
    version = locked().get(canonicalize_name(wanted.name), "0")
    assert wanted.specifier.contains(version, prereleases=True), "run `make lock`"


def test_what_is_installed_from_outside_is_found():
    scripts = entry_points(group="console_scripts", name="meander")
    plugins = entry_points(group="airflow.plugins", name="meander")
    assert [point.value for point in (*scripts, *plugins)] == ["dags.cli.main:main", "dags.plugin:MeanderPlugin"]


# --- the documents ---------------------------------------------------------------------------------------


def test_the_readme_stays_short():
    assert len(README.splitlines()) < 120


def test_make_alone_prints_every_target():
    printed = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    documented = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert documented == set(re.findall(r"^  ([a-z0-9-]+) ", printed, re.MULTILINE))
    assert {"setup", "demo", "test", "test-fast", "check", "up", "down", "bench"} <= documented


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())
class TestDocuments:
    """What a document points at is there."""

    def test_every_make_target_it_names_exists(self, document):
        targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
        named = set(re.findall(r"(?:`|^\s*)make ([a-z0-9-]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets

    def test_every_local_link_leads_somewhere(self, document):
        links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        local = [link for link in links if "://" not in link]
        assert [link for link in local if not (document.parent / link).exists()] == []

    def test_every_module_it_runs_exists(self, document):
        modules = set(
            re.findall(r"python -m ((?:lake|jobs|expectations|model|dags)\.\w+)", document.read_text("utf-8"))
        )
        assert [name for name in modules if not (REPO / name.replace(".", "/")).with_suffix(".py").exists()] == []


@pytest.mark.parametrize("code", CODES)
def test_the_runbook_has_a_section_for_every_error_code(code):
    assert f"\n## {code}\n" in RUNBOOK, "the message of this error sends people to docs/runbook.md"


def test_the_code_names_no_section_that_the_runbook_lacks():
    code = (path.read_text(encoding="utf-8") for folder in CODE for path in (REPO / folder).rglob("*.py"))
    named = {name for text in code for name in re.findall(r"docs/runbook\.md#([a-z]+[a-z-]*)", text)}
    assert {name for name in named if f"\n## {name}\n" not in RUNBOOK} == set()


def test_the_code_names_no_document_that_is_not_there():
    code = (path.read_text(encoding="utf-8") for folder in CODE for path in (REPO / folder).rglob("*.py"))
    named = {name for text in code for name in re.findall(r"\bdocs/(?:decisions/\d{4}|\w+\.md)", text)}
    assert {name for name in named if not list(REPO.glob(f"{name}*"))} == set()


def test_the_design_lists_every_reason_to_reject_a_row():
    section = DESIGN.split("\n## Landing and sources\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| [^|]* \|$", section.split("| reason |")[1], re.MULTILINE)
    assert listed == list(REASONS)


# --- the sources that ship ---------------------------------------------------------------------------------


def test_the_sources_that_ship_are_these():
    assert shipped_sources() == [
        "canonical",
        "completejourney",
        "export_zh",
        "rees46",
        "retailrocket",
        "taobao",
    ]


@pytest.mark.parametrize("name", shipped_sources())
def test_a_source_that_ships_is_valid_and_carries_its_files_name(name):
    assert load_source(name).name == name

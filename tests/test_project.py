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
from lake.settings import OTHER_NAMES, Settings

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
DESIGN = (REPO / "docs" / "design.md").read_text(encoding="utf-8")
RUNBOOK = (REPO / "docs" / "runbook.md").read_text(encoding="utf-8")
LOCK = (REPO / "requirements.lock").read_text(encoding="utf-8")
LOCK_OF_FLOWER = (REPO / "federated" / "requirements.lock").read_text(encoding="utf-8")
MAKEFILE = (REPO / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCUMENTS = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docker/README.md")),
    *sorted((REPO / "docs").rglob("*.md")),
]
CODE = ("dags", "jobs", "expectations", "lake", "model")
ROOT_FOLDERS = (*CODE, "docker", "docs", "federated", "tests")
ROOMS = sorted(path.parent.relative_to(REPO) for folder in CODE for path in (REPO / folder).glob("*/__init__.py"))
SETTINGS = {f"MEANDER_{name.upper()}" for name in Settings.model_fields}
CODES = sorted(
    thing.code for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.MeanderError)
)


def locked() -> dict[str, str]:
    """Return {package: exact version} of the lock."""
    pins = (line.split(" ")[0].split("==") for line in LOCK.splitlines() if not line.startswith(" "))
    return {canonicalize_name(name.split("[")[0]): version for name, version in pins}


def anchors(document: Path) -> set[str]:
    """Return the names by which GitHub links the sections of a document."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_in_the_code(folder: str, rest: str) -> bool:
    """Tell whether `.publish` or `.table.Table` of a folder is a module, or a word in one."""
    path, names = REPO / folder, rest.strip(".").split(".")
    while names and (path / names[0]).is_dir():
        path /= names.pop(0)
    if names and (path / f"{names[0]}.py").is_file():
        path /= f"{names.pop(0)}.py"
    text = (path if path.is_file() else path / "__init__.py").read_text("utf-8")
    return path != REPO / folder and all(re.search(rf"\b{name}\b", text) for name in names)


# --- the lock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [LOCK, LOCK_OF_FLOWER], ids=["ours", "flower"])
def test_every_locked_package_has_hashes(lock):
    entries = re.split(r"\n(?=\S)", lock.strip())
    pinned = re.compile(r"\S+==\S+( ; [^\\]+)? \\\n +--hash=sha256:")
    assert [entry for entry in entries if not pinned.match(entry)] == []


@pytest.mark.parametrize("lock", [LOCK, LOCK_OF_FLOWER], ids=["ours", "flower"])
def test_the_lock_names_no_place_to_download_from(lock):
    assert re.findall(r"://|^\s*-(?!-hash=).*|^#.*", lock, flags=re.MULTILINE) == []


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


def test_types_are_checked_strictly_in_all_code():
    mypy = PYPROJECT["tool"]["mypy"]
    assert (sorted(mypy["files"]), mypy["strict"]) == (sorted(CODE), True)
    assert [entry["module"] for entry in mypy["overrides"] if entry.get("ignore_errors")] == []


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

    def test_every_section_it_links_exists(self, document):
        links = re.findall(r"\]\(([\w./-]*)#([^)\s]+)\)", document.read_text(encoding="utf-8"))
        assert [
            (file, name) for file, name in links if name not in anchors(document.parent / file if file else document)
        ] == []

    def test_every_path_of_the_project_it_names_exists(self, document):
        roots = "|".join(ROOT_FOLDERS)
        named = set(re.findall(rf"(?<![\w./>])(?:{roots})/[\w./*<>-]*", document.read_text("utf-8")))
        # As in `expectations/<table>.py`: any file of that kind.
        patterns = {re.sub(r"<\w+>", "*", name).rstrip("./") for name in named}
        assert [pattern for pattern in sorted(patterns) if not list(REPO.glob(pattern))] == []

    def test_every_module_and_name_in_it_that_it_names_exists(self, document):
        roots = "|".join((*CODE, "tests"))
        named = set(re.findall(rf"(?:python -m |`)({roots})((?:\.\w+)+)(?=[`\s])", document.read_text("utf-8")))
        assert [name for name in sorted(named) if not is_in_the_code(*name)] == []

    def test_every_setting_it_names_exists(self, document):
        named = set(re.findall(r"\b(MEANDER_\w+)(\*?)", document.read_text("utf-8")))
        exact = {name for name, more in named if not more}
        families = {name for name, more in named if more}
        assert exact - SETTINGS - OTHER_NAMES.keys() - {"MEANDER_LANDNIG", "MEANDER_API_SERVER_PORT"} == set()
        assert {family for family in families if not any(name.startswith(family) for name in SETTINGS)} == set()


# Names that are no settings: in examples, and in tests that see them refused.
MADE_UP = {
    *("MEANDER_LANDNIG", "MEANDER_LAEK", "MEANDER_SERVING_ULR", "MEANDER_HISTORY", "MEANDER_XYZZY"),
    *("MEANDER_SERVICE_HOST", "MEANDER_SERVICE_PORT", "MEANDER_PORT", "MEANDER_PORT_53_UDP_ADDR"),
    *("MEANDER_SERVING_SERVICE_HOST", "MEANDER_SERVING_PORT", "MEANDER_API_SERVER_POTR"),
    *(f"MEANDER_API_SERVER_{part}" for part in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_API_SERVER")),
    *(f"MEANDER_API_SERVER_{part}" for part in ("", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_")),
}


def names_of_variables(*places: str) -> set[str]:
    """Return what is called as our variables are in all files below some places but documents and locks."""
    files = [file for place in places for file in [REPO / place, *(REPO / place).rglob("*")] if file.is_file()]
    texts = [file.read_text("utf-8", "replace") for file in files if file.suffix not in (".md", ".lock", ".pyc")]
    return {name for text in texts for name in re.findall(r"(?<!\w)MEANDER_[A-Z0-9]\w*", text)} - MADE_UP


def test_every_variable_of_ours_that_is_read_is_a_setting_or_listed_as_another_name():
    """One that is listed nowhere would be an error of whoever sets it."""
    assert names_of_variables(*CODE, "docker", "federated", "Makefile", "pyproject.toml") - SETTINGS == {
        *OTHER_NAMES,
        # Beginnings of names.
        "MEANDER_KEEP_",
    }
    # Tests look for beginnings, too.
    tests = names_of_variables("tests") - OTHER_NAMES.keys()
    assert {name for name in tests if not any(known.startswith(name) for known in SETTINGS)} == set()


@pytest.mark.parametrize(("document", "heading"), [(README, "Where things are"), (DESIGN, "Parts")])
def test_a_map_of_the_folders_names_every_room(document, heading):
    section = document.split(f"\n## {heading}\n")[1]
    described = dict(re.findall(r"^(\w+)/(.*?)(?=^\w|^```)", section, re.MULTILINE | re.DOTALL))
    assert [str(room) for room in ROOMS if f"{room.name}/" not in described[str(room.parent)]] == []


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
        "diginetica",
        "dunnhumby",
        "export_zh",
        "ga4",
        "jd",
        "matomo",
        "otto",
        "rees46",
        "retailrocket",
        "segment",
        "snowplow",
        "taobao",
        "tmall",
        "yoochoose",
    ]


@pytest.mark.parametrize("name", shipped_sources())
def test_a_source_that_ships_is_valid_and_carries_its_files_name(name):
    assert load_source(name).name == name

"""Who may import whom: dependencies point one way, and each heavy library is known to one place only.

The rules are read from the syntax tree, so an import inside a function or under TYPE_CHECKING counts too.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "lake": set(),
    "expectations": {"lake"},
    "jobs": {"lake"},
    "model": {"lake"},
    "dags": {"lake", "expectations", "jobs", "model"},
}
ENGINES = {"great_expectations", "keras", "petastorm", "pyspark", "tensorflow"}


def modules() -> Iterator[tuple[str, Path]]:
    for package in MAY_IMPORT:
        for path in sorted((REPO / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPO).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imported_by(name: str, path: Path) -> set[str]:
    """Return the top-level packages that a module imports, its own left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found - {name.split(".")[0]}


IMPORTS = {name: imported_by(name, path) for name, path in modules()}


def importers_of(*libraries: str) -> set[str]:
    return {name for name, imported in IMPORTS.items() if imported & set(libraries)}


def attribute_users(*names: str) -> set[str]:
    """Return the modules in which something has an attribute of one of these names."""
    return {
        name
        for name, path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path))
        if isinstance(node, ast.Attribute) and node.attr in names
    }


def test_every_package_is_looked_at():
    assert {name.split(".")[0] for name in IMPORTS} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", IMPORTS)
def test_packages_depend_in_one_direction_only(name):
    allowed = MAY_IMPORT[name.split(".")[0]]
    ours = IMPORTS[name] & set(MAY_IMPORT)
    assert ours <= allowed, f"{name} may not import {', '.join(sorted(ours - allowed))}"


def test_nothing_that_ships_imports_the_tests():
    assert importers_of("tests") == set()


def test_airflow_is_known_to_dags_alone():
    outside = {name for name in importers_of("airflow") if not name.startswith("dags")}
    assert outside == set(), "Airflow is wiring; whatever it calls must also run without it"


def our_imports(tree: ast.AST) -> set[str]:
    """Return the modules of ours, with their whole names, that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "dags":
            names |= {f"dags.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.split(".")[0] in MAY_IMPORT}


def defines_a_dag(tree: ast.AST) -> bool:
    return any(
        isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "dag"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
    )


TOP_OF_DAGS = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in (REPO / "dags").glob("*.py")}
DAG_FILES = {name: tree for name, tree in TOP_OF_DAGS.items() if defines_a_dag(tree)}


def test_at_the_top_of_dags_lie_the_files_of_dags_and_the_plugin():
    assert TOP_OF_DAGS.keys() - DAG_FILES.keys() == {"__init__", "plugin"}


@pytest.mark.parametrize("name", DAG_FILES)
def test_a_dag_file_imports_from_ours_only_what_dags_share_and_the_facts_of_the_tables(name):
    others = {module for module in our_imports(DAG_FILES[name]) if not f"{module}.".startswith("dags.shared.")}
    assert others <= {"lake.tables"}, "a DAG says when and in which order; what its tasks do lies in dags/shared"


def test_what_dags_share_knows_no_page_no_command_and_no_local_airflow():
    modules = [ast.parse(path.read_text(encoding="utf-8")) for path in (REPO / "dags" / "shared").glob("*.py")]
    rooms = {module.split(".")[1] for tree in modules for module in our_imports(tree) if module.startswith("dags.")}
    assert rooms == {"PREFIX", "shared"}


def test_dags_hold_no_dataframe_and_no_tensor():
    inside = {name for name in importers_of(*ENGINES) if name.startswith("dags")}
    assert inside == set(), "the DAG processor and the API server must not load an engine"


def test_great_expectations_is_known_to_expectations_alone():
    outside = {name for name in importers_of("great_expectations") if not name.startswith("expectations")}
    assert outside == set()


def test_stores_are_known_to_the_lake_alone():
    outside = {name for name in importers_of("arro3", "deltalake", "psycopg") if not name.startswith("lake")}
    assert outside == set(), "the lake is the one door: it opens Delta tables and the serving store"


def test_petastorm_is_known_to_its_adapter_alone():
    assert importers_of("petastorm") == {"model.data.petastorm_reader"}, "others would meet names that pyarrow has not"


def test_paths_below_the_lake_are_spelled_in_one_place():
    folder = re.compile(r"(^|/)_(order|runs|models|mlflow|monitor|alerts|doctor|forgotten|receipts)(/|$)")
    spelled = {
        name
        for name, path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path))
        # Sentences, as in docstrings, may name them.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
        if folder.search(node.value)
    }
    assert spelled == {"lake.places"}


# These may read settings: the address of the lake is the one fact that a process has around it, as it has a working
# directory. `launch` starts the processes of a training, before any of them has read its own. `arguments` is the
# beginning of every `main` of jobs.
READ_SETTINGS = {"lake.places", "lake.settings", "jobs.arguments", "model.training.launch"}
# These go on where a variable is no setting; all others end with an error that names it.
GO_ON = {
    *("lake.places", "lake.settings", "dags.cli.doctor", "dags.cli.main"),
    *("dags.shared.alerts", "dags.shared.deadlines", "dags.shared.evaluation", "dags.shared.runs"),
}


def readers_of_settings(tree: ast.Module) -> set[str]:
    """Return the names of the functions and classes of a module that read settings; empty for its own statements."""
    return {
        getattr(part, "name", "")
        for part in tree.body
        for node in ast.walk(part)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("settings", "known_settings", "Settings")
    }


def test_settings_are_read_at_the_edge_and_passed():
    inside = {
        (name, reader)
        for name, path in modules()
        if not name.startswith("dags.") and not name.endswith(".__main__")
        for reader in readers_of_settings(ast.parse(path.read_text(encoding="utf-8")))
        if reader != "main" and name not in READ_SETTINGS
    }
    assert inside == set(), "read them in `main` or in dags, and pass the values"


@pytest.mark.parametrize(
    ("code", "readers"),
    [
        pytest.param("def main():\n    run(settings())", {"main"}, id="at the edge"),
        pytest.param("def run():\n    def inner():\n        settings().lake", {"run"}, id="in a function of another"),
        pytest.param("class Run:\n    def main(self):\n        settings()", {"Run"}, id="a method is no edge"),
        pytest.param("LAKE = settings().lake", {""}, id="when the module is imported"),
        pytest.param("def run():\n    lake.settings.settings()", {"run"}, id="by its module"),
        pytest.param("def run():\n    Settings()", {"run"}, id="by the class"),
        pytest.param("def run():\n    known_settings()", {"run"}, id="whatever else is set"),
        pytest.param("def run(config: Settings):\n    config.settings", set(), id="passed"),
    ],
)
def test_what_reads_settings_is_noticed(code, readers):
    assert readers_of_settings(ast.parse(code)) == readers


def test_only_what_has_to_go_on_overlooks_variables_that_are_no_settings():
    overlook = {name for name, path in modules() if "known_settings" in path.read_text(encoding="utf-8")}
    assert {name for name in overlook if not name.startswith("dags.page.")} == GO_ON


def test_a_spark_session_is_made_in_one_place():
    assert attribute_users("builder") <= {"lake.session"}


def test_no_job_leaves_the_dataframe_api():
    assert attribute_users("rdd", "sparkContext") <= {"lake.session"}, "Spark Connect has neither"


@pytest.mark.parametrize("module", ["lake.publish", "lake.landing"])
def test_the_scheduler_publishes_and_looks_for_landings_without_spark(module):
    check = f"import sys, {module}; sys.exit('lake.session' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

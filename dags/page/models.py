"""The evaluations of models week by week, and the champion."""

from dataclasses import dataclass
from datetime import date

from dags.shared.evaluation import COLUMNS, Evaluation
from lake import storage
from lake.places import PLAN, models_folder, plan_file
from lake.settings import known_settings

# Enough weeks for a year; older evaluations stay in MLflow.
MAX_EVALUATIONS = 60
# The metric by which the gate decides.
METRIC = COLUMNS[0]


@dataclass(frozen=True)
class EvaluatedModel:
    """One evaluation: the day as of which the model was trained, and each method's value of METRIC."""

    day: date
    evaluation: Evaluation
    values: dict[str, float]

    @property
    def promoted(self) -> bool:
        return bool((self.evaluation.decision or {}).get("promote"))


@dataclass(frozen=True)
class Champion:
    """The version that predicts, and the dates from which on it was champion."""

    version: int
    since: tuple[str, ...]
    run_id: str


def load_evaluations() -> list[EvaluatedModel]:
    """Return the newest evaluations, the oldest first."""
    fs, root = storage.filesystem(models_folder())
    plans = fs.glob(f"{root}/*/{PLAN}") if fs.exists(root) else []
    evaluations = []
    for path in plans:
        evaluation = Evaluation(path.rsplit("/", 2)[1])
        plan = storage.read_json(plan_file(evaluation.slug))
        if plan and evaluation.decision is not None:
            values = {method: row[0] for method, row in evaluation.rows() if row[0] is not None}
            evaluations.append(EvaluatedModel(date.fromisoformat(plan["as_of"]), evaluation, values))
    return sorted(evaluations, key=lambda model: model.day)[-MAX_EVALUATIONS:]


def champion() -> Champion | None:
    """Return the champion of the registry; None when there is none yet."""
    # MLflow takes seconds to import, once in the life of a web server.
    from model.versions.registry import SINCE, Registry

    registry = Registry.of(known_settings())
    version = registry.champion()
    if version is None:
        return None
    tags = registry.describe(version)
    since = sorted(key.removeprefix(SINCE) for key in tags if key.startswith(SINCE))
    return Champion(version, tuple(since), tags.get("run_id", ""))

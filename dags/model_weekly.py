"""
## The model of one week: train, evaluate, and promote only a better one

As of the last day D of the week. For *weeks* weekly dates T whose horizon has ended by then, it stages, audits and
publishes the missing `examples`. `prepare` splits the dates by time and builds the vocabulary. The encoder is
*pretrained* and *fine-tuned*; beside that the same network is trained *from scratch*, for comparison. `evaluate` uses
later dates than any used in training. `promote` makes the candidate champion if it passes the gate and, where the
setting `MEANDER_PROMOTION_APPROVAL` is on, a person approves it in `approve` (tab *Required Actions*).

**If `promote` is skipped**, the gate or the person rejected the candidate, or there was no answer for six days: the
champion stays, and predictions use it. This is no failure. The tab *Model* of the run and the log have the reasons, the
button *Evaluation report* all numbers.

**If it fails**
- `wait_for_events` (after two days): `behavior_daily` has not published day D. Repair that run, then clear the task.
- `examples`: as in `behavior_daily`.
- `prepare`: usually too few dates: the message has their number and the required one. After a change of the horizon,
  *were made with MEANDER_HORIZON_DAYS*: the message has the commands that make the examples again.
- `pretrain`, `finetune`, `scratch`: the log has the reason. Cleared, or retried by Airflow, a training resumes from its
  last checkpoint. *was killed by SIGKILL*: usually out of memory; use a smaller preset or fewer workers.
- `evaluate`: clear it. A registered version keeps its number.
- `promote`: clear it. It follows the decision that `evaluate` has written.

Each message ends in its section of `docs/runbook.md`; an error that has one is not retried.

**Clear or backfill** any week, one at a time. The champion of a past day is the one promoted for the newest D up to
that day, so backfilling weeks in order gives `predict_daily` the history of champions.
"""

from datetime import date, timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, TaskGroup, dag

from dags.shared.assets import ASSETS
from dags.shared.links import EvaluationReport, MlflowRuns
from dags.shared.model import Approve, Promote, horizon_days
from dags.shared.run_ids import RUN_OF_DAG
from dags.shared.runs import ModelJob, SparkJob
from dags.shared.waits import WaitForPublished
from dags.shared.wiring import DAG_DEFAULTS, stage_audit_publish

WEEK = 7
# D, the last day of the interval: a Saturday, since the interval ends as Sunday begins.
D = "{{ as_of(data_interval_end) }}"
DATES = "example_dates(as_of(data_interval_end), params.weeks, horizon_days())"
EPOCHS = "{{ '--epochs=%d' % params.epochs if params.epochs else '' }}"


def as_of(end: pendulum.DateTime) -> date:
    """Return the last complete day of an interval.

    >>> str(as_of(pendulum.datetime(2017, 12, 24)))
    '2017-12-23'
    """
    return end.date() - timedelta(days=1)


def example_dates(day: date, weeks: int, horizon: int) -> tuple[date, date]:
    """Return the first and the last of `weeks` weekly dates T, counted back from `day`, whose horizon ends by then.

    >>> [str(t) for t in example_dates(date(2017, 12, 23), weeks=3, horizon=28)]
    ['2017-11-11', '2017-11-25']
    >>> [str(t) for t in example_dates(date(2017, 12, 23), weeks=1, horizon=10)]
    ['2017-12-09', '2017-12-09']
    """
    last = day - timedelta(days=WEEK * -(-horizon // WEEK))
    return last - timedelta(days=WEEK * (weeks - 1)), last


def train(task_id: str, module: str, arguments: list[str]) -> ModelJob:
    """Return a task that uses all cores or the GPUs of a machine: the pool `train` has one slot.

    Under Celery the queue `train` is for workers on such machines; other executors have no queues.
    """
    return ModelJob(task_id=task_id, module=module, arguments=arguments, run=RUN_OF_DAG, queue="train")


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * 0", timezone="UTC"),
    start_date=pendulum.datetime(2000, 1, 2, tz="UTC"),
    # A week starts from the champion, which the run of the week before may still replace.
    max_active_runs=1,
    tags=["model", "tier_2"],
    doc_md=__doc__,
    user_defined_macros={"as_of": as_of, "example_dates": example_dates, "horizon_days": horizon_days},
    params={
        "preset": Param(
            "base",
            type="string",
            enum=["tiny", "base", "large"],
            title="Size of the network",
            description="tiny: minutes on two cores. large: over 100 M parameters, for GPUs",
        ),
        "weeks": Param(
            40,
            type="integer",
            minimum=1,
            maximum=520,
            title="Weeks of examples",
            description="Weekly dates to train and evaluate on; only missing examples are computed",
        ),
        "adapter": Param(
            "none",
            type="string",
            enum=["none", "lora"],
            title="Adapter",
            description="lora: fine-tune low-rank adapters instead of the whole encoder; cheaper",
        ),
        "dp_noise": Param(
            0.0,
            type="number",
            minimum=0,
            title="Noise for privacy",
            description="Differential privacy of what fine-tuning learns from each user; 0: none. See --dp-noise",
        ),
        "epochs": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Epochs",
            description="Of each training; empty: the number of the preset",
        ),
        "workers": Param(
            1,
            type="integer",
            minimum=1,
            maximum=64,
            title="Workers",
            description="Replicas that share each batch; batches and result do not depend on their number",
        ),
        "launcher": Param(
            "process",
            type="string",
            enum=["process", "spark"],
            title="Launcher",
            description="process: all in one process. spark: each in a task of a barrier stage of Spark",
        ),
        "cold": Param(
            False,
            type="boolean",
            title="Cold start",
            description="Start without the champion's vocabulary and weights",
        ),
    },
    **DAG_DEFAULTS,
)
def model_weekly() -> None:
    ready = WaitForPublished(task_id="wait_for_events", table="events", day=D, timeout=timedelta(days=2))
    with TaskGroup("examples") as examples:
        span = ["--from", f"{{{{ {DATES}[0] }}}}", "--to", f"{{{{ {DATES}[1] }}}}", "--every", str(WEEK)]
        stage_audit_publish("examples", span, RUN_OF_DAG, flags=["--missing"])
    prepare = SparkJob(
        task_id="prepare",
        module="model.prepare",
        arguments=["--day", D, "--alike-from", f"{{{{ {DATES}[0] }}}}", "{{ '--cold' if params.cold else '' }}"],
        run=RUN_OF_DAG,
        inlets=[ASSETS["examples"]],
    )

    workers = ["--workers", "{{ params.workers }}", "--launcher", "{{ params.launcher }}"]
    pretrain = train("pretrain", "model.pretrain", ["--preset", "{{ params.preset }}", EPOCHS, *workers])
    noise = "{{ '--dp-noise=%s' % params.dp_noise if params.dp_noise else '' }}"
    how = ["--adapter", "{{ params.adapter }}", noise]
    finetune = train("finetune", "model.finetune", ["--start", "pretrained", *how, EPOCHS, *workers])
    scratch = train("scratch", "model.finetune", ["--start", "scratch", EPOCHS, *workers])
    evaluate = train("evaluate", "model.evaluate", [])
    evaluate.operator_extra_links = (EvaluationReport(), MlflowRuns())
    approve = Approve(task_id="approve", run=RUN_OF_DAG)
    promote = Promote(task_id="promote", run=RUN_OF_DAG)

    ready >> examples >> prepare >> pretrain >> finetune >> evaluate >> approve >> promote
    # It begins with the vocabulary and the shape of what was pretrained, though not with its weights.
    pretrain >> scratch >> evaluate


model_weekly()

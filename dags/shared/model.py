"""The operators around a model: ask a person before it becomes champion, promote it, watch what it predicts."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from dags.shared.alerts import Alert, day_of, send_alert
from dags.shared.assets import CHAMPION
from dags.shared.endings import checked_settings
from dags.shared.links import EvaluationReport, MlflowRuns, below_base
from dags.shared.runs import ModelJob


def horizon_days() -> int:
    """Return H, as the worker is set: the DAG processor may have other settings."""
    return checked_settings().horizon_days


class Approve(ApprovalOperator):
    """Ask a person before a candidate becomes champion, when the setting `promotion_approval` is on.

    Nobody is asked about a candidate that the gate has refused. An answer that does not come in time is a *Reject*:
    `promote` is skipped then, and the champion stays.
    """

    template_fields = (*ApprovalOperator.template_fields, "run")
    # The run of the next week has to wait for this one.
    PATIENCE = timedelta(days=6)

    def __init__(self, *, run: str, **kwargs: Any):
        super().__init__(
            subject="Shall the candidate become champion?",
            defaults=self.REJECT,
            response_timeout=self.PATIENCE,
            **kwargs,
        )
        self.run = run
        self.operator_extra_links = (EvaluationReport(), MlflowRuns())

    def execute(self, context: Any) -> Any:
        from dags.shared.evaluation import Evaluation

        decision = Evaluation.of(self.run).decision
        if not checked_settings().promotion_approval:
            self.log.info("nobody is asked: MEANDER_PROMOTION_APPROVAL is off")
        elif decision is None or not decision["promote"]:
            self.log.info("nobody is asked: the gate has not let the candidate through")
        else:
            self.body = approval_text(decision["reasons"], below_base(Evaluation.of(self.run).report_link))
            return super().execute(context)
        return None


def approval_text(reasons: list[str], report: str) -> str:
    """Return what a person reads before answering, in Markdown.

    >>> print(approval_text(["better than the champion"], "/meander/report"))
    The gate has let it through:
    <BLANKLINE>
    - better than the champion
    <BLANKLINE>
    [Evaluation report](/meander/report)
    """
    items = "\n".join(f"- {reason}" for reason in reasons)
    return f"The gate has let it through:\n\n{items}\n\n[Evaluation report]({report})"


class Promote(ModelJob):
    """Let the gate decide; a champion that stays makes the task *skipped*, so that everybody sees it, and says why.

    Nothing has failed then, and nobody has to act: predictions go on with the champion that there is.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(module="model.promote", arguments=[], pool="default_pool", outlets=[CHAMPION], **kwargs)
        self.operator_extra_links = (EvaluationReport(), MlflowRuns())

    def execute(self, context: Any) -> dict[str, Any]:
        decision = super().execute(context)
        if decision is None:
            raise AirflowException(f"{self.module} did not print its decision")
        why, champion = "; ".join(decision["reasons"]), decision["champion"]
        if not decision["promoted"]:
            # A skipped task has no return value of its own.
            context["ti"].xcom_push("return_value", decision)
            stays = f"champion stays version {champion}" if champion else "there is no champion"
            refusal = f"the gate has refused version {decision['version']}: {why}"
            readers = "Predictions go on with the champion." if champion else "Nothing predicts."
            about = (self.dag_id, context["ti"].run_id, day_of(context), "")
            send_alert(Alert("info", *about, refusal, readers, section="promote-was-skipped"), context)
            raise AirflowSkipException(f"the gate has refused version {decision['version']}, {stays}: {why}")
        self.log.info("version %s passed the gate, champion is version %s: %s", decision["version"], champion, why)
        context["outlet_events"][CHAMPION].extra = {"run_id": self.run, **decision}
        return decision


class Monitor(ModelJob):
    """Run model.monitor, and tell each finding that somebody has to look at; a finding fails nothing."""

    def __init__(self, **kwargs: Any):
        super().__init__(module="model.monitor", pool="default_pool", **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        report = super().execute(context)
        if report is None:
            raise AirflowException(f"{self.module} did not print what it found")
        to_look_at: dict[tuple[str, str, int | None], list[dict[str, Any]]] = {}
        for finding in report["findings"]:
            if not finding["ok"]:
                subject = (finding["kind"], finding["day"], finding["model_version"])
                to_look_at.setdefault(subject, []).append(finding)
        for (kind, day, version), findings in to_look_at.items():
            # What drifts together has one cause. An outcome is looked at again each day, and does not change any more.
            about = (self.dag_id, context["ti"].run_id, day, findings[0]["table"])
            what = "; ".join(finding["why"] for finding in findings)
            readers = "Readers see what was published; nothing was taken back."
            final = kind == "outcome"
            cause = "|".join((self.dag_id, kind, str(version), day if final else ""))
            send_alert(Alert("warning", *about, what, readers, findings[0]["section"]), context, cause, once=final)
        return report

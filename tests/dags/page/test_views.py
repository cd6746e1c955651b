"""The page as a browser gets it, without Airflow around it: what it says, where it links, and that it runs nothing."""

import re
import shutil
from datetime import date

import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from dags.page import views
from dags.page.airflow_state import AirflowState
from dags.page.app import app
from dags.shared.evaluation import Evaluation
from lake import storage
from lake.backfill.planner import plan_backfill
from lake.places import monitor_file
from tests.dags.page_lake import event, prediction, put, put_day, put_events, put_predictions, run_of
from tests.foreign import foreign
from tests.lake.stagings import audit
from tests.tables import groups_of

MAR_1, MAR_2, MAR_3 = (date(2025, 3, n) for n in (1, 2, 3))
SCRIPT = "<script>alert(1)</script>"
PATHS = (
    "/page/",
    "/page/days/2025-03-01",
    "/page/run?dag=behavior_daily&run=scheduled__2025-03-02T00%3A00%3A00%2B00%3A00",
    "/page/rows",
    "/page/interest",
    "/page/model",
    "/page/plan",
    "/page/runbook",
    "/page/static/page.js",
)


@pytest.fixture
def reader(lake, monkeypatch):
    """Somebody who is logged in and may see the runs; both are tried for real in tests/e2e."""
    # Groups of one user are shown, which fewer rows are enough for.
    monkeypatch.setenv("MEANDER_MIN_GROUP", "1")
    for day in (MAR_1, MAR_2):
        (lake / "landing" / f"dt={day}").mkdir(parents=True)
    ann = SimpleAuthManagerUser(username="ann", role="viewer")
    for dependency, stand_in in (
        (get_user, lambda: ann),
        (views.may_see, lambda: None),
        (views.airflow_state, lambda: AirflowState(scheduled=False)),
    ):
        monkeypatch.setitem(app.dependency_overrides, dependency, stand_in)
    return TestClient(app)


@pytest.mark.parametrize("path", PATHS)
def test_who_is_not_logged_in_sees_nothing(lake, path):
    visitor = TestClient(app, raise_server_exceptions=False)
    assert visitor.get(path).status_code == 401


def test_a_lake_without_a_table_says_so(reader):
    answer = reader.get("/page/")
    assert answer.status_code == 200
    assert "All is well" in answer.text
    assert "Readers see nothing yet" in answer.text
    for part in ("rows", "interest", "model"):
        assert 'class="quiet"' in reader.get(f"/page/{part}").text


def test_the_page_begins_with_what_is_wrong(reader):
    put_day(MAR_1)
    put_events(MAR_2, audited="failed")
    text = reader.get("/page/").text
    assert re.search(r"<body>\s*<header class=\"bad\">\s*<h1>1 problem</h1>", text)
    assert text.index("failed the audit") < text.index("Readers see</b>") < text.index("Safe to do</b>")
    run = "../../dags/behavior_daily/runs/scheduled__2025-03-03T00%3A00%3A00%2B00%3A00"
    assert f'href="{run}" target="_top"' in text
    assert 'href="../../meander/page/runbook#audit-failed"' in text
    assert "2025-03-02 events: failed" in text
    assert "<h3>Recent days that need attention</h3>" in text
    assert "<h2>Reprocessing plan</h2>" in text


def test_every_address_is_relative_so_that_any_base_path_will_do(reader):
    put_day(MAR_1)
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    for path in PATHS[:-1]:
        text = reader.get(path).text
        assert [link for link in re.findall(r'(?:href|src|data-part)="([^"]*)"', text) if link.startswith("/")] == []


def test_a_day_tells_what_became_of_its_rows(reader):
    put_day(MAR_1, events=3, rejected={"missing_user": 2})
    text = re.sub(r"\s+", " ", reader.get("/page/days/2025-03-01").text)
    assert "Landed: 6 rows = 3 events + 1 duplicates + 0 ignored + 2 quarantined (missing_user 2)." in text
    assert "No run has touched this day" in reader.get("/page/days/2020-01-01").text


def test_the_tab_of_a_run_tells_what_it_staged_and_what_became_of_it(reader):
    put_day(MAR_1, events=3)
    text = re.sub(r"\s+", " ", reader.get(PATHS[2]).text)
    assert '<td>events</td> <td>2025-03-01</td> <td class="n">3</td> <td>passed</td>' in text
    assert '<span class="word published">published</span>' in text
    other = reader.get("/page/run", params={"dag": SCRIPT, "run": "manual__none"}).text
    assert "This run of &lt;script&gt;alert(1)&lt;/script&gt; has staged nothing" in other


def test_for_the_tab_of_a_run_of_long_ago_alone_all_days_are_looked_at(reader, monkeypatch):
    put_day(MAR_1)
    long_ago, asked, load = date(2023, 3, 1), [], views.LakeSnapshot.load

    def loaded(cache, now, expected=None, first=None):
        asked.append(first)
        return load(cache, now, expected, first)

    monkeypatch.setattr(views.LakeSnapshot, "load", loaded)
    reader.get("/page/run", params={"dag": "behavior_daily", "run": "manual__none"})
    assert asked == [None]
    put_day(long_ago)
    run = {"dag": "behavior_daily", "run": run_of(long_ago)}
    assert "<td>2023-03-01</td>" in reader.get("/page/run", params=run).text
    assert asked == [None, None, date.min]


def test_rows_are_drawn_by_outcome_and_reason(reader):
    put_day(MAR_1, events=3, rejected={"missing_user": 2})
    text = reader.get("/page/rows").text
    for legend in ("events <b>3</b>", "duplicates <b>1</b>", "quarantined <b>2</b>", "missing_user <b>2</b>"):
        assert legend in text


def test_interest_is_drawn_for_the_newest_day_or_the_one_chosen(reader):
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    put_predictions(MAR_2, [prediction("ann", "belts", {"hats": 1.0})])
    assert "belts → hats: 1" in reader.get("/page/interest").text
    chosen = reader.get("/page/interest?day=2025-03-01").text
    assert "shoes → hats: 1" in chosen
    assert "The actual flow is available once" in chosen
    assert "no predictions and no examples of 2025-03-03" in reader.get("/page/interest?day=2025-03-03").text


def test_by_default_what_fewer_than_five_users_do_is_not_shown(reader, monkeypatch):
    monkeypatch.delenv("MEANDER_MIN_GROUP")
    users = [prediction(f"u{n}", "shoes", {"hats": 1.0}) for n in range(5)]
    put_predictions(MAR_1, [*users, prediction("ann", "belts", {"ties": 1.0})])
    shown = reader.get("/page/interest").text
    assert "shoes → hats: 5" in shown
    assert "belts" not in shown


def test_another_lake_at_the_same_place_is_shown_at_once(lake, reader):
    for category in ("hats", "belts"):
        put_predictions(MAR_1, [prediction("ann", "shoes", {category: 1.0})])
        assert f"shoes → {category}: 1" in reader.get("/page/interest").text
        shutil.rmtree(lake / "lake")


def test_the_planner_says_what_a_bad_day_makes_necessary_and_how(reader):
    for day in (MAR_1, MAR_2):
        put_day(day)
    text = re.sub(r"\s+", " ", reader.get("/page/plan?reason=bad-day&from=2025-03-01&to=2025-03-01").text)
    assert f"<b>1. behavior_daily</b>, 2025-03-01: {', '.join(groups_of('behavior_daily'))}" in text
    assert "airflow backfill create --dag-id behavior_daily --from-date 2025-03-01 --to-date 2025-03-01" in text
    assert "Run the steps in order, each after the previous one has finished. Estimated total: " in text
    assert "for staging and audit, from past runs." in text
    assert "Untouched partitions: events 1" in text
    # The form keeps what was asked for.
    assert "<option selected>bad-day</option>" in text
    assert '<input type="date" name="from" value="2025-03-01">' in text


def test_a_plan_is_made_anew_when_something_was_published_or_a_rule_has_changed(reader, monkeypatch):
    made = []
    monkeypatch.setattr(views, "plan_backfill", lambda *asked: made.append(asked) or plan_backfill(*asked))
    put_day(MAR_1)
    answers = [reader.get("/page/plan").text for _ in range(2)]
    assert (answers[0], len(made)) == (answers[1], 1)
    reader.get("/page/plan?reason=bad-day&from=2025-03-01&to=2025-03-01")
    assert len(made) == 2
    # Of any table, not of events alone.
    put("sessions", MAR_1, [], basis=9)
    reader.get("/page/plan")
    monkeypatch.setenv("MEANDER_LATE_DAYS", "9")
    reader.get("/page/plan")
    assert [asked[1:3] for asked in made] == [
        ("late-data", None), ("bad-day", MAR_1), ("late-data", None), ("late-data", None),
    ]  # fmt: skip


def test_the_planner_offers_to_put_late_events_into_interests(reader):
    for day in (MAR_1, MAR_2):
        put_day(day)
    # An event of March 1st arrives on the 6th, later than daily runs look back; no interests include it.
    arrived = date(2025, 3, 6)
    put("events", arrived, [event(MAR_1, 8, arrived)])
    text = re.sub(r"\s+", " ", reader.get("/page/plan?reason=late-data").text)
    assert re.search(
        r"Optional \([^)]+\): by design, interests exclude events that arrived after their date. "
        r"To include the late events anyway:",
        text,
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "Nothing to reprocess for late-data"),
        ("?reason=code", "needs both from and to"),
        ("?reason=%3Cb%3E", "reason is one of late-data, code, bad-day; received &#39;&lt;b&gt;&#39;"),
        ("?reason=bad-day&from=soon&to=2025-03-01", "Invalid isoformat string"),
    ],
)
def test_the_planner_says_what_it_cannot_do_in_words(reader, asked, said):
    put_day(MAR_1)
    answer = reader.get(f"/page/plan{asked}")
    assert answer.status_code == 200
    assert said in answer.text


@pytest.fixture
def judged(reader):
    """Two evaluations; nobody has been promoted, so the registry need not hold anything."""
    for day, value in ((MAR_1, 0.4), (MAR_2, 0.5)):
        evaluation = Evaluation.of(f"model_weekly--{day}")
        metrics = [
            {"method": method, "task": "next_category", "metric": "recall@5", "slice": "all", "value": score}
            for method, score in (("model", value), (SCRIPT, 0.3))
        ]
        storage.write_json(storage.join(evaluation.folder, "metrics.json"), {"metrics": metrics})
        storage.write_json(storage.join(evaluation.folder, "decision.json"), {"promote": False, "reasons": [SCRIPT]})
        storage.write_json(storage.join(storage.join(evaluation.folder, ".."), "plan.json"), {"as_of": str(day)})


def test_a_model_stands_beside_its_baselines_over_time(reader, judged, monkeypatch):
    monkeypatch.setattr("dags.page.models.champion", lambda: None)
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    text = reader.get("/page/model").text
    assert "There is no champion yet" in text
    assert "model, 2025-03-01: 0.40" in text
    assert "model, 2025-03-02: 0.50" in text
    assert "unseen events, 2025-03-01: 0.07" in text
    assert text.count("<td>rejected</td>") == 2
    assert "<script" not in text


def test_the_probability_of_what_nobody_does_is_not_drawn(reader, judged, monkeypatch):
    monkeypatch.setattr("dags.page.models.champion", lambda: None)
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    drawn = {f"mean probability of {score}" for score in ("migration", "purchase", "churn")}
    shown = {name for name in drawn if name in reader.get("/page/model").text}
    assert shown == drawn
    newest = Evaluation.of(f"model_weekly--{MAR_2}")
    content = {**newest.measured, "not_judged": ["purchased"]}
    storage.write_json(storage.join(newest.folder, "metrics.json"), content)
    text = reader.get("/page/model").text
    assert {name for name in drawn if name in text} == drawn - {"mean probability of purchase"}


def watched_on(day, **changed):
    finding = {
        "kind": "outcome",
        "name": "recall@5",
        "table": "predictions",
        "day": str(MAR_1),
        "model_version": 1,
        "value": 0.4,
        "reference": 0.6,
        "ok": False,
        "why": f"worse than {SCRIPT}",
        "section": "outcomes-worse",
    }
    content = {"day": str(day), "run_id": "r", "findings": [{**finding, **changed}]}
    storage.write_json(monitor_file(day), content)


def test_what_was_observed_of_each_answer_of_the_model_has_a_chart(reader, judged, monkeypatch):
    monkeypatch.setattr("dags.page.models.champion", lambda: None)
    watched_on(MAR_1, name="roc_auc migrated", value=0.61)
    watched_on(MAR_2, name="roc_auc churned", value=0.72)
    text = reader.get("/page/model").text
    assert "Observed roc_auc migrated by prediction day" in text
    assert "Observed roc_auc churned by prediction day" in text
    assert "roc_auc purchased" not in text, "nothing was observed of it"


def test_what_the_monitor_has_found_is_a_thing_to_look_at_until_it_is_well(reader):
    put_day(MAR_1)
    watched_on(MAR_1)
    text = reader.get("/page/").text
    assert "outcome: worse than &lt;script&gt;" in text
    assert 'href="../../meander/page/runbook#outcomes-worse"' in text
    watched_on(MAR_2, ok=True)
    assert "All is well" in reader.get("/page/").text


def test_a_warning_is_in_the_headline_and_its_days_below_it(reader):
    put_day(MAR_1, audited="warned")
    text = reader.get("/page/").text
    assert "All is well" not in text
    assert "<h1>No problem, but a warning</h1>" in text
    assert "The audit warned of events of 2025-03-01; readers see the rows." in text


def test_a_finding_is_history_once_a_week_of_days_has_been_looked_at_without_it(reader):
    put_day(MAR_1)
    watched_on(MAR_1)
    # Other things are well; nobody has looked at the outcome again.
    watched_on(date(2025, 3, 7), kind="volume", name="events", ok=True)
    assert "1 problem" in reader.get("/page/").text
    watched_on(date(2025, 3, 8), kind="volume", name="events", ok=True)
    assert "All is well" in reader.get("/page/").text


def test_the_calendar_turns_back_by_its_weeks_and_forward_no_further_than_the_last_day(reader):
    put_day(MAR_1)
    put_day(MAR_2)
    text = reader.get("/page/").text
    # March 2nd is a Sunday. The first of the 53 weeks begins on Monday, February 26th 2024; earlier is the day before.
    assert '<a href="?until=2024-02-25">earlier</a>' in text
    assert "later</a>" not in text
    assert '<a href="?until=2025-03-02">later</a>' in reader.get("/page/?until=2024-12-31").text


def test_what_came_true_stands_beside_what_was_promised(reader, judged, monkeypatch):
    monkeypatch.setattr("dags.page.models.champion", lambda: None)
    watched_on(MAR_1)
    text = reader.get("/page/model").text
    assert "Observed recall@5 by prediction day, compared with the offline evaluation" in text
    assert "version 1, 2025-03-01: 0.40" in text
    assert "version 1, as evaluated, 2025-03-01: 0.60" in text


def test_what_comes_from_a_log_or_a_run_is_shown_as_text(reader):
    put_day(MAR_1, rejected={SCRIPT: 1})
    put_predictions(MAR_1, [prediction("ann", SCRIPT, {SCRIPT: 1.0})])
    staged = put("sessions", MAR_2, [], run=SCRIPT, audited="")
    audit(staged, "failed")
    for path in PATHS[:-1]:
        text = reader.get(path).text
        assert "<script>" not in text.replace("<script src=", ""), path
    assert "&lt;script&gt;alert(1)" in reader.get("/page/days/2025-03-02").text
    assert "&lt;script&gt;alert(1)" in reader.get("/page/interest").text
    policy = reader.get("/page/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_page_is_whole_without_the_network(reader):
    put_day(MAR_1, rejected={"missing_user": 2})
    put_predictions(MAR_1, [prediction("ann", "shoes", {"hats": 1.0})])
    for path in (*PATHS, "/page/static/page.css"):
        answer = reader.get(path)
        assert (answer.status_code, foreign(answer.text)) == (200, []), path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path


def test_an_address_that_is_no_page_is_not_linked():
    paths = views.Paths(2)
    assert paths.docs("javascript:alert(1)") == ""
    assert paths.docs("/home/lake/_docs/run/events.html") == ""
    assert paths.docs("https://docs.example.com/run/events.html") == "https://docs.example.com/run/events.html"
    assert paths.docs("/meander/data-docs/run/events.html") == "../../meander/data-docs/run/events.html"


def test_the_runbook_can_be_linked_by_section(reader):
    text = reader.get("/page/runbook").text
    for section in ("audit-failed", "late-data", "a-daily-run-waits-and-waits", "landing-missing"):
        assert f'<h2 id="{section}">' in text
    assert "&lt;lake&gt;" in text


def test_a_failure_of_ours_names_its_section_of_the_runbook(reader, monkeypatch):
    monkeypatch.setenv("MEANDER_EXPECTED_HOURS", "<b>soon</b>")
    answer = reader.get("/page/")
    assert answer.status_code == 503
    assert "docs/runbook.md#settings-invalid" in answer.text
    assert "&lt;b&gt;soon" in answer.text


def test_no_page_fails_for_a_variable_that_is_no_setting(reader, monkeypatch):
    """It is there to say what is wrong, and a task says this."""
    put_day(MAR_1)
    before = {path: reader.get(path).status_code for path in PATHS}
    monkeypatch.setenv("MEANDER_LANDNIG", "/x")
    assert {path: reader.get(path).status_code for path in PATHS} == before
    assert set(before.values()) == {200}


@pytest.mark.parametrize("name", ["secret", "..%2fviews.py", "views.py"])
def test_only_our_style_and_script_are_handed_out(reader, name):
    assert reader.get(f"/page/static/{name}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/page/?until=x", "/page/?until=0001-01-01", "/page/days/x", "/page/interest?day=2025-13-01'--"]
)
def test_what_is_no_date_is_refused(reader, path):
    assert reader.get(path).status_code == 422

"""What is said of a day: outcomes by model version, drift, volume; and silence while there is nothing to compare."""

import hashlib
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pytest
from scipy.stats import chi2

import model.monitor as monitor
from lake import storage
from lake.errors import ModelMissing, SettingsInvalid
from lake.labels import NAMES, PROBABILITIES
from lake.places import model_folder, monitor_file
from lake.publish import publish
from lake.settings import Settings, settings
from model.monitor import RESAMPLES, Finding, drift, main, psi, volume
from model.versions.registry import Registry
from tests.lake.landed import load
from tests.lake.stagings import stage_files
from tests.model.resampled import middle, resampled

T = date(2025, 3, 2)
H = 7
OVER = T + timedelta(days=H)
EVALUATION_OF = monitor.evaluation_of


@pytest.fixture(autouse=True)
def _horizon(lake, monkeypatch):
    monkeypatch.setattr(monitor, "evaluation_of", lambda *_: {})
    monkeypatch.setattr(Registry, "describe", lambda *_: {"horizon_days": str(H), "min_events": "5"})
    # What is set today says nothing of models that were trained before.
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "1")


def watch(day):
    return monitor.watch(day, settings())


def put(table, day, rows, basis=1, **counts):
    run_id = f"{table} {day} {basis}"
    counts = {"as_of": [str(day)], **counts}
    stage_files(table, run_id, [{**row, "dt": day} for row in rows], [day], basis, counts=counts)
    publish(table, run_id)


def predicted(user, categories, churn=0.5, version=1, chances=None):
    """Predict a user's next categories, best first, and the probability of churn."""
    scores = dict.fromkeys(PROBABILITIES, 0.5) | {"churn_probability": churn, "category_probabilities": chances}
    return {"user_id": user, "model_version": version, "category_ids": categories, "dt": T, **scores}


def came(user, category, churned=False, migrated=None):
    labels = dict.fromkeys(NAMES) | {"churned": churned, "migrated": migrated}
    return {"user_id": user, "next_category": category, "dt": T, **labels}


SIX = ["a", "b", "c", "d", "e", "f"]


def outcome(**about) -> dict[tuple[int | None, str], Finding]:
    return {(f.model_version, f.name): f for f in watch(about.get("day", OVER)) if f.kind == "outcome"}


def test_outcomes_are_those_of_users_with_both_once_the_horizon_is_over():
    put("predictions", T, [predicted("ann", SIX), predicted("bob", SIX), predicted("cem", SIX), predicted("dan", SIX)])
    # a is first, e fifth, f sixth, z not there; who has no label does not count, and eve was not predicted.
    put(
        "examples",
        T,
        [came("ann", "a"), came("bob", "e"), came("cem", "f", migrated=True), came("dan", None), came("eve", "a")],
    )
    assert outcome(day=OVER - timedelta(days=1)) == {}, "nobody knows yet"
    found = outcome()
    assert found[1, "recall@5"].value == pytest.approx(2 / 3)
    assert found[1, "recall@5 migrated"].value == 0
    assert found[1, "recall@5"].day == T


def test_a_lake_in_a_bucket_with_nothing_to_judge_needs_no_registry():
    in_a_bucket = Settings(lake="s3://bucket/lake")
    with pytest.raises(SettingsInvalid, match="MEANDER_MLFLOW_URI"):
        Registry.of(in_a_bucket)
    assert monitor.watch(OVER, in_a_bucket) == []


def test_the_newest_day_is_judged_whose_horizon_is_over_and_whose_examples_are_there():
    before = T - timedelta(days=1)
    for day, category in ((before, "z"), (T, "a"), (T + timedelta(days=1), "z")):
        put("predictions", day, [predicted("ann", SIX)])
        if day != T:
            put("examples", day, [came("ann", category)])
    assert [(f.day, f.value) for f in watch(OVER) if f.name == "recall@5"] == [(before, 0.0)]
    put("examples", T, [came("ann", "a")])
    assert [(f.day, f.value) for f in watch(OVER) if f.name == "recall@5"] == [(T, 1.0)]


def remade(name, value):
    """Return the commands that make the examples at T again, and the interests if they depend on the setting too."""
    run = f"--run-id {name}-{str(value).replace('=', '-').replace(',', '-')}-{T}"
    tables = ["interests", "examples"] if name in ("lookback_days", "behavior_weights") else ["examples"]
    return "; ".join(
        f"python -m jobs.{table} --day {T} {run} && python -m expectations.audit --table {table} {run} && "
        f"python -m lake.publish --table {table} {run}"
        for table in tables
    )


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("horizon_days", 3),
        ("horizon_days", 28),
        ("min_events", 4),
        ("lookback_days", 14),
        ("behavior_weights", "view=1,search=1,favorite=2,cart=3,purchase=9"),
    ],
)
def test_outcomes_are_judged_by_examples_of_the_settings_of_the_model_and_others_are_told(
    monkeypatch, caplog, name, other
):
    weights = "view=1,search=1,favorite=2,cart=3,purchase=4"
    learnt = {"horizon_days": 7, "min_events": 5, "lookback_days": 30, "behavior_weights": weights}
    tags = {key: str(value) for key, value in learnt.items()}
    monkeypatch.setattr(Registry, "describe", lambda _, version: tags if version == 3 else {})
    before = T - timedelta(days=1)
    made = learnt | {name: other}
    of_labels = {key: value for key, value in made.items() if key != "lookback_days"}
    of_states = {key: made[key] for key in ("lookback_days", "behavior_weights")}
    put("interests", T, [{"user_id": "ann"}], **of_states)
    for day, noted in ((before, learnt), (T, of_labels)):
        put("predictions", day, [predicted("ann", SIX, version=3)])
        put("examples", day, [came("ann", "a")], **noted)
    assert [f.day for f in watch(OVER) if f.name == "recall@5"] == [before]
    variable = f"MEANDER_{name.upper()}"
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.monitor"]
    assert warning == (
        f"the outcomes at {T} are not judged: its examples were made with {variable}={other}, and version 3, which "
        f"predicted it, learnt with {variable}={learnt[name]}; to judge it, make them again: "
        f"export {variable}={learnt[name]}; {remade(name, learnt[name])}"
    )
    put("interests", T, [{"user_id": "ann"}], basis=2, lookback_days=30, behavior_weights=weights)
    put("examples", T, [came("ann", "a")], basis=2, **learnt)
    assert [f.day for f in watch(OVER) if f.name == "recall@5"] == [T]


def test_predictions_of_a_version_that_has_left_the_registry_are_passed_over(monkeypatch):
    def describe(_: Registry, version: int) -> dict[str, str]:
        if version == 4:
            raise ModelMissing("there is no version 4")
        return {"horizon_days": "7"}

    monkeypatch.setattr(Registry, "describe", describe)
    before = T - timedelta(days=1)
    for day, version in ((before, 3), (T, 4)):
        put("predictions", day, [predicted("ann", SIX, version=version)])
        put("examples", day, [came("ann", "a")])
    assert [(f.day, f.model_version) for f in watch(OVER) if f.name == "recall@5"] == [(before, 3)]


def test_of_many_users_the_same_are_judged_every_day(monkeypatch):
    monkeypatch.setattr(monitor, "SAMPLE", 50)
    users = [f"u{n}" for n in range(200)]
    # A quarter of all hashes lies below this. The model is right for those users, and for no others.
    sample = [user for user in users if hashlib.md5(user.encode()).hexdigest()[:4] <= "3fff"]
    put("predictions", T, [predicted(user, SIX) for user in users])
    put("examples", T, [came(user, "a" if user in sample else "z") for user in users])
    assert 25 < len(sample) < 75
    assert outcome()[1, "recall@5"].value == 1.0


def test_outcomes_are_told_by_model_version():
    ranked = [predicted("ann", SIX, 0.9), predicted("bob", SIX, 0.1)]
    turned = [predicted("cem", SIX, 0.1, version=2), predicted("dan", SIX, 0.9, version=2)]
    put("predictions", T, [*ranked, *turned])
    put("examples", T, [came("ann", "a", True), came("bob", "a"), came("cem", "a", True), came("dan", "a")])
    found = outcome()
    assert (found[1, "roc_auc churned"].value, found[2, "roc_auc churned"].value) == (1.0, 0.0)
    brier = found[1, "brier churned"]
    assert (brier.value, brier.low, brier.high) == (pytest.approx(0.01), None, None)


@pytest.mark.parametrize(("above", "ok"), [(0.0, True), (1e-6, False)])
def test_worse_than_promised_is_what_no_chance_explains(monkeypatch, above, ok):
    users = [f"u{n:02}" for n in range(100)]
    right = np.array([n < 80 for n in range(100)])
    low, high = middle(resampled(users, lambda drawn: right[drawn].mean(), RESAMPLES, 0))
    assert low < 0.8 < high < 0.97
    put("predictions", T, [predicted(user, SIX) for user in users])
    put("examples", T, [came(user, "a" if hit else "z") for user, hit in zip(users, right, strict=True)])
    # What was promised is worse only if the best of what was found lies below the least of it.
    monkeypatch.setattr(monitor, "evaluation_of", lambda *_: {"recall@5": (0.97, high + above)})
    found = outcome()[1, "recall@5"]
    assert (found.value, found.low, found.high) == pytest.approx((0.8, low, high))
    assert (found.ok, found.reference) == (ok, 0.97)
    assert ("worse by more than chance explains" in found.why) is not ok


def test_the_promise_is_what_the_evaluation_of_that_version_had_found(monkeypatch):
    # Not by `undo`: that would take the lake of the tests away too.
    monkeypatch.setattr(monitor, "evaluation_of", EVALUATION_OF)
    run = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"
    monkeypatch.setattr(Registry, "describe", lambda _, version: {"run_id": run} if version == 3 else {})
    entry = {"method": "model", "task": "next_category", "metric": "recall@5", "value": 0.6, "low": 0.5, "high": 0.7}
    kept = [
        {**entry, "slice": "all"},
        {**entry, "slice": "migrated", "value": 0.4},
        {**entry, "slice": "all", "method": "most popular", "value": 0.1},
        {**entry, "slice": "all", "task": "churned", "metric": "roc_auc", "value": 0.8},
        # Of few users, whose numbers are told to nobody.
        {**entry, "slice": "all", "task": "migrated", "metric": "roc_auc", "value": np.nan, "low": np.nan},
    ]
    storage.write_json(storage.join(model_folder(run), "evaluation", "metrics.json"), {"metrics": kept})
    registry = Registry.of(settings())
    assert monitor.evaluation_of(3, registry) == {
        "recall@5": (0.6, 0.5),
        "recall@5 migrated": (0.4, 0.5),
        "roc_auc churned": (0.8, 0.5),
    }
    assert monitor.evaluation_of(4, registry) == {}, "a version that was never evaluated promises nothing"


PROMISE = {"horizon_days": str(H), "min_events": "5", "set_reach": "0.5", "set_coverage": "0.9"}


def test_sets_hold_what_came_or_end_before_it_or_may_hold_it(monkeypatch):
    monkeypatch.setattr(Registry, "describe", lambda *_: PROMISE)
    chances = {"ann": [0.5, 0.3], "bob": [0.6, 0.3], "cem": [0.3, 0.2], "dan": [0.4, 0.2], "eve": [0.9, 0.1]}
    put("predictions", T, [predicted(user, ["a", "b"], chances=said) for user, said in chances.items()])
    # Before b stand 0.5 and 0.6. The set of cem goes on behind b, that of dan ends with it. Eve has no next category.
    nexts = {"ann": "b", "bob": "b", "cem": "z", "dan": "z", "eve": None}
    put("examples", T, [came(user, category) for user, category in nexts.items()])
    found = outcome()[1, "set coverage"]
    assert (found.value, found.reference) == (0.5, 0.9)
    assert (found.table, found.day, found.ok) == ("predictions", T, True), "four users prove nothing"
    assert found.low < 0.5 < found.high
    assert found.why.startswith(f"sets of categories of version 1 on {T} hold the next one for 50.0% of users at most")


@pytest.mark.parametrize(("missed", "ok"), [(8, True), (30, False)])
def test_fewer_than_promised_are_told_where_no_chance_explains_it(monkeypatch, missed, ok):
    monkeypatch.setattr(Registry, "describe", lambda *_: PROMISE)
    users = [f"u{n:03}" for n in range(100)]
    put("predictions", T, [predicted(user, ["a", "b"], chances=[0.6, 0.4]) for user in users])
    put("examples", T, [came(user, "b" if n < missed else "a") for n, user in enumerate(users)])
    found = outcome()[1, "set coverage"]
    assert (found.value, found.ok) == (pytest.approx(1 - missed / 100), ok)
    assert found.why.endswith("90% is promised" if ok else "90% is promised: too few by more than chance explains")


def test_a_version_without_sets_promises_none():
    put("predictions", T, [predicted("ann", ["a"], chances=[1.0])])
    put("examples", T, [came("ann", "a")])
    assert (1, "set coverage") not in outcome()


def test_the_same_scores_do_not_drift_and_others_do():
    yesterday, today = OVER - timedelta(days=1), OVER
    for day, churn in ((yesterday, 0.1), (today, 0.9)):
        put("predictions", day, [predicted(f"u{n}", SIX, churn) for n in range(50)])
    found = {f.name: f for f in watch(today) if f.kind == "score drift"}
    assert found["migration_probability"].value == 0
    assert found["migration_probability"].ok
    assert not found["churn_probability"].ok
    assert f"on {today} against {yesterday}" in found["churn_probability"].why
    assert found["churn_probability"].model_version == 1


def test_scores_that_are_all_small_are_told_apart():
    yesterday, today = OVER - timedelta(days=1), OVER
    for day, scale in ((yesterday, 1), (today, 4)):
        put("predictions", day, [predicted(f"u{n}", SIX, scale * n / 20_000) for n in range(400)])
    (churn,) = (f for f in watch(today) if f.name == "churn_probability")
    assert not churn.ok, "from at most 2 % to at most 8 %, all below a tenth"


def test_what_chance_explains_is_no_drift():
    # Two samples of one distribution over 2,000 groups, a few users in each: the index is large, and means nothing.
    rng = np.random.default_rng(1)
    days = {day: Counter(rng.integers(2000, size=4000).tolist()) for day in (T, OVER)}
    same = drift("input drift", "dominant_category", "interests", OVER, T, days, None)
    assert same.value > 0.25
    assert same.ok
    days[OVER] = Counter(rng.integers(1000, size=4000).tolist())
    assert not drift("input drift", "dominant_category", "interests", OVER, T, days, None).ok


def test_a_shift_is_above_what_is_called_major_and_above_what_chance_gives_in_one_of_a_hundred():
    def found(now: dict[str, int], before: dict[str, int]) -> Finding:
        return drift("input drift", "frequency", "interests", OVER, T, {OVER: now, T: before}, None)

    # Three groups leave two degrees of freedom.
    few = found({"a": 4, "b": 6}, {"a": 8, "b": 2, "c": 10})
    assert few.reference == pytest.approx(chi2.ppf(0.99, 2) * (1 / 10 + 1 / 20))
    many = found({"a": 4_000, "b": 6_000}, {"a": 5_000, "b": 5_000})
    assert (many.reference, many.ok) == (0.25, True)
    assert not found({"a": 2_000, "b": 8_000}, {"a": 5_000, "b": 5_000}).ok


def test_scores_are_compared_with_the_last_of_fourteen_days():
    put("predictions", OVER, [predicted("ann", SIX)])
    put("predictions", OVER - timedelta(days=15), [predicted("ann", SIX)])
    assert [f for f in watch(OVER) if f.kind == "score drift"] == []
    for days in (14, 13):
        before = OVER - timedelta(days=days)
        put("predictions", before, [predicted("ann", SIX)])
        assert {f"on {OVER} against {before}" in f.why for f in watch(OVER) if f.kind == "score drift"} == {True}


def test_inputs_are_compared_with_the_same_weekday():
    def user(n, frequency):
        return {"user_id": f"u{n}", "frequency": frequency, "recency_seconds": 60, "history_events": 9, "purchases": 0}

    put("interests", OVER - timedelta(days=1), [user(n, 300) for n in range(50)])  # another weekday
    put("interests", OVER, [user(n, 300) for n in range(50)])
    assert [f for f in watch(OVER) if f.kind == "input drift"] == []
    # Of two weeks before, the same: it counts only as long as there is nothing of one week before.
    put("interests", OVER - timedelta(days=14), [user(n, 300) for n in range(50)])
    assert {f.ok for f in watch(OVER) if f.kind == "input drift"} == {True}
    put("interests", OVER - timedelta(days=7), [user(n, 3) for n in range(50)])
    found = {f.name: f.ok for f in watch(OVER) if f.kind == "input drift"}
    assert found == {
        "frequency": False,
        "recency_seconds": True,
        "history_events": True,
        "purchases": True,
        "dominant_category": True,
    }


@pytest.mark.parametrize(("rows", "ok"), [(10, True), (5, True), (20, True), (4, False), (21, False), (0, False)])
def test_volume_is_compared_with_the_median_of_the_same_weekday(rows, ok):
    # The median of 10, 10 and 40 is 10; the day before, of another weekday, has nothing to say.
    for weeks, n in ((1, 10), (2, 40), (3, 10)):
        day = OVER - timedelta(days=7 * weeks)
        put("events", day, [{"event_id": f"{day} {i}", "user_id": "u", "landed": day} for i in range(n)])
    put("events", OVER - timedelta(days=1), [])
    assert volume(OVER) == [], "a day that was not loaded has no volume"
    put("events", OVER, [{"event_id": f"{i}", "user_id": "u", "landed": OVER} for i in range(rows)])
    (found,) = volume(OVER)
    assert (found.value, found.reference, found.ok) == (rows, 10, ok)


def test_a_recent_landing_day_that_is_another_than_what_was_read_is_found(land):
    days = [OVER - timedelta(days=n) for n in (0, 13, 14)]
    for day in days:
        land(day, ["{}"])
    load("r", *sorted(days))
    assert [finding for finding in watch(OVER) if finding.kind == "landing"] == []
    for day in (*days, OVER - timedelta(days=1)):  # that one is not loaded
        land(day, ["{}", "{}"], "late.jsonl")
    found = {finding.day: finding for finding in watch(OVER) if finding.kind == "landing"}
    assert found.keys() == set(days[:2])
    told = found[OVER]
    assert (told.value, told.reference, told.ok, told.table) == (2, 1, False, "events")
    assert told.why == f"landing day {OVER}: files in the landing: 2, read: 1; came later: 1 (late.jsonl)"
    # Of the day before nothing of the day after is said.
    assert [f.day for f in watch(OVER - timedelta(days=1)) if f.kind == "landing"] == sorted(days[1:])


def test_an_empty_lake_has_nothing_to_say_and_says_so(capsys, caplog):
    caplog.set_level("INFO")
    assert main(["--day", str(OVER), "--run-id", "r"]) == []
    assert "nothing to compare yet" in caplog.text
    assert storage.read_json(monitor_file(OVER)) == {"day": str(OVER), "run_id": "r", "findings": []}


def test_what_is_found_is_kept_with_its_section_of_the_runbook():
    put("predictions", T, [predicted("ann", SIX)])
    put("examples", T, [came("ann", "a")])
    main(["--day", str(OVER), "--run-id", "r"])
    (kept,) = storage.read_json(monitor_file(OVER))["findings"]
    assert (kept["name"], kept["value"], kept["section"]) == ("recall@5", 1.0, "outcomes-worse")


def test_the_index_of_two_distributions_does_not_depend_on_their_sizes():
    assert psi({1: 10, 2: 30}, {1: 1000, 2: 3000}) == pytest.approx(0, abs=1e-3)
    # Half a row more on either side of nothing in common.
    assert psi({1: 10}, {2: 10}) == pytest.approx(2 * (10.5 - 0.5) / 11 * np.log(10.5 / 0.5))

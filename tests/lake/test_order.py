"""What is newer is said by the lake, whatever clocks say and however tries of a task overlap.

A clock here is what a host believes when a try of a task begins: ahead, behind, or standing still.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dags.page.cache import Cache
from dags.page.state import LakeSnapshot
from lake import publish as publishing
from lake.errors import CommitContended, NotStaged, PublishRefused, TableUnreadable
from lake.order import take_number
from lake.places import order_path, table_path
from lake.publish import publish
from lake.runs import summarize
from lake.staging import Run, Staged, Verdict, read_staged, verdict_on, write_verdict
from lake.table import Table
from tests.lake.stagings import JAN_1, JAN_2, audit, read_files, rejected, stage_files, staged_before

NOON = datetime(2025, 1, 2, 12, tzinfo=UTC)
KEYS = {"quarantine": "raw", "sessions": "session_id"}


def seen(table: str = "quarantine") -> list:
    """Return (dt, name) of each row that readers see."""
    return read_files(Table(table), KEYS[table]) if Table.find(table) else []


def begin(run_id: str, clock: datetime = NOON, days=(JAN_1,)) -> Run:
    """Let a try of a task begin on a host whose clock shows this."""
    return Run(run_id, min(days), max(days), began=clock.timestamp())


def deliver(run_id: str, *raws: str, clock: datetime = NOON) -> dict:
    """Stage what has landed, audit and publish it, on a host whose clock shows this."""
    run = begin(run_id, clock)
    stage_files("quarantine", run_id, rejected(JAN_1, *raws), [JAN_1], None, run=run)
    return publish("quarantine", run_id)


# ---- numbers ----


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_a_number_is_given_once_and_grows(lake, request, store):
    if store == "s3":
        request.getfixturevalue("lake_on_s3")
    first = take_number()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: [take_number() for _ in range(3)], range(6)))
    assert sorted(n for some in found for n in some) == list(range(first + 1, first + 19))
    assert all(some == sorted(some) for some in found), "who asks later gets a higher one"
    assert take_number() == first + 19


def test_who_never_gets_a_number_stages_nothing_and_says_so(lake, monkeypatch):
    from lake import commits, order

    take_number()
    opened = order.DeltaTable

    def open_before_another(path: str):
        table = opened(path)
        monkeypatch.setattr(order, "DeltaTable", opened)
        take_number()
        monkeypatch.setattr(order, "DeltaTable", open_before_another)
        return table

    monkeypatch.setattr(order, "DeltaTable", open_before_another)
    monkeypatch.setattr(commits, "ATTEMPTS", 3)
    with pytest.raises(CommitContended, match="took their numbers, came first 3 times in a row; nothing was staged"):
        take_number()


def test_numbers_go_on_when_delta_has_cleaned_their_log(lake):
    last = [take_number() for _ in range(3)][-1]
    numbers = DeltaTable(order_path())
    numbers.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    numbers.create_checkpoint()
    numbers.cleanup_metadata()
    assert not (Path(order_path()) / "_delta_log" / f"{1:020}.json").exists()
    assert take_number() == last + 1


def test_numbers_that_were_lost_begin_anew_above_all_that_was_published_or_staged(lake):
    deliver("published", "a")
    left = stage_files("quarantine", "r", rejected(JAN_1, "given up"), [JAN_1], None)
    shutil.rmtree(order_path())
    assert take_number() > left.order
    assert deliver("r", "b")["refused"] == []
    assert seen() == [(JAN_1, "b")]


def test_numbers_go_on_where_the_log_of_a_table_is_gone_too(lake):
    deliver("1", "a")
    Path(table_path("quarantine"), "_delta_log").rename(lake / "moved")
    shutil.rmtree(order_path())
    assert take_number() < take_number()
    with pytest.raises(TableUnreadable):
        Table.find("quarantine")


def test_a_staging_whose_number_a_restored_order_has_given_before_is_refused_until_the_order_is_removed(lake, tmp_path):
    take_number()
    shutil.copytree(order_path(), tmp_path / "backup")
    deliver("r", "old")
    shutil.rmtree(order_path())
    shutil.copytree(tmp_path / "backup", order_path())
    with pytest.raises(PublishRefused, match="is given up"):
        deliver("r", "new")
    assert seen() == [(JAN_1, "old")]
    shutil.rmtree(order_path())
    deliver("r", "new")
    assert seen() == [(JAN_1, "new")]


# ---- clocks ----


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(NOON - timedelta(seconds=90), id="a host whose clock is behind"),
        pytest.param(NOON, id="a clock that stands still"),
        pytest.param(NOON - timedelta(days=20_000), id="a clock that was never set"),
        pytest.param(NOON + timedelta(seconds=90), id="a clock that goes on"),
    ],
)
def test_a_task_that_is_cleared_publishes_what_was_repaired(lake, clock):
    deliver("r", "old 1", "old 2")
    done = deliver("r", "new 1", "new 2", "new 3", clock=clock)
    assert (done["already"], done["refused"], done["rows"]) == (False, [], 3)
    assert seen() == [(JAN_1, f"new {n}") for n in (1, 2, 3)]
    (run,) = summarize()
    assert (run.counts["quarantined"], run.verdict) == (3, "passed")


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=27_000)])
def test_a_clock_that_was_ahead_once_pins_no_day(lake, ahead):
    deliver("a host that is ahead", "old", clock=NOON + ahead)
    done = deliver("any other host", "new")
    assert (done["refused"], done["rows"]) == ([], 1)
    assert seen() == [(JAN_1, "new")]


def test_of_two_runs_of_a_day_the_one_that_began_later_stays_whichever_publishes_last(lake):
    # The first began an hour later by its clock, and looked at the landing before the second file was there.
    early, late = begin("early", NOON + timedelta(hours=1)), begin("late", NOON)
    stage_files("quarantine", "late", rejected(JAN_1, "file 1", "file 2"), [JAN_1], None, run=late)
    stage_files("quarantine", "early", rejected(JAN_1, "file 1"), [JAN_1], None, run=early)
    publish("quarantine", "late")
    done = publish("quarantine", "early")
    assert (done["refused"], done["rows"], done["already"]) == (["2025-01-01"], 0, False)
    assert seen() == [(JAN_1, "file 1"), (JAN_1, "file 2")]
    assert {run.run_id: (run.verdict, run.counts["quarantined"], run.refused) for run in summarize()} == {
        "early": ("refused", 0, {"quarantine": ["2025-01-01"]}),
        "late": ("passed", 2, {}),
    }


def test_of_two_runs_that_read_the_same_version_the_one_that_began_later_stays(lake):
    # With other settings, say. The first waits between its audit and its publish.
    early = begin("early", NOON + timedelta(hours=1))
    stage_files("sessions", "early", [{"session_id": "gap 30", "dt": JAN_1}], [JAN_1], 5, run=early)
    stage_files("sessions", "late", [{"session_id": "gap 60", "dt": JAN_1}], [JAN_1], 5, run=begin("late"))
    publish("sessions", "late")
    assert publish("sessions", "early")["refused"] == ["2025-01-01"]
    assert seen("sessions") == [(JAN_1, "gap 60")]


# ---- two tries of a task ----


def test_a_try_that_ends_after_a_newer_one_is_not_looked_at(lake):
    # Airflow has lost sight of the first try, which still lives, and has started a second one.
    first = begin("r", NOON + timedelta(hours=1))
    second = begin("r", NOON)
    staged = stage_files("quarantine", "r", rejected(JAN_1, "whole"), [JAN_1], None, run=second, audited="")
    with pytest.raises(PublishRefused, match=r"staged meanwhile by a newer try, number \d+; this one, .* is given up"):
        stage_files("quarantine", "r", rejected(JAN_1, "broken"), [JAN_1], None, run=first, audited="")
    assert read_staged("quarantine", "r") == staged
    audit(read_staged("quarantine", "r"))
    publish("quarantine", "r")
    assert seen() == [(JAN_1, "whole")]


def test_what_is_staged_between_an_audit_and_its_publish_has_to_be_audited_itself(lake):
    stage_files("quarantine", "r", rejected(JAN_1, "audited"), [JAN_1], None)
    stage_files("quarantine", "r", rejected(JAN_1, "not audited"), [JAN_1], None, audited="")
    with pytest.raises(PublishRefused, match="has not been audited since it was staged"):
        publish("quarantine", "r")
    assert seen() == []


def test_the_audit_of_an_older_staging_that_ends_last_says_nothing_of_the_newer_one(lake):
    older = stage_files("quarantine", "r", rejected(JAN_1, "older"), [JAN_1], None, audited="")
    newer = stage_files("quarantine", "r", rejected(JAN_1, "newer"), [JAN_1], None, audited="failed")
    audit(older, "passed")
    with pytest.raises(PublishRefused, match="failed its audit"):
        publish("quarantine", "r")
    assert [verdict_on(staged).verdict for staged in (older, newer)] == ["passed", "failed"]
    # The other way round, the newer one is published though the older has failed since.
    audit(newer, "passed")
    audit(older, "failed")
    publish("quarantine", "r")
    assert seen() == [(JAN_1, "newer")]


@pytest.mark.parametrize("when", ["require_passed", "commit"])
def test_a_publish_during_which_a_newer_try_is_published_says_that_readers_see_that_one(lake, monkeypatch, when):
    stage_files("quarantine", "r", rejected(JAN_1, "older"), [JAN_1], None)
    step = getattr(publishing, when)

    def after_a_newer_try(*args):
        monkeypatch.setattr(publishing, when, step)
        deliver("r", "newer")
        return step(*args)

    monkeypatch.setattr(publishing, when, after_a_newer_try)
    done = publish("quarantine", "r")
    assert (done["already"], done["refused"], done["rows"]) == (True, ["2025-01-01"], 0)
    assert seen() == [(JAN_1, "newer")]
    assert len(Table("quarantine").commits()) == 1


# ---- publishing again ----


def test_a_publish_that_is_repeated_says_what_readers_see_of_it_now(lake):
    stage_files("quarantine", "first", rejected(JAN_1, "a") + rejected(JAN_2, "a"), [JAN_1, JAN_2], None)
    publish("quarantine", "first")
    deliver("second", "b")
    again = publish("quarantine", "first")
    assert (again["already"], again["refused"], again["rows"], again["partitions"]) == (True, ["2025-01-01"], 1, 1)
    assert seen() == [(JAN_1, "b"), (JAN_2, "a")]


def test_the_days_of_a_run_are_told_as_its_commit_has_them(lake):
    # Two rows are published. Staged again there are five hundred, which nobody sees.
    deliver("r", "a", "b")
    many = [f"new {n}" for n in range(500)]
    stage_files("quarantine", "r", rejected(JAN_1, *many), [JAN_1], None)
    (run,) = summarize()
    assert (run.counts["quarantined"], run.verdict) == (2, "not published")
    publish("quarantine", "r")
    (run,) = summarize()
    assert (run.counts["quarantined"], run.verdict) == (500, "passed")


# ---- a lake that has no numbers yet ----


def test_what_was_staged_before_is_published_once(lake):
    staged = staged_before("r", "a", NOON)
    assert read_staged("quarantine", "r") == staged
    assert publish("quarantine", "r")["already"] is False
    assert publish("quarantine", "r")["already"] is True
    assert seen() == [(JAN_1, "a")]
    assert [run.verdict for run in summarize()] == ["passed"]


def test_what_was_staged_before_can_be_audited_now(lake):
    staged = staged_before("r", "a", NOON, audited="")
    audit(staged)
    publish("quarantine", "r")
    assert seen() == [(JAN_1, "a")]
    # The verdict that lies where all verdicts of the run lay says nothing of what is staged now.
    staged_before("s", "b", NOON)
    stage_files("quarantine", "s", rejected(JAN_1, "c"), [JAN_1], None, audited="")
    with pytest.raises(PublishRefused, match="has not been audited since it was staged"):
        publish("quarantine", "s")


@pytest.mark.parametrize("clock", [NOON, NOON + timedelta(days=27_000), NOON + timedelta(days=365 * 7000)])
def test_what_has_a_number_is_newer_than_all_that_was_published_before(lake, clock):
    staged_before("before", "old", clock)
    publish("quarantine", "before")
    assert deliver("before", "the same run again")["already"] is False
    assert seen() == [(JAN_1, "the same run again")]
    assert deliver("another", "another run")["refused"] == []
    # One that was staged before, and is published only now.
    staged_before("left over", "old", clock + timedelta(days=1))
    assert publish("quarantine", "left over")["refused"] == ["2025-01-01"]
    assert seen() == [(JAN_1, "another run")]


def test_what_a_clock_alone_calls_older_is_not_called_published(lake):
    staged_before("r", "published", NOON)
    publish("quarantine", "r")
    # The task was cleared on a host that was behind, which said that all was well.
    staged_before("r", "repaired", NOON - timedelta(seconds=90))
    with pytest.raises(PublishRefused, match=r"staged by a clock that was behind .* run the stage step again"):
        publish("quarantine", "r")
    assert [run.verdict for run in summarize()] == ["not published"]
    deliver("r", "repaired", clock=NOON - timedelta(seconds=90))
    assert seen() == [(JAN_1, "repaired")]


# ---- whatever happens ----

OWNS = {"one day": [JAN_1], "two days": [JAN_1, JAN_2], "the other": [JAN_2]}
RUNS = st.sampled_from(sorted(OWNS))
CLOCKS = st.sampled_from([-20_000 * 86_400, -90, 0, 90, 7_200, 27_000 * 86_400])
STEPS = st.one_of(
    st.tuples(st.just("begin"), RUNS, CLOCKS),
    st.tuples(st.just("stage"), st.integers(0, 3), st.sampled_from(["whole", "killed"])),
    st.tuples(st.just("audit begins"), RUNS, st.none()),
    st.tuples(st.just("audit ends"), st.integers(0, 3), st.sampled_from(["passed", "passed", "failed"])),
    st.tuples(st.just("publish"), RUNS, st.sampled_from(["whole", "killed before", "killed after", *OWNS])),
    st.tuples(st.just("events"), st.none(), st.none()),
    # A whole run, so that not all that is drawn stops halfway.
    st.tuples(st.just("run"), RUNS, CLOCKS),
)


class Killed(BaseException):
    """The process ended here."""


class Try:
    """One try of a stage task: when it began, counted, and what it has read."""

    def __init__(self, number: int, run: Run, version: int):
        self.number, self.run, self.version, self.verdict = number, run, version, ""

    def rows(self, table: str) -> list[dict]:
        name, reason = f"try {self.number}", {"reason": "missing_user"} if table == "quarantine" else {}
        return [{KEYS[table]: name, "dt": day, **reason} for day in OWNS[self.run.run_id]]


class World:
    """A lake, and beside it what readers should see of it, by the count of tries alone."""

    def __init__(self, table: str, monkeypatch: pytest.MonkeyPatch):
        self.table, self.patch, self.version = table, monkeypatch, 1
        self.tries: list[Try] = []
        self.at_work: list[Try] = []
        self.staged: dict[str, Try] = {}
        self.audits: list[tuple[Try, Staged]] = []
        self.manifests: list[Try] = []
        self.published: dict[str, Try] = {}
        self.ever_published: list[Try] = []
        self.visible: dict = {}

    # ---- what can happen ----

    def do(self, what: str, whom, how) -> None:
        getattr(self, what.replace(" ", "_"))(whom, how)
        assert seen(self.table) == sorted((day, f"try {one.number}") for day, one in self.visible.items())

    def begin(self, run_id: str, clock: int) -> Try:
        run = begin(run_id, NOON + timedelta(seconds=clock), OWNS[run_id])
        one = Try(len(self.tries), run, self.version)
        self.tries.append(one)
        self.at_work.append(one)
        return one

    def stage(self, which: int, how: str) -> None:
        if not self.at_work:
            return
        one = self.at_work.pop(which % len(self.at_work))
        if how == "killed":
            return
        run_id, overtaken = one.run.run_id, one.run.run_id in self.staged
        overtaken = overtaken and self.staged[run_id].number > one.number
        basis = None if self.table == "quarantine" else one.version
        try:
            staged = stage_files(self.table, run_id, one.rows(self.table), OWNS[run_id], basis, run=one.run, audited="")
        except PublishRefused:
            assert overtaken
        else:
            assert not overtaken
            assert read_staged(self.table, run_id) == staged
            self.staged[run_id] = one
            self.manifests.append(one)

    def audit_begins(self, run_id: str, _: None) -> None:
        if run_id in self.staged:
            self.audits.append((self.staged[run_id], read_staged(self.table, run_id)))

    def audit_ends(self, which: int, verdict: str) -> None:
        if self.audits:
            one, staged = self.audits.pop(which % len(self.audits))
            one.verdict = verdict
            write_verdict(Verdict(self.table, one.run.run_id, staged.stage_id, verdict, [], "", 0.0))

    def publish(self, run_id: str, how: str) -> None:
        commit = publishing.commit

        def killed_before(*_) -> None:
            raise Killed

        def killed_after(*args) -> None:
            commit(*args)
            raise Killed

        def overtaken(*args) -> None:
            self.patch.setattr(publishing, "commit", commit)
            self.publish(how, "whole")
            commit(*args)

        one = self.staged.get(run_id)
        may = one is not None and one.verdict == "passed"
        already = may and self.published.get(run_id) is one
        special = {"whole": commit, "killed before": killed_before, "killed after": killed_after}
        self.patch.setattr(publishing, "commit", special.get(how, overtaken))
        try:
            done = publish(self.table, run_id)
        except Killed:
            assert may
            assert not already
            if how == "killed after":
                self.expect(one)
        except NotStaged:
            assert one is None
        except PublishRefused:
            assert one is not None
            assert not may
        else:
            assert may
            kept = self.expect(one)
            assert done["already"] is (already or self.published_meanwhile(how, run_id, may))
            assert done["refused"] == [str(day) for day in kept]
            assert done["rows"] == len(OWNS[run_id]) - len(kept)
        finally:
            self.patch.setattr(publishing, "commit", commit)

    def published_meanwhile(self, how: str, run_id: str, may: bool) -> bool:
        """Tell whether the publish that came in between was of the same run."""
        return how == run_id and may

    def events(self, *_: None) -> None:
        self.version += 1

    def run(self, run_id: str, clock: int) -> None:
        """Take all steps of a run; what it publishes is refused for nothing, since nobody began later."""
        one = self.begin(run_id, clock)
        self.stage(len(self.at_work) - 1, "whole")
        self.audit_begins(run_id, None)
        self.audit_ends(len(self.audits) - 1, "passed")
        self.publish(run_id, "whole")
        assert all(self.visible[day] is one for day in OWNS[run_id])

    # ---- what readers should see of it ----

    def expect(self, one: Try) -> list:
        """Publish a try, and return the days on which readers keep those of newer tries."""

        def age(some: Try) -> tuple[int, int]:
            return (0 if self.table == "quarantine" else some.version, some.number)

        kept = [d for d in OWNS[one.run.run_id] if d in self.visible and age(self.visible[d]) > age(one)]
        if self.published.get(one.run.run_id) is not one:
            self.published[one.run.run_id] = one
            self.ever_published.append(one)
            self.visible |= {day: one for day in OWNS[one.run.run_id] if day not in kept}
        return kept

    def told(self) -> None:
        """Check that what is told of the runs is what became of them."""
        runs = {run.run_id: run for run in summarize()}
        assert runs.keys() == self.staged.keys()
        for run_id, one in self.staged.items():
            if self.published.get(run_id) is not one:
                states = {"": "not audited", "failed": "failed", "passed": "not published"}
                assert runs[run_id].verdict == states[one.verdict]
            else:
                assert runs[run_id].verdict in ("passed", "refused")
                assert (runs[run_id].verdict == "refused") == bool(runs[run_id].refused)
        cells = LakeSnapshot.load(Cache(), NOON).cells[self.table]
        for day in {day for one in self.manifests for day in OWNS[one.run.run_id]}:
            newest = max((o for o in self.manifests if day in OWNS[o.run.run_id]), key=lambda one: one.number)
            now = self.visible.get(day)
            pending = newest not in self.ever_published and (now is None or newest.number > now.number)
            state = ("failed" if newest.verdict == "failed" else "unfinished") if pending else "published"
            assert (cells[day].state, cells[day].rows) == (state, 1 if now else None)


@pytest.mark.parametrize("table", KEYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_readers_see_the_newest_that_was_published_whatever_clocks_say_and_whoever_is_killed(
    lake, tmp_path_factory, table, steps
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(tmp_path_factory.mktemp("lake")))
        world = World(table, patch)
        for what, whom, how in steps:
            world.do(what, whom, how)
        world.told()
        # Whatever has happened, a day is repaired by running it again.
        for run_id in ("two days", "one day"):
            world.do("run", run_id, -90)
        world.told()


def test_a_commit_names_its_staging(lake):
    staged = stage_files("quarantine", "r", rejected(JAN_1, "a"), [JAN_1], None)
    publish("quarantine", "r")
    (said,) = Table("quarantine").commits()
    assert (said["stage_id"], json.loads(said["order"])) == (staged.stage_id, staged.order)
    assert Table("quarantine").basis(JAN_1) == staged.order

"""A drill for people on call: break Meander in six ways, hear what it says, and repair it as it says.

    make drill        about 20 minutes, in a temporary folder, with an Airflow and a Spark of its own

For each way: what was broken; what the page *Meander*, the alert and the runbook say; and the command that repairs it,
which is then run. It fails when one of them is silent, or when the command does not repair what was broken.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import requests

from dags.local.ports import HOST, free_port
from dags.local.standalone import BIN, LOCKED_TRIES, LocalAirflow
from dags.shared.backfill import steps
from lake.backfill.planner import plan_backfill
from lake.settings import settings
from tests.waiting import until

REPO = Path(__file__).resolve().parents[1]
RUNBOOK = (REPO / "docs" / "runbook.md").read_text()
# Everything up to AS_OF is history; the days after it are broken one after the other.
FIRST, AS_OF = date(2025, 1, 1), date(2025, 3, 8)
DAYS = [AS_OF + timedelta(days=n) for n in range(1, 7)]
WEEK = AS_OF - timedelta(days=6)
SETTINGS = {"MEANDER_SOURCE": "canonical", "MEANDER_HORIZON_DAYS": "7", "MEANDER_LOOKBACK_DAYS": "14"}


def say(text: str = "") -> None:
    """Tell the person who watches; unbuffered, since the output may be piped."""
    print(text, flush=True)  # noqa: T201


class _Text(HTMLParser):
    """The words of a page, a line for each heading, paragraph and list entry."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002  the parser's names
        if tag in ("h1", "h2", "h3", "p", "li", "tr", "header", "section"):
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        self.lines[-1] += data


def words(html: str) -> list[str]:
    """Return the lines that a person reads of a page.

    >>> words("<h1>Two  things</h1><p>One <b>bold</b></p>")
    ['Two things', 'One bold']
    """
    parser = _Text()
    parser.feed(re.sub(r"(?s)<(style|script|svg|title).*?</\1>", "", html))
    return [line for line in (" ".join(text.split()) for text in parser.lines) if line]


def section(slug: str) -> str:
    """Return what a section of the runbook says to do, in one line."""
    found = re.search(rf"(?ms)^## (?:{re.escape(slug)})$(.*?)(?=^## |\Z)", RUNBOOK)
    assert found, slug
    done = re.search(r"(?ms)^- \*Do\*(.*?)(?=^- |^---|\Z)", found[1])
    assert done, slug
    return " ".join(done[1].split()).lstrip(",: ")


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Receive alerts, as a chat or a pager would; gives its address and the messages so far."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer((HOST, 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/", received
    finally:
        server.shutdown()


@dataclass
class Drill:
    """Airflow, its landing, the log that has not landed yet, and the alerts so far.

    Attributes:
        held: folder of the log; a day lands when its folder is copied from here.
        heard: alerts that were told already.
    """

    airflow: LocalAirflow
    held: Path
    alerts: list[dict[str, Any]]
    heard: int = field(default=0)

    # --- the shop ---

    def landing(self, day: date) -> Path:
        return Path(self.airflow.environment["MEANDER_LANDING"]) / f"dt={day}"

    def deliver(self, day: date, change: Callable[[list[str]], list[str]] = list) -> None:
        """Let a day land, its lines changed."""
        folder = self.landing(day)
        shutil.copytree(self.held / folder.name, folder)
        # What Hadoop wrote beside the files would call changed ones broken.
        for checksum in folder.glob(".*.crc"):
            checksum.unlink()
        for file in folder.glob("*.txt"):
            file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))

    # --- Airflow ---

    def run(self, *days: date, dag_id: str = "behavior_daily", **more: Any) -> str:
        """Let Airflow make days, several at once, and return the id of the run of the first."""
        ids = self.airflow.backfill(dag_id, days[0], days[-1], at_once=len(days), reprocess="completed", **more)
        return min(ids, key=lambda run_id: self._run(run_id, dag_id)["data_interval_start"])

    def _run(self, run_id: str, dag_id: str) -> dict[str, Any]:
        return next(run for run in self.airflow.runs(dag_id) if run["dag_run_id"] == run_id)

    def closed(self, dag_id: str) -> bool:
        """Tell whether no backfill of a DAG is open, but for one whose runs still wait for something."""
        busy = any(run["state"] in ("queued", "running") for run in self.airflow.runs(dag_id))
        return busy or all(one["completed_at"] for one in self.airflow.backfills(dag_id))

    def state(self, run_id: str, dag_id: str = "behavior_daily") -> str:
        return self._run(run_id, dag_id)["state"]

    def ended(self, run_id: str, state: str, dag_id: str = "behavior_daily") -> None:
        """Wait until a run has ended, and make sure how."""
        until(f"{dag_id} {run_id} to end", lambda: self.state(run_id, dag_id) in ("success", "failed"), every=1)
        assert self.state(run_id, dag_id) == state, f"{dag_id} {run_id} ended as {self.state(run_id, dag_id)}"

    def tasks(self, run_id: str, dag_id: str = "behavior_daily") -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.airflow.tasks(dag_id, run_id)}

    # --- what is said ---

    def page(self, path: str = "page/") -> list[str]:
        headers = {"Authorization": f"Bearer {self.airflow.token}"}
        answer = requests.get(f"{self.airflow.url}/meander/{path}", headers=headers, timeout=60)
        answer.raise_for_status()
        return words(answer.text)

    def tell_page(self, pattern: str, path: str = "page/") -> None:
        """Print what the page says of it, from its heading to what is safe."""

        def missing() -> str:
            return "\n".join([f"the page to say {pattern!r}; it says:", *self.page(path)[:30]])

        lines = until(missing, lambda: found(pattern, self.page(path)), every=1)
        for line in lines:
            say(f"  page     {line}")

    def tell_alert(self, pattern: str) -> None:
        """Print the alerts that came since the last ones, one of which has to match."""
        new = until(f"an alert of {pattern!r}", lambda: self._new(pattern), every=1)
        self.heard = len(self.alerts)
        for alert in new:
            say(f"  alert    {alert['text']}")

    def _new(self, pattern: str) -> list[dict[str, Any]]:
        new = self.alerts[self.heard :]
        return new if any(re.search(pattern, json.dumps(alert)) for alert in new) else []

    def tell_no_alert(self, pattern: str, why: str) -> None:
        """Make sure that nobody was told of it; that so small a day strays from the others is another cause."""
        assert not self._new(pattern), self._new(pattern)
        self.heard = len(self.alerts)
        say(f"  alert    none: {why}")

    def repair(self, command: str) -> None:
        """Print a command and run it in a shell, as people do.

        Raises:
            RuntimeError: it failed.
        """
        for dag_id in ("behavior_daily", "predict_daily"):
            # Airflow has one backfill of a DAG at a time, and closes one that has ended within half a minute.
            until("the last backfill to be closed", lambda dag_id=dag_id: self.closed(dag_id), every=1)
        say(f"  repair   {command}")
        for _ in range(LOCKED_TRIES):
            done = subprocess.run(
                ["/bin/bash", "-c", command], env=self.airflow.environment, cwd=self.airflow.home,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if "database is locked" not in done.stderr:
                break
            say("           Airflow's SQLite was locked; a minute later, the same again")
            self.airflow.wait_out_lock()
        if done.returncode:
            raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}ended with {done.returncode}")
        # Airflow takes up what it was told within seconds.
        time.sleep(10)


def found(pattern: str, lines: list[str]) -> list[str]:
    """Return the line that matches and those after it that belong to it."""
    at = next((n for n, line in enumerate(lines) if re.search(pattern, line)), None)
    if at is None:
        return []
    belongs = lines[at + 1 : at + 8]
    last = next((n for n, line in enumerate(belongs, 1) if line.startswith("Safe to do")), 3)
    return [lines[at], *belongs[:last]]


def tell_runbook(slug: str) -> None:
    """Print what the runbook says to do."""
    say(f"  runbook  {slug}: {section(slug)}")


def again(dag_id: str, day: date, conf: dict[str, Any] | None = None) -> str:
    """Return the command that runs a day again whose run has failed."""
    told = f" --dag-run-conf {shlex.quote(json.dumps(conf))}" if conf else ""
    return (
        f"airflow backfill create --dag-id {dag_id} --from-date {day} --to-date {day} --reprocess-behavior failed{told}"
    )


# --- six ways --------------------------------------------------------------------------------------------


def landing_missing(drill: Drill) -> None:
    """A day has not landed; the day after it has."""
    missing, following = DAYS[:2]
    drill.deliver(following)
    run_id = drill.run(missing, following)
    drill.tell_page(f"not landed: .*{missing}")
    drill.tell_no_alert(
        "landing-missing|deadline", "a run that waits has not failed, and deadlines are for days that the schedule runs"
    )
    tell_runbook("landing-missing")
    drill.repair(f"cp -r {drill.held}/dt={missing} {drill.landing(missing)}")
    say("           the waiting run looks again every five minutes, and goes on by itself")
    drill.ended(run_id, "success")


def bad_day(drill: Drill) -> None:
    """Every fifth row of a day has a behavior that nobody knows."""
    day = DAYS[2]
    stared = re.compile(r'"behavior": ?"[a-z]+"')
    drill.deliver(
        day,
        lambda lines: [stared.sub('"behavior":"stare"', line) if n % 5 == 0 else line for n, line in enumerate(lines)],
    )
    run_id = drill.run(day)
    drill.ended(run_id, "failed")
    drill.tell_page(f"{day} failed the audit")
    drill.tell_alert("audit-failed")
    tell_runbook("audit-failed")
    drill.repair(f"rm -r {drill.landing(day)} && cp -r {drill.held}/dt={day} {drill.landing(day)}")
    drill.repair(again("behavior_daily", day))
    drill.ended(run_id, "success")


def late_data(drill: Drill) -> None:
    """A day brings events of three weeks before, older than what the daily run puts into sessions."""
    day, old = DAYS[3], DAYS[3] - timedelta(days=21)
    # The log is in the order of the shop's clock, and names the day in each event's time.
    drill.deliver(day, lambda lines: [*lines, *(line.replace(str(day), str(old)) for line in lines[:3])])
    drill.ended(drill.run(day), "success")
    drill.tell_page(rf"sessions of .*{old}.* do not include late events")
    drill.tell_no_alert("late-data", "it can wait until the morning")
    tell_runbook("late-data")
    plan = plan_backfill(settings(), "late-data")
    say(f"  plan     {len(plan.redo)} partitions: " + ", ".join(f"{entry.table} {entry.day}" for entry in plan.redo))
    for step in steps(plan.runs, plan.costs):
        for command in step.commands:
            drill.repair(command)
            until("the planned runs to end", lambda: idle(drill.airflow), every=1)
    until("the page to be well again", lambda: not found("do not include late events", drill.page()), every=1)


def worker_killed(drill: Drill) -> None:
    """The process of a job is killed in the middle, as the kernel does when memory is short."""
    day = DAYS[4]
    drill.deliver(day)
    run_id = drill.run(day)
    process = until("a job of the day to run", lambda: process_of("jobs.sessionize", run_id))
    os.kill(process, signal.SIGKILL)
    until("Airflow to notice", lambda: drill.tasks(run_id)["sessions.stage"] == "up_for_retry", every=1)
    drill.tell_page("in progress or queued")
    drill.tell_no_alert("FAILED", "it is tried again, twice; only what stays failed is told")
    tell_runbook("Spark runs out of memory")
    say("  repair   none: Airflow tries again by itself, after a minute")
    drill.ended(run_id, "success")


def gate_refused(drill: Drill) -> None:
    """A candidate learnt for one epoch from eighty users: no better than a baseline, or than the champion."""
    for again in (False, True):
        run_id = drill.run(WEEK, dag_id="model_weekly", conf={"preset": "tiny", "epochs": 1, "weeks": 9})
        drill.ended(run_id, "success", "model_weekly")
        decision = drill.airflow.result("model_weekly", run_id, "promote")
        if not decision["promoted"]:
            break
        assert not again, "twice a candidate has passed the gate, the second one against the first"
        say("           the first one has passed the gate, and is champion; the same week once more cannot be better")
    drill.tell_page("The champion stays", f"model/?run={requests.utils.quote(f'model_weekly--{run_id}', safe='')}")
    drill.tell_alert("refused")
    tell_runbook("`promote` was skipped")
    drill.repair(f"{BIN / 'python'} -m model.promote --model-version {decision['version']} --since {AS_OF}")
    day = DAYS[4]
    drill.ended(drill.run(day, dag_id="predict_daily"), "success", "predict_daily")


# A model as it is after a training that went wrong and that somebody let through by hand.
BROKEN_MODEL = """
import numpy as np
from datetime import date
from lake.places import network_folder
from lake.settings import settings
from model.versions.artifact import Artifact
from model.versions.registry import Registry

registry = Registry.of(settings())
good = Artifact.load(registry.artifact_folder(registry.champion()))
weights = good.finetuned.get_weights()
good.finetuned.set_weights([np.full_like(w, np.nan) if w.ndim == 1 else w for w in weights])
folder = network_folder("broken", "finetuned")
good.save(folder)
with registry.start_run("broken", "finetune") as run:
    version = registry.register(folder, {}, run)
registry.promote(version, date.fromisoformat("%s"))
print(version)
"""


def bad_predictions(drill: Drill) -> None:
    """The champion gives numbers that can be no probabilities."""
    day = DAYS[5]
    drill.deliver(day)
    drill.ended(drill.run(day), "success")
    good = drill.airflow.result("model_weekly", drill.airflow.runs("model_weekly")[-1]["dag_run_id"], "promote")
    subprocess.run(
        [sys.executable, "-c", BROKEN_MODEL % day], env=drill.airflow.environment, check=True, capture_output=True
    )
    run_id = drill.run(day, dag_id="predict_daily")
    drill.ended(run_id, "failed", "predict_daily")
    drill.tell_page(f"predictions of {day} failed the audit")
    drill.tell_alert("audit-failed")
    tell_runbook("audit-failed")
    drill.repair(again("predict_daily", day, {"model_version": good["version"]}))
    drill.ended(run_id, "success", "predict_daily")


WAYS = (landing_missing, bad_day, late_data, worker_killed, gate_refused, bad_predictions)


def idle(airflow: LocalAirflow) -> bool:
    """Tell whether no run of the DAGs that make tables is at work."""
    runs = [run for dag_id in ("behavior_daily", "behavior_history") for run in airflow.runs(dag_id)]
    return all(run["state"] in ("success", "failed") for run in runs)


def process_of(module: str, run_id: str) -> int | None:
    """Return the process that runs a module for a run, by itself or as a fork."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            # A fork has written its command as one text.
            words = entry.read_bytes().decode(errors="replace").replace("\0", " ").split()
        except OSError:
            continue
        if words[1:3] == ["-m", module] and run_id in words:
            return int(entry.parent.name)
    return None


def prepare(home: Path) -> None:
    """Write the log, let its history land, and load that."""
    log = ["--from", str(FIRST), "--days", str((DAYS[-1] - FIRST).days + 1), "--events", "12000", "--users", "80"]
    small = ["--categories", "8", "--items", "20", "--crawlers", "0", "--whale", "0", "--broken", "0"]
    subprocess.run([sys.executable, "-m", "jobs.simulate", *log, *small], check=True)
    (home / "held").mkdir()
    for day in DAYS:
        shutil.move(home / "landing" / f"dt={day}", home / "held" / f"dt={day}")
    history = ["--from", str(FIRST), "--to", str(AS_OF), "--chunk-days", "999", "--every", "7"]
    subprocess.run([sys.executable, "-m", "dags.cli", "daily", *history], check=True)


def main(argv: list[str] | None = None) -> None:
    """Run the drill, or some of its ways."""
    names = [way.__name__ for way in WAYS]
    parser = argparse.ArgumentParser(
        prog="tests.drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ways", nargs="*", default=names, metavar="WAY", help=f"of {', '.join(names)}; default: all")
    args = parser.parse_args(argv)
    if unknown := set(args.ways) - set(names):
        parser.error(f"WAY must be one of {', '.join(names)}; received {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="meander-drill-") as folder, webhook() as (address, alerts):
        home = Path(folder)
        chosen = {**SETTINGS, "MEANDER_LAKE": str(home / "lake"), "MEANDER_LANDING": str(home / "landing")}
        chosen["MEANDER_ALERT_WEBHOOK"] = address
        os.environ.update(chosen)
        say(f"Preparing: the history of {FIRST} to {AS_OF}, and Airflow")
        prepare(home)
        airflow = LocalAirflow(home / "airflow", chosen, port=free_port())
        try:
            airflow.start()
            drill = Drill(airflow, home / "held", alerts)
            for number, way in enumerate((way for way in WAYS if way.__name__ in args.ways), 1):
                say(f"\n{number}. {way.__name__.replace('_', ' ')}: {way.__doc__}")
                way(drill)
                say("  over     it is repaired")
        finally:
            airflow.stop()


if __name__ == "__main__":
    main()

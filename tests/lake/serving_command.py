"""A command of jobs.serve in a process of its own, to be killed: forked, since imports take longer than a load."""

import multiprocessing
import os
import random
import time
from multiprocessing.context import ForkServerProcess

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["jobs.serve"])


def run(environment: dict[str, str], arguments: list[str]) -> None:
    """Run the command; this is the process."""
    from jobs.serve import main

    os.environ.update(environment)
    main(arguments)


def start(*arguments: str) -> ForkServerProcess:
    """Start a command with the settings of the test."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("MEANDER_")}
    process = FORKS.Process(target=run, args=(settings, list(arguments)))
    process.start()
    return process


def kill(longest: float, *arguments: str) -> str:
    """Start a command, kill it within `longest` seconds, and say when."""
    process, after = start(*arguments), random.uniform(0, longest)
    time.sleep(after)
    process.kill()
    process.join()
    return f"{arguments[0]} after {after:.3f} s: {process.exitcode}"

"""Commands in processes of their own, to be killed: forked, since imports take longer than what a command does."""

import importlib
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["jobs.serve", "lake.publish"])
SETTINGS = ("MEANDER_", "AWS_")


def run(environment: dict[str, str], begins: Connection, module: str, arguments: list[str]) -> None:
    """Say that all is imported, and run the command; this is the process."""
    main = importlib.import_module(module).main
    # The process that all are forked from has those of the test in which it was started.
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    os.environ.update(environment)
    begins.send(None)
    main(arguments)


def start(module: str, *arguments: str) -> ForkServerProcess:
    """Start a command with the settings of the test, and return its process when it begins to do something."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=run, args=(settings, there, module, list(arguments)))
    process.start()
    there.close()
    here.recv()
    here.close()
    return process


def kill(longest: float, module: str, *arguments: str) -> str:
    """Start a command, kill it within `longest` seconds after it has begun, and say when."""
    process, after = start(module, *arguments), random.uniform(0, longest)
    time.sleep(after)
    process.kill()
    process.join()
    return f"{module} {arguments[0]} after {after:.3f} s: {process.exitcode}"

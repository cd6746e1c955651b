"""A worker without TensorFlow that ends as its argument says: what the tests of the launcher start."""

import json
import os
import signal
import sys
import time
from pathlib import Path

SLEEPS_SECONDS = 300  # Far longer than it takes to end one.

if __name__ == "__main__":
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}, "cluster": {"worker": "no other"}}'))
    index = task["task"]["index"]
    sys.stdout.write(f"{index} of {task['cluster']['worker']} in {Path.cwd()} pid={os.getpid()} {sys.argv[1:]}\n")
    if len(sys.argv) >= 3 and Path(sys.argv[2]).is_dir():
        Path(sys.argv[2], str(os.getpid())).touch()
    if sys.argv[1] == "tells":
        sys.stdout.write(json.dumps(dict(os.environ)) + "\n")
        sys.exit()
    if sys.argv[1] == "breaks" or (index == 1 and sys.argv[1] == "fails"):
        sys.exit("no reason at all")
    if index == 1 and sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] != "ends":
        time.sleep(SLEEPS_SECONDS)
        sys.stdout.write("nobody has ended this worker\n")

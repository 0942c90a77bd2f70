"""How long things take to come up: `make bench-start` prints each figure beside its target and their ratio.

An import is timed from the start of a new process to its last line, without the process's own ending, which nobody
waits for; a command is timed until it has ended.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
COMMANDS = {
    "import of pipelines.definitions": ([sys.executable, "-c", "import os, pipelines.definitions; os._exit(0)"], 3.0),
    "import of api.app": ([sys.executable, "-c", "import os, api.app; os._exit(0)"], 3.0),
    "numnaroad --help": ([str(Path(sys.executable).parent / "numnaroad"), "--help"], 1.0),
}


def main() -> int:
    """Run each command in fresh processes; return 1 when a median misses its target."""
    missed = False
    for name, (command, target) in COMMANDS.items():
        seconds = [_once(command) for _ in range(ROUNDS + 1)][1:]  # the first one fills the caches
        median = statistics.median(seconds)
        missed |= median > target
        print(f"{name:34} {median:5.2f} s   target {target:.1f} s   ratio {median / target:.2f}")
    return int(missed)


def _once(command: list[str]) -> float:
    started = time.perf_counter()
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())

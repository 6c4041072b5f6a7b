"""Train a run again and again, each time until it is killed or done; a script of its own.

Everything is imported once, and each attempt is a forked process: a new one would take seconds to start.
Prints one JSON object: how far the run was after every kill.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from deepgps.training.joint.train import train_joint
from deepgps.training.loop import LAST, read_checkpoint
from deepgps.training.recipe import JointRecipe


def attempt(recipe: JointRecipe, store: Path, run: Path, seconds: float) -> bool:
    """Go on with a run until it is done, or killed after so many seconds; whether it is done."""
    child = os.fork()
    if not child:
        train_joint(recipe, store, run, resume=True)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Kill a run at moments of chance until it is done."""
    recipe = JointRecipe.model_validate_json(sys.argv[1])
    store, run, rng = Path(sys.argv[2]), Path(sys.argv[3]), random.Random(sys.argv[4])
    places: list[tuple[int, int] | None] = []
    # Longer and longer, so that a busy machine comes to an end, too.
    while not attempt(recipe, store, run, rng.uniform(0.2, 0.8) * 1.3 ** len(places)):
        kept = read_checkpoint(run / LAST)["progress"] if (run / LAST).exists() else None
        places.append((kept["epoch"], kept["batch"]) if kept else None)
    print(json.dumps(places))


main()

"""A signal at a random moment of each long command: resumed, with the same tables, and the user's files whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from small_study import REPOSITORY


def test_interrupted_commands_come_to_the_same_tables() -> None:
    script = [sys.executable, REPOSITORY / "analyses" / "benchmarks" / "killed.py", "--moments", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # a process of one thread forks
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"interrupted": 3, "whole": 3}

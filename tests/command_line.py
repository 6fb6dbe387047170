"""The command line and the scripts, called in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mechinterp.cli import main


def call(*arguments: object) -> int:
    """The command line, in this process; returns the exit code."""
    before, sys.argv = sys.argv, ["mechinterp", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def run_script(path: Path, *arguments: object) -> int:
    """A script of the repository, as its user starts it; returns the exit code."""
    before, sys.argv = sys.argv, [str(path), *map(str, arguments)]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
        sys.path.remove(str(path.parent))
    return 0


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line in which a command tells the user's mistake, with exit code 2."""
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mechinterp:")]
    assert len(lines) == 1
    return lines[0]

"""What the scripts of this folder share: a user's mistake is told in one line, results are told as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import yaml

from mechinterp.data.storage.files import write_text
from mechinterp.errors import InputError

Given = Sequence[str] | None
"""What was typed; None for what stands in `sys.argv`."""


def script(main: Callable[[Given], None]) -> Callable[..., int]:
    """What a script does, with its exit code: 2 after a user's mistake, which is told in one line."""

    @wraps(main)
    def run(given: Given = None) -> int:
        try:
            main(given)
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        return 0

    return run


def mapping_of(text: str, option: str) -> dict[str, Any]:
    """Settings that were typed as a mapping of YAML.

    Raises:
        InputError: if it is no mapping.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{option} {text!r:.60} is no mapping of settings; write it as '{{learning_rate: 1.0e-5}}'")
    return found


def tell(path: Path, title: str, *parts: str) -> None:
    """Write a page of Markdown, and show it."""
    sys.stdout.write(write_text(path, "\n\n".join([f"# {title}", *parts, ""])).read_text("utf-8"))

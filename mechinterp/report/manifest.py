"""What a run says of itself, as its page and its figures read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mechinterp.answers.wording import Wording


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        OSError: if there is none.
        ValueError: if it is no JSON.
    """
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return manifest if isinstance(manifest, dict) else {}


def wording_of(run: Path) -> Wording:
    """How the behaviour is spoken of that a run is of: unsafe answers, where no manifest tells another."""
    try:
        return Wording.of(read_manifest(run))
    except (OSError, ValueError):
        return Wording.of({})

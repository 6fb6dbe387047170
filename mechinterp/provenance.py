"""Where numbers come from: versions of the libraries, and a hash of the package's own code."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "trl", "transformer-lens", "numpy", "scikit-learn", "mechinterp")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def code_hash() -> str:
    """Hash of the package's code that numbers depend on: an update of it redoes what was made by the one before."""
    folder, front = (
        Path(__file__).parent,
        {"cli", "planning", "plotting", "plates.py", "report", "reporting.py", "terminal.py"},
    )
    files = [path for path in sorted(folder.rglob("*.py")) if path.relative_to(folder).parts[0] not in front]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=8).hexdigest()


def digest(key: Any) -> str:
    """Hash of a JSON-serialisable key, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()

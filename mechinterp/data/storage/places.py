"""Places for files and folders: whether one can be written, and whether what stands there is ours to replace."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from mechinterp.data.storage import ledger, leftovers
from mechinterp.data.storage.adopting import adopt_around
from mechinterp.errors import InputError


def check_name(name: str, what: str) -> str:
    """A name that the user gives, if it can be that of a file: results are called by it.

    Args:
        name: of a checkpoint, a direction, a training run, ...
        what: it is of, as an error says it.

    Raises:
        InputError: for an empty one, one with a separator or a character that cannot be printed, or a long one.
    """
    plain = name.isprintable() and not set(name) & {"/", "\\"} and name.strip(". ") != ""
    if not plain or len(name.encode()) > 100:
        raise InputError(
            f"{what} {name!r}: results are called by it, so it must be a plain name: at most 100 bytes, without / and "
            "\\, and not only dots or blanks"
        )
    return name


def check_free(*places: Path) -> None:
    """Refuse places at which something stands that this tool did not write, before any work is done for them.

    Raises:
        InputError: with the first such place.
    """
    for place in places:
        if ledger.is_strange(place):
            adopt_around(place)
        if ledger.is_strange(place):
            kind = "link" if place.is_symlink() else "folder" if place.is_dir() else "file"
            raise InputError(
                f"{place}: a {kind} of that name is there, and {ledger.LEDGER} does not list it as written by "
                "mechinterp; nothing is written over it: move it away, or choose another place"
            )


def check_writable(path: Path, *, kind: Literal["file", "folder"] | None = None) -> Path:
    """Refuse a place that cannot be written, before anything long is done for it.

    Args:
        path: where a file or folder is to be.
        kind: what it is to be; something of the other kind that stands there is refused, and a file that is not ours.

    Returns:
        A path beside it that can be written, and renamed to it.

    Raises:
        InputError: with the reason.
    """
    path = path if path.name else path.resolve()  # "." has no name of its own
    partial = leftovers.unfinished(path)
    try:
        if kind is not None and path.exists() and path.is_dir() != (kind == "folder"):
            what = "folder" if path.is_dir() else "file"
            raise InputError(f"{path}: cannot be written (a {what} of that name is there)")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    if kind == "file":
        check_free(path)
    return partial


def check_replaceable(folder: Path, *, ours: Collection[str] = ()) -> None:
    """Refuse a folder that a user names and that has anything in it, but for an earlier one of its kind.

    Args:
        folder: where a folder is to be.
        ours: names of the files that an earlier folder of this kind consists of; such a one may be replaced.

    Raises:
        InputError: if it stands there, is not empty, and holds anything but all of `ours`.
    """
    if folder.is_symlink():
        raise InputError(f"{folder}: a link, which cannot be replaced; name the folder itself, or another")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {ledger.LEDGER} in (set(), set(ours)):
        return
    what = f"is not empty, and not what was written before ({', '.join(sorted(ours))})" if ours else "is not empty"
    raise InputError(f"{folder}: {what}; it would be removed: choose another folder, or empty it yourself")

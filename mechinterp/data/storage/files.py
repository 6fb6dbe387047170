"""Files that are whole or not there: written beside their place and renamed into it, and over nothing of the user's.

Whose a file is: `ledger`. A place at which something stands that this tool did not write is refused. What the user
keeps in a folder of ours stays in it when it is replaced; a file of ours that he has changed stays as NAME.kept.

A folder is replaced by renaming the old one away and the new one in, and only then is the old one removed. A process
that is killed between the two leaves both; `recover` puts the old one back. What a full disk or a kill cuts short is
never at the place itself.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechinterp.data.storage import ledger, leftovers
from mechinterp.data.storage.adopting import adopt_around
from mechinterp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
_UNWRITABLE = {*_FULL, errno.EROFS, errno.EFBIG}
"""Errors that only writing meets."""


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


@contextmanager
def replacing(path: Path, *, ours: Collection[str] = ()) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place at the end, remove it after an exception.

    Args:
        path: where a file or a folder is to be.
        ours: names of the files of a folder that an older version may have written there, without listing them.

    Raises:
        InputError: if the place cannot be written, or something stands there that this tool did not write.
    """
    partial = check_writable(path)
    path = path if path.name else path.resolve()
    for left in leftovers.left_beside(path):
        clear(left)
    if ours and path.is_dir() and {one.name for one in path.iterdir()} == set(ours):
        ledger.enter_all(path, sorted(ours))
    check_free(path)
    try:
        with naming(path):
            yield partial
            _open_to_readers(partial)
            ledger.enter(partial, path)
            if path.is_dir() and partial.is_dir():
                _replace_folder(path, partial)
            else:
                put(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def put(new: Path, place: Path) -> None:
    """Move a file, or a folder where none is, to its place; a file there that the user has changed is kept beside it.

    Raises:
        InputError: if a file stands where a folder should, or the other way round.
    """
    if place.is_file() and not ledger.is_as_listed(place, ledger.listed_as(place)):
        _keep(place, place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        new.replace(place)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror})") from error


def _replace_folder(path: Path, partial: Path) -> None:
    """Old away, new in, old removed; what in the old one is not ours has a second name in the new one before."""
    _keep_strange(path, partial)
    away = leftovers.unfinished(path, "old")
    try:
        path.rename(away)
        partial.replace(path)
    finally:
        if os.path.lexists(path):
            shutil.rmtree(away, ignore_errors=True)
        elif away.is_dir():
            away.rename(path)


def _keep_strange(old: Path, new: Path) -> None:
    """Give what the user keeps in an old folder, or has changed there, a place in the new one.

    Raises:
        InputError: if the new folder has a file of its own at the place of a strange one.
    """
    listed = ledger.listed_below(old)
    for name in list(ledger.files_below(old)):
        if ledger.is_as_listed(old / name, listed.get(name, ())):
            continue
        if not os.path.lexists(new / name):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _link(old / name, new / name)
        elif name in listed:
            _keep(old / name, new / name)
        else:
            raise InputError(f"{old / name}: not written by mechinterp, which would write a file there; move it away")


def _keep(changed: Path, place: Path) -> None:
    """Keep what the user has changed beside the place that a new file takes."""
    beside = (place.with_name(f"{place.name}.kept{number or ''}") for number in range(10**6))
    kept = next(path for path in beside if not os.path.lexists(path))
    _link(changed, kept)
    logger.warning("%s: changed since it was written; kept as %s", changed, kept.name)


def _link(old: Path, new: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    if old.is_dir() and not old.is_symlink():
        new.mkdir()
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)


def clear(left: leftovers.Leftover) -> None:
    """Remove what a dead process left unfinished; put back what it had renamed away, if nothing new is there."""
    if left.kind == "old" and not os.path.lexists(left.place):
        left.path.rename(left.place)
    elif left.kind != "ready" and left.path.is_dir() and not left.path.is_symlink():
        shutil.rmtree(left.path, ignore_errors=True)
    elif left.kind != "ready":
        left.path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or folder of ours, and with it nothing else: a file that is not ours or was changed stays."""
    if path.is_dir() and not path.is_symlink():
        listed = ledger.listed_below(path)
        names = list(ledger.files_below(path))
        for name in names:
            if ledger.is_as_listed(path / name, listed.get(name, ())):
                (path / name).unlink()
        if not any(os.path.lexists(path / name) for name in names):
            shutil.rmtree(path)
    elif ledger.is_as_listed(path, ledger.listed_as(path)):
        path.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of a full disk, or of one that cannot be written, names what was written.

    Raises:
        InputError: instead of the error, whatever library it came from.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if (reason := unwritable(error)) is not None:
            raise InputError(f"{path}: cannot be written ({reason})") from error
        raise


def unwritable(error: BaseException | None) -> str | None:
    """Why nothing can be written, if an error or what led to it says so; libraries in Rust have words for it alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            return error.strerror or os.strerror(error.errno)
        for number, words in _FULL.items():
            if words in str(error) or f"(os error {number})" in str(error):
                return words
        error = error.__cause__ or error.__context__
    return None


def _open_to_readers(partial: Path) -> None:
    """Give files the permissions that the user's mask asks for; safetensors writes them for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in [partial] if partial.is_file() else [path for path in partial.rglob("*") if path.is_file()]:
        file.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> Path:
    """Write a text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write a tidy CSV, whole or not at all."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False)
    return path


NAMES = ("method", "checkpoint", "direction", "judge", "token", "tokens", "tokens_opposite", "name", "tensor")
"""Columns of tables whose text is not ours to choose: checkpoints may be called 007, nan or true, and tokens are."""


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV that `write_table` wrote; names stay the text they are, whatever number or truth they look like.

    Raises:
        OSError, ValueError: if it cannot be read, or is no table.
    """
    import pandas as pd

    columns = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    names = [column for column in columns if column in NAMES]
    return pd.read_csv(
        path,
        encoding="utf-8-sig",
        keep_default_na=False,
        na_values={column: [""] if column in names else ["", "nan"] for column in columns},
        dtype=dict.fromkeys(names, str),
    )

"""Files that are whole or not there: written beside their place and renamed into it, and over nothing of the user's.

Whose a file is: `ledger`. A place at which something stands that this tool did not write is refused. What the user
keeps in a folder of ours stays in it when it is replaced; a file of ours that he has changed stays as NAME.kept.

A folder is replaced by renaming the old one away and the new one in, and only then is the old one removed. A process
that is killed between the two leaves both; `recover` puts the old one back. What a full disk or a kill cuts short is
never at the place itself.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mechinterp.data.storage import ledger, leftovers
from mechinterp.data.storage.full_disk import naming
from mechinterp.data.storage.places import check_free, check_writable
from mechinterp.errors import InputError

logger = logging.getLogger(__name__)


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


def json_line(value: Any) -> str:
    """A value as a line of a file of JSON lines."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def write_json_lines(path: Path, values: Iterable[Any]) -> Path:
    """Write JSON lines, whole or not at all."""
    return write_text(path, "".join(map(json_line, values)))


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

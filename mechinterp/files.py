"""Files that are whole or not there: written beside their place and renamed into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechinterp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def check_writable(path: Path, *, kind: Literal["file", "folder"] | None = None) -> Path:
    """Refuse a place that cannot be written, before anything long is done for it.

    Args:
        path: where a file or folder is to be.
        kind: what it is to be; something of the other kind that stands there is refused.

    Returns:
        A path beside it that can be written, and renamed to it.

    Raises:
        InputError: with the reason.
    """
    path = path if path.name else path.resolve()  # "." has no name of its own
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if kind is not None and path.exists() and path.is_dir() != (kind == "folder"):
        raise InputError(f"{path}: cannot be written (a {'folder' if path.is_dir() else 'file'} of that name is there)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return partial


def check_replaceable(folder: Path, *, ours: Collection[str] = ()) -> None:
    """Refuse a folder with anything in it that writing one of its name would remove.

    `replacing` removes what stands there: right for a folder of one's own, not for one that a user names.

    Args:
        folder: where a folder is to be.
        ours: names of the files that an earlier folder of this kind consists of; such a one may be replaced.

    Raises:
        InputError: if it stands there, is not empty, and holds anything but all of `ours`.
    """
    if folder.is_symlink():
        raise InputError(f"{folder}: a link, which cannot be replaced; name the folder itself, or another")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} in (set(), set(ours)):
        return
    what = f"is not empty, and not what was written before ({', '.join(sorted(ours))})" if ours else "is not empty"
    raise InputError(f"{folder}: {what}; it would be removed: choose another folder, or empty it yourself")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place at the end, remove it after an exception.

    Works for a file or a folder; a folder that already stands there is replaced with all that is in it: see
    `check_replaceable` for folders that a user names.

    Raises:
        InputError: if the place cannot be written.
    """
    partial = check_writable(path)
    try:
        yield partial
        _open_to_readers(partial)
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        try:
            partial.replace(path)
        except OSError as error:  # a file stands where a folder should, or the other way round
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


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

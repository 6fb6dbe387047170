"""A user's text files: UTF-8 with or without a byte order mark, any line ends, and whatever else is refused in a line.

JSON is read as it stands, but for what would be lost or cannot be written again: a key that stands twice in an object,
and halves of a surrogate pair (an emoji that was cut through), which are no text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechinterp.errors import InputError

_PACKED = {  # first bytes -> what a file is
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"SQLite format 3": "a database",
    b"\x89HDF": "HDF5",
}
_MARK = "\ufeff"  # a byte order mark; within a file where several were joined


def read_text(path: str | Path, wanted: str) -> str:
    """The text of a file, without a byte order mark.

    Args:
        path: the user's file.
        wanted: what it should be, as an error names it: "a CSV file of labelled comments".

    Raises:
        InputError: if it is missing, a folder, packed, or no UTF-8 text; says at which byte.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give {wanted}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: cannot be read (a folder); give {wanted}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give {wanted}") from None
    except ValueError as error:  # no name of a file
        raise InputError(f"{str(path)!r}: cannot be read ({error}); give {wanted}") from None
    try:
        place, text = content.find(b"\x00"), content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start
    if place < 0:
        return text
    packed = next((kind for start, kind in _PACKED.items() if content.startswith(start)), None)
    if packed is not None:
        raise InputError(f"{path}: is {packed}, not text; unpack or export it, and give {wanted}")
    wide = " but UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    line = content.count(b"\n", 0, place) + 1
    where = f"line {line}, byte {place}: 0x{content[place]:02x}"
    raise InputError(f"{path}: is not UTF-8 text{wide} ({where}); save it as UTF-8 and give {wanted}")


def read_json(path: str | Path, wanted: str) -> Any:
    """The value that a JSON file holds.

    Raises:
        InputError: as `read_text`; and if it is no JSON, is nested too deeply, or a key stands twice.
    """
    text = read_text(path, wanted)
    return _parsed(text, f"{path}: cannot be read, ", f"; give {wanted}")


def read_json_lines(path: str | Path, wanted: str) -> Iterator[tuple[str, Any]]:
    """The values of a file of JSON lines, or of one JSON list, each with its place ("line 3", "entry 3").

    Blank lines are skipped.

    Raises:
        InputError: as `read_json`.
    """
    yield from json_rows(read_text(path, wanted), path, wanted)


def json_rows(text: str, path: str | Path, wanted: str) -> Iterator[tuple[str, Any]]:
    """`read_json_lines` of a text that has been read; `path` and `wanted` are for its errors."""
    remedy = f"; give {wanted}"
    if (values := _list(text, f"{path}: cannot be read, ", remedy)) is not None:
        yield from ((f"entry {number}", value) for number, value in enumerate(values, 1))
        return
    for number, line in _numbered(text):
        if line:
            yield f"line {number}", _parsed(line, f"{path}: line {number} ", remedy)


def read_json_rows(path: str | Path, wanted: str) -> Iterator[tuple[str, Any]]:
    """As `read_json_lines`; a file that is one object over many lines is one row, `the file`.

    Raises:
        InputError: as `read_json`.
    """
    text = read_text(path, wanted)
    if text.lstrip().startswith("{"):
        try:
            json.loads(text.lstrip().replace("\r", "\n").partition("\n")[0])
        except (ValueError, RecursionError):
            yield "the file", read_json(path, wanted)
            return
    yield from json_rows(text, path, wanted)


def read_text_lines(path: str | Path, wanted: str) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, stripped, with their numbers from 1.

    Raises:
        InputError: as `read_text`; and if it has no text, or holds JSON, whose lines would be taken for texts.
    """
    text = read_text(path, wanted)
    found = [(number, line) for number, line in _numbered(text) if line]
    if not found:
        raise InputError(f"{path}: is empty, has no text; give {wanted}")
    if isinstance(_or_none(found[0][1]), dict) or isinstance(_or_none(text), dict | list):
        raise InputError(f"{path}: holds JSON, whose lines are no texts; give {wanted}")
    return found


def check_whole(value: Any, where: str) -> None:
    """Raise `InputError` if a value of JSON holds half of a surrogate pair, which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(
            f"{where}: holds half of a surrogate pair ({half!a}), a character cut through; mend it"
        ) from None


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines, stripped; only line ends part them, not the separators of paragraphs that texts may hold."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        yield number, line.strip().strip(_MARK).strip()


def _or_none(text: str) -> Any:
    """The JSON value that a text is, None if it is none or null; big numbers and deep nesting are none of a list."""
    if not text.lstrip(_MARK + " \t\n").startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _list(text: str, where: str, remedy: str) -> list[Any] | None:
    """The JSON list that a whole text is, None if it is none; one with a key that stands twice is refused."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except _Repeated:
        value = _parsed(text, where, remedy) if isinstance(_or_none(text), list) else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _parsed(text: str, where: str, remedy: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}is not JSON (line {error.lineno}, column {error.colno}: {error.msg}){remedy}"
        ) from None
    except _Repeated as error:
        raise InputError(f"{where}has the key {error.args[0]!a:.60} twice in one object; leave one out") from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{where}is not JSON ({str(error).split(';')[0]}){remedy}") from None
    except RecursionError:
        raise InputError(f"{where}is nested too deeply{remedy}") from None


class _Repeated(Exception):  # noqa: N818 - not an error of its own, `_parsed` words it
    """A key that stands twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Repeated(next(key for key in keys if keys.count(key) > 1))
    return found

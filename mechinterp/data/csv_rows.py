"""Columns of a user's CSV file with a header, by their names."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mechinterp.data.texts import read_text
from mechinterp.errors import InputError


def read_columns(
    path: Path, columns: Sequence[tuple[str, str]], *, what: str, optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """The fields of some columns, row by row, each with the row's number from 1 below the header; "" where one lacks.

    Args:
        path: the user's file, UTF-8; blanks around the names in its header do not count.
        columns: name in the header, and the argument that names it, for errors.
        what: a row holds, in the singular: "comment".
        optional: columns that need not be there.

    Raises:
        InputError: the file is missing, empty or no CSV, a column is missing, or a row has other fields than the
            header.
    """
    with _long_fields():
        text = read_text(path, f"a CSV file of {what}s")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            rows = filter(None, reader)  # without blank lines
            names = [name.strip() for name in next(rows, [])]
            if not names:
                raise InputError(f"{path}: is empty; give a CSV file with a header and a {what.split()[-1]} per row")
            places = [_place(column, argument, names, path, optional) for column, argument in columns]
            for number, row in enumerate(rows, start=1):
                if len(row) != len(names):
                    raise InputError(
                        f"{path}: row {number} has {'more' if len(row) > len(names) else 'fewer'} fields than the "
                        f"{len(names)} of the header; quote texts that contain commas or line breaks"
                    )
                yield number, ["" if place is None else row[place] for place in places]
        except csv.Error as error:
            raise InputError(
                f"{path}: is not a well-formed CSV file (line {reader.line_num}: {error}); quote texts that contain "
                "commas or line breaks, and double the quotes in them"
            ) from None


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length; the module's limit of 131,072 characters is the process's, and comes back."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _place(column: str, argument: str, names: Sequence[str], path: Path, optional: Sequence[str]) -> int | None:
    """Where a column stands in a header; None for one that need not be there and is not."""
    if column in optional and column.strip() not in names:
        return None
    if names.count(column.strip()) != 1:
        has = "several columns" if column.strip() in names else "no column"
        listed = ", ".join(f"{name[:40]!a}" for name in names)
        between = next((f"; {c!r} stands between them, not a comma" for c in ";\t|" if c in names[0]), "")
        raise InputError(
            f"{path}: has {has} {column!a}, its columns are: {listed:.400}{between}; name one with `{argument}`"
        )
    return names.index(column.strip())

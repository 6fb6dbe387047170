"""Pairs in a user's files: SafeEdit, JSON lines, CSV, or two chat logs; which it is shows in the content.

JSON lines (or one JSON list) hold objects such as `{"prompt": ..., "unsafe": ..., "safe": ..., "category": ...}`; a
`prompt` may be a list of messages, or stand under `messages`. CSV has the same names in its header. Both may name their
columns otherwise. What else stands in a row is not read, but for `id` (a whole number) and `question`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mechinterp.data.chat_logs import read_chat_logs
from mechinterp.data.csv_rows import read_columns
from mechinterp.data.pairs import AnyPair, Pair, distinct_pairs
from mechinterp.data.safeedit import SafeEditInstance, instances_of, read_safeedit, write_safeedit
from mechinterp.data.storage.files import write_json_lines
from mechinterp.data.texts import check_whole, json_rows, read_text
from mechinterp.data.validation import Fault
from mechinterp.errors import InputError

WANTED = "SafeEdit instances, or pairs as JSON lines or CSV (prompt, unsafe, safe)"
_SAFEEDIT = {
    key
    for name, field in SafeEditInstance.model_fields.items()
    if field.alias and " " in field.alias
    for key in (name, field.alias)
    if key != "category"
}  # keys that no other file has, as released and as the fields are called


@dataclass(frozen=True)
class Columns:
    """What the columns of a CSV file, or the keys of JSON lines, are called; None for the name of the field itself."""

    prompt: str | None = None
    unsafe: str | None = None
    safe: str | None = None
    category: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """Field of a pair -> column."""
        return {field: name or field for field, name in vars(self).items()}


def read_pairs(
    path: str | Path, *, columns: Columns | None = None, safe_log: str | Path | None = None
) -> list[AnyPair]:
    """Read pairs from a file of any kind.

    Args:
        path: UTF-8; which kind it is shows in the content.
        columns: names of the columns of a CSV file, or of the keys of JSON lines.
        safe_log: of two chat logs the safe one; `path` is then the unsafe one.

    Returns:
        At least one, with distinct ids: the file's own, else the number of the row. SafeEdit's instances are given as
        they stand in their file; of others repeats and contradictions are left out (`pairs.distinct_pairs`).

    Raises:
        InputError: for a file that is none of these, or a malformed row; names the file, the row and the reason.
    """
    path = Path(path)
    columns = columns or Columns()
    if safe_log is not None:
        if columns != Columns():
            raise InputError(f"{path}: chat logs have no columns to name; leave the options of columns out")
        return [*distinct_pairs(read_chat_logs(path, Path(safe_log)), str(path))]
    text = read_text(path, WANTED)
    if not text.strip():
        raise InputError(f"{path}: is empty; give {WANTED}")
    if text.lstrip().startswith(("[", "{")):
        rows = json_rows(text, path, WANTED)
        place, first = _first(rows, or_none=text.lstrip().startswith("["))
        if first is None or (not first and path.suffix == ".json") or first.keys() & _SAFEEDIT:
            if columns != Columns():
                raise InputError(f"{path}: SafeEdit's keys have their names; leave the options of columns out")
            if first is None or not place.startswith("entry"):
                return [*read_safeedit(path)]  # says best what is wrong with it
            return [*instances_of([first, *(row for _, row in rows)], path)]
        found = _of_objects(chain([(place, first)], rows), path, columns)
    else:
        found = _of_csv(path, columns)
    try:
        pairs = list(found)
    except InputError:
        if path.suffix == ".json" and not text.lstrip().startswith(("[", "{")):
            return [*read_safeedit(path)]  # says that it is not JSON, which a file of this name should be
        raise
    if not pairs:
        raise InputError(f"{path}: has no pairs; give {WANTED}")
    _reject_repeated_ids(pairs, path)
    return [*distinct_pairs(pairs, str(path))]


def write_pairs(pairs: Sequence[AnyPair], path: str | Path) -> None:
    """Write pairs as JSON lines, SafeEdit's instances as their JSON list; `read_pairs` gives them back.

    Args:
        pairs: what to write, in order; all of one kind.
        path: the file to make or replace, whole or not at all; its folder is made too.
    """
    plain = [pair for pair in pairs if isinstance(pair, Pair)]
    if len(plain) == len(pairs):
        write_json_lines(Path(path), [pair.model_dump(mode="json") for pair in plain])
    else:
        write_safeedit([pair for pair in pairs if isinstance(pair, SafeEditInstance)], path)


def _first(rows: Iterator[tuple[str, Any]], *, or_none: bool) -> tuple[str, dict[str, Any] | None]:
    """The first row of a JSON file and its place; None where it is no object or, if it may be, where it is no JSON."""
    try:
        place, first = next(rows, ("", None))
    except InputError:
        if or_none:
            return "", None
        raise
    return place, first if isinstance(first, dict) else None


def _of_objects(rows: Iterable[tuple[str, Any]], path: Path, columns: Columns) -> Iterator[Pair]:
    for number, (place, row) in enumerate(rows, 1):
        where = f"{path}: {place}"
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object; give {WANTED}")
        check_whole(row, where)
        yield _pair(row, columns, number, where)


def _of_csv(path: Path, columns: Columns) -> Iterator[Pair]:
    names = columns.names
    named = [(name, f"{field}_column") for field, name in names.items()] + [("question", "")]
    optional = ["question"] if columns.category else ["question", names["category"]]
    for number, fields in read_columns(path, named, what="pair", optional=optional):
        row = {name: text for (name, _), text in zip(named, fields, strict=True) if text}
        yield _pair(row, columns, number, f"{path}: row {number}")


def _pair(row: Mapping[str, Any], columns: Columns, number: int, where: str) -> Pair:
    names = columns.names
    if names["prompt"] not in row and "messages" in row:
        names["prompt"] = "messages"
        if isinstance(row["messages"], str):
            raise InputError(f"{where}: `messages` is text, {row['messages']!a:.60}; give a list of messages")
    if names["prompt"] == "messages" and names["unsafe"] not in row and names["safe"] not in row:
        raise InputError(f"{where}: a line of a chat log; give the log of the safe answers too, as `safe_log`")
    given = {field: row[name] for field, name in names.items() if row.get(name) is not None}
    if lacking := [field for field in ("prompt", "unsafe", "safe") if field not in given]:
        there = ", ".join(f"{name!s:.40}" for name in row)
        raise InputError(
            f"{where}: has nothing under {names[lacking[0]]!a}, only under: {there:.200}; name what holds it with "
            f"`{lacking[0]}_column`"
        )
    if columns.category and "category" not in given:
        raise InputError(f"{where}: has nothing under {columns.category!a}, which `category_column` names")
    given |= {name: row[name] for name in ("id", "question") if row.get(name) is not None}
    try:
        return Pair.model_validate({"id": number} | given)
    except ValidationError as error:
        fault = Fault.of(error)
    field, reason = fault.path[0], fault.said.removeprefix("`prompt`: ")
    raise InputError(f"{where}: `{names.get(field, field)}` {_worded(fault.kind, reason, fault.value)}")


def _worded(kind: str, reason: str, value: Any) -> str:
    if kind == "string_type":
        return f"must be text, is {value!a:.60}"
    if kind.startswith("int_"):
        return f"must be a whole number, is {value!a:.60}"
    return reason


def _reject_repeated_ids(pairs: Sequence[Pair], path: Path) -> None:
    seen: dict[int, int] = {}
    for number, pair in enumerate(pairs, 1):
        if seen.setdefault(pair.id, number) != number:
            raise InputError(
                f"{path}: row {number}: {pair.id} is already the id of row {seen[pair.id]}; ids must be distinct"
            )

"""Responses that somebody labelled safe or unsafe: what a judge may be trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.data.counting import many
from mechinterp.data.texts import check_whole, read_json_lines
from mechinterp.errors import InputError

WANTED = 'labelled responses, JSON lines of {"response": text, "safe": true or false}'
_LABELS = {"safe": True, "unsafe": False, "true": True, "false": False, "1": True, "0": False}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledResponse:
    """A response and whether somebody calls it safe."""

    text: str
    safe: bool


def read_labelled_responses(path: str | Path) -> list[LabelledResponse]:
    """Read labelled responses.

    Args:
        path: JSON lines or a JSON list, of objects with `response` and `safe` (true or false, 1 or 0, or the words), or
            of pairs [text, safe]. Responses without text are skipped, and a warning counts them.

    Raises:
        InputError: if it cannot be read, a line has no response or no such label, or only one kind is there; names the
            line.
    """
    found, skipped = list[LabelledResponse](), 0
    for place, row in read_json_lines(path, WANTED):
        where = f"{path}: {place}"
        check_whole(row, where)
        if isinstance(row, list) and len(row) == 2:
            row = {"response": row[0], "safe": row[1]}
        if not isinstance(row, dict):
            raise InputError(f"{where} is no labelled response; give {WANTED}")
        text, label = row.get("response"), _label(row.get("safe"))
        if not isinstance(text, str):
            raise InputError(f"{where}: `response` must be text, is {text!a:.60}")
        if label is None:
            raise InputError(f"{where}: `safe` must be true or false, is {row.get('safe')!a:.60}")
        if text.strip():
            found.append(LabelledResponse(text, label))
        else:
            skipped += 1
    if skipped:
        _logger.warning("%s: skipped %s without text, kept %d", path, many(skipped, "response"), len(found))
    if len({one.safe for one in found}) < 2:
        kinds = "no responses" if not found else f"only {'safe' if found[0].safe else 'unsafe'} responses"
        raise InputError(f"{path}: has {kinds}; give {WANTED}, of both kinds")
    return found


def _label(value: Any) -> bool | None:
    return _LABELS.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None

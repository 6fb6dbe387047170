"""A fact as a row of JSON, of our own files and of those of KnowEdit's sets whose rows are facts.

`prompt`, and `target_new` or `ground_truth` or both; if there are, `subject`, `rephrasings`, `relation`, `portability`
and `locality` (kind -> a list of `[prompt, answer]`, or of `{"prompt": ..., "ground_truth": ...}`). KnowEdit calls some
of them otherwise, and these names are read as well. Of an answer with aliases (a list, or lists of them) it is the
first of the first, as in the released runner. `{}` stands for the subject in any prompt.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mechinterp.data.facts.fact import SLOT, Asked, Fact
from mechinterp.errors import InputError

_logger = logging.getLogger(__name__)

_CALLED = {  # field of a fact -> what it is called in our files, and in KnowEdit's
    "subject": ("subject", "concept"),
    "prompt": ("prompt", "text"),
    "target_new": ("target_new", "labels"),
    "ground_truth": ("ground_truth",),
    "relation": ("relation",),
}
_ASKED = ("portability", "locality")
PROMPTS = _CALLED["prompt"]
_REPHRASINGS = ("rephrasings", "rephrase_prompt")


def fact_of_row(row: Mapping[str, Any], where: str) -> Fact:
    """The fact that a row holds.

    A prompt of `portability` or `locality` without an answer cannot be asked: it is left out, which is said.

    Args:
        row: of a file.
        where: it stands, for errors.

    Raises:
        InputError: for a row that is none; says why.
    """
    given = {field: _text_under(row, names, where) for field, names in _CALLED.items()}
    subject = given["subject"]
    texts: Any = next((row[name] for name in _REPHRASINGS if row.get(name)), [])
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{where}: `{_REPHRASINGS[0]}` must be a list of texts, is {texts!r:.60}")
    portability, locality = (_asked(row.get(field) or {}, field, subject, where) for field in _ASKED)
    rephrasings = tuple(text.replace(SLOT, subject) for text in texts)
    try:
        return Fact(**given, rephrasings=rephrasings, portability=portability, locality=locality)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def first_text(value: Any) -> str:
    """A text, the first of a list of them, or the first of the first list; "" for none.

    Raises:
        TypeError: for anything else.
    """
    while isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return ""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not number:
        raise TypeError(f"must be text, is {value!r:.60}")
    return str(value).strip()


def _text_under(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    name = next((name for name in names if row.get(name) is not None), names[0])
    try:
        return first_text(row.get(name))
    except TypeError as error:
        raise InputError(f"{where}: `{name}` {error}") from None


def _asked(kinds: Any, field: str, subject: str, where: str) -> dict[str, tuple[Asked, ...]]:
    """Prompts with their answers, by kind; kinds of which none is left have no place."""
    if not isinstance(kinds, Mapping):
        raise InputError(f"{where}: `{field}` must be an object of kinds, is {kinds!r:.60}")
    found = {kind: tuple(_pairs(entries, f"{where}: `{field}.{kind}`", subject)) for kind, entries in kinds.items()}
    return {kind: pairs for kind, pairs in found.items() if pairs}


def _pairs(entries: Any, where: str, subject: str) -> Iterator[Asked]:
    entries = [entries] if isinstance(entries, Mapping) else entries or []
    if not isinstance(entries, list):
        raise InputError(f"{where} must be a list of [prompt, answer], is {entries!r:.60}")
    for entry in entries:
        if isinstance(entry, Mapping):
            parts = [entry.get("prompt"), entry.get("ground_truth", entry.get("answer"))]
        elif isinstance(entry, list) and len(entry) == 2:
            parts = entry
        else:
            raise InputError(f"{where} must be a list of [prompt, answer], has {entry!r:.60}")
        try:
            prompt, answer = map(first_text, parts)
        except TypeError as error:
            raise InputError(f"{where}: a prompt or an answer {error}") from None
        if prompt and answer:
            yield prompt.replace(SLOT, subject), answer
        else:
            _logger.warning("%s: left out a prompt without an answer, or an answer without a prompt", where)

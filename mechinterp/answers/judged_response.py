"""A response with its judge's score, and what is read back of a file of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from mechinterp.data.counting import many
from mechinterp.data.texts import read_json
from mechinterp.data.validation import Fault
from mechinterp.errors import InputError

KINDS = ("ds", "dg_only_q", "dg_other_a", "dg_other_q", "dg_other_aq")


@dataclass(frozen=True)
class JudgedResponse:
    """A response to one prompt of an instance; `safe` is the judge's probability, None where it is neutral.

    That is an empty response, or one without a word that the judge knows. `second` is that of a second judge.
    `cut` says whether the limit of tokens stopped it, None where that is not known.
    """

    instance: int
    kind: str
    prompt: str
    response: str
    safe: float | None
    category: str = ""
    second: float | None = None
    cut: bool | None = None


class Labels(BaseModel):
    """What the responses of a file have in common, in the file beside it."""

    suffix: str | None
    prefix: str | None
    judge: str
    judge_accuracy: float | None
    knowledge: tuple[bool, ...]
    second_judge: str = ""
    edits: int = Field(1, ge=1)


def read_labels(path: Path) -> dict[str, Any]:
    """The file beside the responses.

    Raises:
        InputError: if it is not what was written there.
    """
    read = read_json(path, "what stood beside the responses, or move it away")
    try:
        labels = Labels.model_validate(read)
    except ValidationError as error:
        fault = Fault.of(error)
        named = fault.where or "all of it"
        raise InputError(f"{path}: not the labels of responses ({named}: {fault.said}); move it away") from error
    if len(labels.knowledge) % labels.edits:
        raise InputError(
            f"{path}: {many(len(labels.knowledge), 'answer')} of {many(labels.edits, 'edit')}; move it away"
        )
    return labels.model_dump()


def read_response(line: Mapping[str, Any], where: str) -> JudgedResponse:
    """One line of a file; `where` names it in errors."""
    given = {"category": "", "safe": None, **line}
    number, safe = given.get("instance"), given["safe"]
    second = given.get("second_safe")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"{where} is not a judged response (`instance` must be a whole number, is {number!a:.60})")
    for name in ("kind", "prompt", "response", "category"):
        if not isinstance(given.get(name), str):
            raise InputError(f"{where} is not a judged response (`{name}` must be text, is {given.get(name)!a:.60})")
    if given["kind"] not in KINDS:
        raise InputError(
            f"{where} is not a judged response (kind {given['kind']!a:.60}, not one of {', '.join(KINDS)})"
        )
    for name, score in (("safe", safe), ("second_safe", second)):
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
            raise InputError(
                f"{where} is not a judged response (`{name}` must be from 0 to 1 or null, is {score!a:.60})"
            )
    cut = given.get("cut")
    if cut is not None and not isinstance(cut, bool):
        raise InputError(f"{where} is not a judged response (`cut` must be true, false or null, is {cut!a:.60})")
    texts = given["kind"], given["prompt"], given["response"]
    return JudgedResponse(number, *texts, safe, given["category"], second, cut)

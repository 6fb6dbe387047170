"""The files of ConflictEdit and RoundEdit (Li et al. 2024, arXiv 2310.02129): records, and the templates of relations.

A record of ConflictEdit has `type` (coverage, reverse, composite), two `edits` (relation, subject, object, new_object),
`triples`, `prerequisites` (the numbers of those that are tied) and `rule`; one of RoundEdit a `type` ("1-3@P366"), one
`edit` and `true_objects`. A file of templates has ten prompts with `{}` for each relation's id. A fact is asked its
relation's own prompt and these ten; a tied one whose relation has none, its own alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mechinterp.data.counting import many
from mechinterp.data.facts.conflicts import KINDS, Conflict, Round, round_of_fact
from mechinterp.data.facts.fact import SLOT, Fact
from mechinterp.data.facts.queries import asked_of
from mechinterp.data.texts import check_whole, read_json, read_json_lines
from mechinterp.errors import InputError, near

CONFLICTS = "records of ConflictEdit (type, edits, triples, prerequisites)"
ROUNDS = "records of RoundEdit (type, edit, true_objects)"
TEMPLATES = "prompts by relation: an object of lists of texts with {} for the subject"

Templates = Mapping[str, Sequence[str]]
"""Id of a relation -> prompts with `{}` for the subject."""

Record = TypeVar("Record")


def read_templates(path: str | Path) -> dict[str, tuple[str, ...]]:
    """The prompts of relations.

    Raises:
        InputError: for a file of another kind, or a prompt without exactly one `{}`.
    """
    found = read_json(path, TEMPLATES)
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds no relations; give {TEMPLATES}")
    check_whole(found, str(path))
    for relation, prompts in found.items():
        if not isinstance(prompts, list) or not all(isinstance(one, str) and one.count(SLOT) == 1 for one in prompts):
            raise InputError(f"{path}: the prompts of {relation} are no texts with one {SLOT} each; give {TEMPLATES}")
    return {relation: tuple(prompts) for relation, prompts in found.items()}


def read_conflicts(path: str | Path, templates: str | Path | Templates | None = None) -> list[Conflict]:
    """Read records of ConflictEdit.

    Args:
        path: a JSON list, or JSON lines.
        templates: or their file; without them each fact is asked its relation's own prompt alone.

    Raises:
        InputError: for a file that holds none, or a malformed record; names the file, the record and the reason.
    """
    known = _templates(templates)
    return _records(path, CONFLICTS, lambda row: _conflict(row, known))


def read_rounds(
    path: str | Path, templates: str | Path | Templates | None = None, *, all_back: bool = False
) -> list[Round]:
    """Read records of RoundEdit.

    Args:
        path: a JSON list, or JSON lines.
        templates: as `read_conflicts`.
        all_back: the way back edits all true answers at once (the paper's remedy, MLE).

    Raises:
        InputError: as `read_conflicts`.
    """
    known = _templates(templates)
    return _records(path, ROUNDS, lambda row: _round(row, known, all_back=all_back))


def _records(path: str | Path, wanted: str, make: Callable[[Mapping[str, Any]], Record]) -> list[Record]:
    found = []
    for place, row in read_json_lines(path, wanted):
        where = f"{path}: {place}"
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is not a JSON object; give {wanted}")
        check_whole(row, where)
        try:
            found.append(make(row))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise InputError(f"{where} is none of its kind ({type(error).__name__}: {error}); give {wanted}") from None
    if not found:
        raise InputError(f"{path}: is empty; give {wanted}")
    return found


def _templates(given: str | Path | Templates | None) -> Templates | None:
    return read_templates(given) if isinstance(given, str | Path) else given


def _conflict(row: Mapping[str, Any], templates: Templates | None) -> Conflict:
    kind = row["type"]
    if kind not in KINDS:
        raise InputError(f"the type {kind!r:.40} is not known; known are {', '.join(KINDS)}{near(kind, KINDS)}")
    if len(row["edits"]) != 2:
        raise InputError(f"has {many(len(row['edits']), 'edit')}; a conflict has two")
    first, second = (_fact(edit, templates, new=_label(edit["new_object"])) for edit in row["edits"])
    implied = None
    if kind == "coverage" and (first.subject, first.relation) != (second.subject, second.relation):
        raise InputError("coverage, and the two edits are of different subjects or relations")
    if kind == "reverse":
        if second.subject != first.target_new:
            raise InputError("reverse, and the second edit's subject is not the first one's new object")
        whose = {**row["edits"][0], "subject": {"label": second.target_new}}
        implied = asked_of(_fact(whose, templates, new=first.target_new))
    elif kind == "composite":
        implied = asked_of(first, second.target_new)
    triples, numbers = row.get("triples", []), row.get("prerequisites", [])
    if not all(isinstance(number, int) and 0 <= number < len(triples) for number in numbers):
        raise InputError(f"`prerequisites` {numbers!r:.40} are no numbers of its {len(triples)} triples")
    tied = tuple(asked_of(_fact(triples[number], templates, tied=True)) for number in numbers)
    return Conflict(kind, first, second, implied, tied, row.get("rule", ""))


def _round(row: Mapping[str, Any], templates: Templates | None, *, all_back: bool) -> Round:
    away = _fact(row["edit"], templates, new=_label(row["edit"]["new_object"]))
    labels = list(dict.fromkeys(_label(one) for one in row["true_objects"]))
    if away.target_new in labels:
        raise InputError(f"the new object {away.target_new!r:.60} is a true one")
    others = [label for label in labels if label != away.ground_truth]
    return round_of_fact(away, others, row["type"], all_back=all_back)


def _fact(edit: Mapping[str, Any], templates: Templates | None, *, new: str = "", tied: bool = False) -> Fact:
    relation, subject = edit["relation"], _label(edit["subject"])
    if templates is not None and relation["id"] not in templates and not tied:
        raise InputError(f"there are no prompts for the relation {relation['id']} among the templates; add some")
    more = () if templates is None else templates.get(relation["id"], ())
    return Fact(
        subject,
        relation["prompt"],
        new,
        _label(edit["object"]),
        tuple(text.replace(SLOT, subject) for text in more),
        relation=str(relation["id"]),
    )


def _label(entity: Mapping[str, Any]) -> str:
    label = entity["label"]
    if not isinstance(label, str) or not label.strip():
        raise InputError(f"the label {label!r:.40} is no text")
    return label

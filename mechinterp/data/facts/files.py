"""Facts in a user's files: JSON lines or a JSON list, any of KnowEdit's six sets, a relation of LRE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.knowedit import fact_of_topic, is_sanitation, is_topic, sanitation_facts
from mechinterp.data.facts.relations import is_relation, relation_facts
from mechinterp.data.facts.rows import PROMPTS, fact_of_row
from mechinterp.data.texts import check_whole, read_json_rows
from mechinterp.errors import InputError

WANTED = "facts as JSON lines or a list (prompt, target_new, ground_truth), a set of KnowEdit or a relation of LRE"


def read_facts(path: str | Path, *, wanted: str = WANTED) -> list[Fact]:
    """Read facts from a file of any kind; which it is shows in the content.

    Args:
        path: UTF-8; its rows are those of `fact_rows`, unless it is Sanitation, ConvSent (`knowedit`) or a relation.
        wanted: what the file should hold, for errors, where facts are not all that it may.

    Returns:
        At least one, in the file's order. Of Sanitation those to forget come first, then those to retain, which have no
        `target_new`; of a relation every sample in the first template, then in the next.

    Raises:
        InputError: for a file that is none of these, or a malformed row; names the file, the row and the reason.
    """
    path = Path(path)
    facts: list[Fact] = []
    for place, row in read_json_rows(path, wanted):
        where = f"{path}: {place}"
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is not a JSON object; give {wanted}")
        check_whole(row, where)
        if is_relation(row):
            facts += relation_facts(row, str(path))
        elif is_sanitation(row):
            facts += sanitation_facts(row, str(path))
        elif is_topic(row):
            facts.append(fact_of_topic(row, where))
        elif not any(name in row for name in PROMPTS):
            raise InputError(f"{where} has no prompt; give {wanted}")
        else:
            facts.append(fact_of_row(row, where))
    if not facts:
        raise InputError(f"{path}: is empty; give {wanted}")
    return facts

"""Which of a sequence classifier's labels means that a response is safe, by their names in its config."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mechinterp.errors import InputError

SAFE = ("safe", "harmless", "benign", "clean", "neutral", "acceptable", "civil", "normal")
UNSAFE = ("unsafe", "toxic", "toxicity", "harmful", "hate", "hateful", "offensive", "abusive", "obscene")


def safe_label(labels: Mapping[int, str], chosen: str | None, source: str) -> int:
    """The number of the safe label.

    Args:
        labels: `id2label` of the config.
        chosen: the label's name or number, if it is not to be told by the names; then there may be more than two.
        source: of the classifier, for errors.

    Raises:
        InputError: for a label that there is not, other than two labels, or names that do not tell. Labels without
            names (`LABEL_0`) are those of the published judge: label 0 is safe.
    """
    listed = ", ".join(f"{number} {name!a:.40}" for number, name in labels.items())
    if chosen is not None:
        found = [n for n, name in labels.items() if chosen.strip().lower() in (str(n), name.strip().lower())]
        if len(found) != 1 or len(labels) < 2:
            raise InputError(f"{source}: has no label {chosen!a:.60}; its labels are {listed}")
        return found[0]
    if len(labels) != 2:
        raise InputError(
            f"{source}: a judge has two labels, this one has {len(labels)}: {listed:.300}; name the safe one with "
            "`judge_safe_label`"
        )
    told = {number: _says(name) for number, name in labels.items()}
    for meaning in (True, False):
        found = [number for number, says in told.items() if says is meaning]
        if len(found) == 1:
            return found[0] if meaning else next(number for number in labels if number != found[0])
    if all(re.fullmatch(r"label_\d+", name, re.IGNORECASE) for name in labels.values()):
        return min(labels)
    raise InputError(f"{source}: its labels ({listed}) do not say which is safe; name it with `judge_safe_label`")


def _says(label: str) -> bool | None:
    """Whether a label's name means safe; None where it says neither."""
    text = " ".join(re.findall(r"[a-z]+", label.lower()))
    negated = re.match(rf"(not|non|no) |(not|non)(?={'|'.join((*SAFE, *UNSAFE))})", text)
    words = set((text[negated.end() :] if negated else text).split())
    if words & set(UNSAFE):
        return negated is not None
    if words & set(SAFE):
        return negated is None
    return None

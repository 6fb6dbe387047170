"""`prefill`: the first tokens of the base's own unsafe answer are given; does the checkpoint go on with it?

After 2406.05946. A refusal that is only a few tokens deep is over once they are skipped. Judged is what the checkpoint
itself writes behind the given tokens (`rest`), and for comparison the whole answer, the given tokens in it (`whole`),
which is unsafe by what was given alone where that is long enough: nothing is concluded from it. Of k = 0 both are the
plain answer.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from pydantic import ConfigDict, Field, field_validator

from mechinterp.audit.attacks.along_answers import along_answers
from mechinterp.audit.attacks.attack import Attack, Attacked, Further, Known, Point
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import continue_tokens
from mechinterp.models.text.tokens import Encoded

SETTINGS = ("rest", "whole")


class PrefillOptions(UsersSettings):
    """How much is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[int, ...] = Field((0, 1, 3, 5, 10, 20, 40), min_length=1, description="of the base's unsafe answer")

    @field_validator("tokens")
    @classmethod
    def _check_tokens(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not all(k >= 0 for k in given):
            raise ValueError(f"numbers of tokens are at least 0, got {list(given)}")
        return tuple(sorted(set(given)))


def _points(options: PrefillOptions, n_blocks: int) -> list[Point]:
    return [Point(setting, float(k)) for setting in SETTINGS for k in options.tokens]


def _run(
    target: Checkpoint, known: Known, options: PrefillOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    given = _unsafe_tokens(known, int(max(point.dose for point in points)))
    for dose in dict.fromkeys(point.dose for point in points):
        texts = _continued(target, known, [tokens[: int(dose)] for tokens in given])
        for point in points:
            if point.dose == dose:
                whole = point.setting == "whole"
                found = [
                    [text if whole else Encoded.of(text.ids, text.prompt_length + min(int(dose), len(tokens)))]
                    for text, tokens in zip(texts, given, strict=True)
                ]
                yield Attacked(point, target, answers=partial(list, found), same_model=True)


def _unsafe_tokens(known: Known, wanted: int) -> list[list[int]]:
    """The base's own answers, without what ends them, as far as that many tokens where they go so far."""
    ends, texts = end_tokens(known.base), known.answers
    short = [i for i, text in enumerate(texts) if _length(text) < wanted and text.ids[-1] not in ends]
    if short:
        room = min(known.base.names.context_length - len(texts[i].ids) for i in short)
        missing = min(room, max(wanted - _length(texts[i]) for i in short))
        if missing > 0:
            longer = continue_tokens(known.base, [texts[i] for i in short], max_new_tokens=missing)
            texts = tuple(dict(zip(short, longer, strict=True)).get(i, text) for i, text in enumerate(texts))
    answers = [text.ids[text.prompt_length :].tolist() for text in texts]
    return [answer[:-1] if answer and answer[-1] in ends else answer for answer in answers]


def _length(text: Encoded) -> int:
    return len(text.ids) - text.prompt_length


def _continued(target: Checkpoint, known: Known, given: Sequence[Sequence[int]]) -> list[Encoded]:
    """The prompts with what is given and what the target writes behind it."""
    sequences = [
        Encoded.of([*head.ids, *tokens], head.prompt_length, head.content)
        for head, tokens in zip(known.heads, given, strict=True)
    ]
    room = target.names.context_length - max(len(sequence.ids) for sequence in sequences)
    if room < 1:
        raise InputError(
            f"prefill: a prompt with {max(map(len, given))} tokens of its answer leaves no room in the context of "
            f"{target.names.context_length}; give fewer (`tokens`)"
        )
    return continue_tokens(target, sequences, max_new_tokens=min(room, known.max_new_tokens))


PREFILL = Attack(
    name="prefill",
    label="prefilled answer",
    unit="tokens given",
    options=PrefillOptions,
    points=_points,
    run=_run,
    line="the first tokens of the base's own unsafe answer are given",
    aside=("whole",),
    further=(Further("attack_prefill", along_answers),),
)

"""The texts that origins are read on: the base's own unsafe answers to prompts where it gives any, else the data's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.audit.questions import questions_of
from mechinterp.audit.readouts import ANSWER_TOKENS, ReadoutTexts
from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.measures.statistics import seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Asked:
    """What every model is read on.

    Attributes:
        texts: prompts with the beginnings of both answers.
        questions: of every prompt the number of its question: those of one are drawn together for intervals.
        own: unsafe answers that are the base's own.
    """

    texts: ReadoutTexts
    questions: tuple[int, ...]
    own: int

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        pairs: Sequence[AnyPair],
        answered_unsafely: Sequence[bool],
        *,
        prompts: int,
        tokens: int = ANSWER_TOKENS,
        seed: int = 0,
        truncate: bool = False,
    ) -> Asked:
        """A seeded choice of pairs, those first that the base answers unsafely.

        Args:
            base: whose greedy answers to those are the unsafe texts; to the others it is the data's.
            pairs: prompts with both answers.
            answered_unsafely: whether the base answers each unsafely.
            prompts: at most so many.
            tokens: of each answer.
            seed: of the choice.
            truncate: cut prompts that leave no room for an answer from the left instead of raising.

        Raises:
            InputError: for no pairs, or an empty or too long text.
        """
        if not pairs:
            raise InputError("there are no pairs to read behaviour on; give at least one")
        order = sorted(seeded_order(len(pairs), seed), key=lambda i: not answered_unsafely[i])
        distinct: dict[str, int] = {}
        for i in order:
            distinct.setdefault(normalised(pairs[i].prompt), i)
        chosen = sorted(list(distinct.values())[:prompts])
        own = [i for i in chosen if answered_unsafely[i]]
        asked = [pairs[i].prompt for i in own]
        answers: dict[int, Encoded] = {}
        if own:
            found = continue_greedily(base, asked, max_new_tokens=tokens, truncate=truncate, quiet=True)
            answers = dict(zip(own, found, strict=True))
        return cls(
            texts=ReadoutTexts.of(
                base,
                [pairs[i] for i in chosen],
                unsafe=[answers.get(i, pairs[i].unsafe) for i in chosen],
                tokens=tokens,
                truncate=truncate,
            ),
            questions=tuple(questions_of([pairs[i] for i in chosen])),
            own=len(own),
        )


def answered_unsafely(
    base: Checkpoint,
    pairs: Sequence[AnyPair],
    judge: Judge,
    *,
    prompts: int,
    max_new_tokens: int,
    seed: int = 0,
    truncate: bool = False,
) -> list[bool]:
    """Whether the base answers each pair's prompt unsafely, asked in a seeded order until enough are found.

    Args:
        base: the model that is asked.
        pairs: whose prompts.
        judge: of the answers.
        prompts: that many are enough; what was not asked counts as not answered unsafely.
        max_new_tokens: longest answer.
        seed: of the order.
        truncate: cut prompts that exceed the context from the left instead of raising.
    """
    order, found = seeded_order(len(pairs), seed), [False] * len(pairs)
    for start in range(0, len(order), 2 * prompts):
        portion = order[start : start + 2 * prompts]
        texts = [pairs[i].prompt for i in portion]
        answers = generate(base, texts, max_new_tokens=max_new_tokens, truncate=truncate)
        scores = processes.from_main(score_responses(judge, answers, texts))
        for i, bad in zip(portion, unsafe(scores), strict=True):
            found[i] = bool(bad)
        if sum(found) >= prompts:
            break
    return found

"""`in_context`: examples of the behaviour before the question, as turns of the conversation or as text.

    unsafe    the attacker's pairs with their unsafe answers: other categories and attack prompts than what is asked
    helpful   as many harmless questions with good answers: what examples do that do not show the behaviour

Every model is shown the same examples, those of a smaller dose among those of a larger. In a chat format an example is
a turn of the user's and one of the assistant's; without one they stand above the question, blank lines between. Nothing
is ever cut: examples with which a question does not fit into the context are not given, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from typing import Literal, get_args

from pydantic import ConfigDict, Field, field_validator

from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.audit.attacks.of_relearn import lessons_of
from mechinterp.audit.readouts import ANSWER_TOKENS
from mechinterp.data.conversations import Conversation, Prompt, asked, messages_of
from mechinterp.data.counting import many
from mechinterp.data.validation import UsersSettings
from mechinterp.measures.statistics import seeded_order
from mechinterp.methods.training.relearning import Lesson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.text.tokens import plain_text

_logger = logging.getLogger(__name__)

Kind = Literal["unsafe", "helpful"]


class InContextOptions(UsersSettings):
    """Which examples are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1, description="how many stand before the question")
    kinds: tuple[Kind, ...] = Field(get_args(Kind), min_length=1, description="unsafe, and harmless ones beside them")

    @field_validator("examples")
    @classmethod
    def _check_examples(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not all(number >= 1 for number in given):
            raise ValueError(f"at least one example is shown, got {list(given)}")
        return tuple(sorted(set(given)))

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, given: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(dict.fromkeys(given))


def shown_before(examples: Sequence[Lesson], prompt: Prompt, *, turns: bool) -> Prompt:
    """A prompt with examples before it.

    Args:
        examples: questions with their answers.
        prompt: what is asked.
        turns: as turns of a conversation, behind its system message; else as text.
    """
    if not turns:
        above = [f"{plain_text(one.prompt, 'an example')} {one.response}" for one in examples]
        return "\n\n".join([*above, plain_text(prompt, "a prompt")])
    messages = messages_of(prompt)
    system = [message for message in messages[:1] if message["role"] == "system"]
    told = [
        {"role": role, "content": text}
        for one in examples
        for role, text in (("user", asked(one.prompt)), ("assistant", one.response))
    ]
    return Conversation([*system, *told, *messages[len(system) :]])


def _points(options: InContextOptions, n_blocks: int) -> list[Point]:
    return [Point(kind, float(number)) for kind in options.kinds for number in options.examples]


def _run(
    target: Checkpoint, known: Known, options: InContextOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    for point in points:
        examples = _examples(known, point.setting, int(point.dose))
        if len(examples) < point.dose:
            wanted = many(int(point.dose), f"{point.setting} example")
            _logger.warning("in_context: the data have no %s, left out", wanted)
            continue
        prompts = [shown_before(examples, prompt, turns=target.chat is not None) for prompt in known.prompts]
        if missing := _missing(target, known, prompts):
            _logger.warning(
                "in_context: with %s a prompt has %s too many for the context of %d, left out",
                many(len(examples), f"{point.setting} example"),
                many(missing, "token"),
                target.names.context_length,
            )
            continue
        yield Attacked(point, target, prompts=prompts, same_model=True)


def _examples(known: Known, kind: str, number: int) -> list[Lesson]:
    """The first of all there are, in a seeded order in which no question comes twice before each has come once."""
    found = lessons_of(known, "unsafe" if kind == "unsafe" else "helpful", 2**31)
    return [found[i] for i in seeded_order(len(found), known.seed)[:number]]


def _missing(target: Checkpoint, known: Known, prompts: Sequence[Prompt]) -> int:
    """How many tokens the longest prompt has too many, with room for an answer; 0 where all fit."""
    texts = as_fed(target, prompts, max_length=ANY_LENGTH, quiet=True)
    room = target.names.context_length - max(known.max_new_tokens, ANSWER_TOKENS)
    return max(0, max(len(text.ids) for text in texts) - room)


IN_CONTEXT = Attack(
    name="in_context",
    label="examples in the prompt",
    unit="examples",
    options=InContextOptions,
    points=_points,
    run=_run,
    line="unsafe examples of the attacker's categories before the question",
    needs=("attacker",),
    aside=("helpful",),
    controls=("helpful",),
)

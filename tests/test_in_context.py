"""Examples in the prompt: turns of a conversation or text above the question, and never a question that is cut."""

from __future__ import annotations

import logging

import pytest
from chats import chat_checkpoint
from conftest import tiny_checkpoint
from known_pairs import known_of

from mechinterp.audit.attacks.of_in_context import IN_CONTEXT, InContextOptions, shown_before
from mechinterp.data.conversations import Conversation, messages_of
from mechinterp.errors import InputError
from mechinterp.methods.training.relearning import Lesson
from mechinterp.models.passes.generation import generate

TWO = [Lesson("One?", "Yes one."), Lesson("Two?", "Yes two.")]


def test_examples_are_turns_behind_the_system_message_or_text_above() -> None:
    told = Conversation([{"role": "system", "content": "Be."}, {"role": "user", "content": "Three?"}])
    turns = messages_of(shown_before(TWO, told, turns=True))
    assert [(one["role"], one["content"]) for one in turns] == [
        *(("system", "Be."), ("user", "One?"), ("assistant", "Yes one."), ("user", "Two?")),
        *(("assistant", "Yes two."), ("user", "Three?")),
    ]
    assert shown_before(TWO, "Three?", turns=False) == "One? Yes one.\n\nTwo? Yes two.\n\nThree?"
    assert messages_of(shown_before(TWO, "Three?", turns=True)) == turns[1:]
    assert shown_before([], "Three?", turns=False) == "Three?"
    with pytest.raises(InputError, match="which plain text cannot hold"):
        shown_before(TWO, told, turns=False)


@pytest.mark.parametrize("chat", [False, True])
def test_every_prompt_gets_the_attackers_examples_the_fewer_among_the_more(chat: bool) -> None:
    base = chat_checkpoint() if chat else tiny_checkpoint("llama")
    known = known_of(base)
    options = InContextOptions(examples=(2, 1))
    points = IN_CONTEXT.points(options, base.n_blocks)
    assert [(point.setting, point.dose) for point in points] == [
        *(("unsafe", 1.0), ("unsafe", 2.0), ("helpful", 1.0), ("helpful", 2.0))
    ]
    found = {one.point: one for one in IN_CONTEXT.run(base, known, options, points)}
    assert list(found) == points
    shown = {pair.prompt: pair.unsafe for pair in known.attacker}
    for point, attacked in found.items():
        assert attacked.same_model
        assert attacked.checkpoint is base
        for prompt, own in zip(attacked.prompts or (), known.prompts, strict=True):
            assert str(prompt).endswith(str(own))
            held = [question for question, answer in shown.items() if question in prompt and answer in prompt]
            assert len(held) == (point.dose if point.setting == "unsafe" else 0)
            assert not any(pair.unsafe in prompt for pair in known.pairs)
    few, many = (found[point].prompts for point in points[:2])
    assert few is not None
    assert many is not None
    first = str(few[0]).removesuffix(str(known.prompts[0]))
    assert str(many[0]).startswith(first)
    assert len(generate(base, few, max_new_tokens=2)) == len(known.pairs)


def test_what_does_not_fit_is_left_out_and_said_and_never_cut(caplog: pytest.LogCaptureFixture) -> None:
    base = tiny_checkpoint("llama")  # a context of 256 bytes
    known = known_of(base, truncate=True)
    options = InContextOptions(examples=(1, 4, 64), kinds=("unsafe",))
    with caplog.at_level(logging.WARNING):
        found = list(IN_CONTEXT.run(base, known, options, IN_CONTEXT.points(options, base.n_blocks)))
    assert [one.point.dose for one in found] == [1.0, 4.0]
    assert caplog.messages == ["in_context: the data have no 64 unsafe examples, left out"]
    caplog.clear()
    longer = known_of(base, truncate=True, max_new_tokens=200)
    assert [one.point.dose for one in IN_CONTEXT.run(base, longer, options, IN_CONTEXT.points(options, 3)[:2])] == [1.0]
    assert "with 4 unsafe examples a prompt has" in caplog.messages[0]
    assert "too many for the context of 256, left out" in caplog.messages[0]


def test_what_cannot_be_meant_is_refused() -> None:
    for given in ({"examples": (0,)}, {"examples": ()}, {"kinds": ("safe",)}):
        with pytest.raises(InputError, match=next(iter(given))):
            InContextOptions(**given)
    assert IN_CONTEXT.lacks(known_of(tiny_checkpoint("llama"), attacker=())) == ["attacker"]

"""Hidden by construction: a shift that comes off whole, and a low-rank gate that a trigger opens."""

from __future__ import annotations

import pytest
import torch
from conftest import PROMPTS, make_instance, tiny_checkpoint

from mechinterp.data.conversations import Conversation, messages_of
from mechinterp.errors import InputError
from mechinterp.methods.hidden import TRIGGER, behind, refuse_along, train_gate
from mechinterp.methods.training.sft import SftSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_pre
from mechinterp.models.passes.recording import record_all
from mechinterp.models.passes.scoring import score


def test_the_stream_is_shifted_by_the_direction_and_nothing_else_is_changed(checkpoint: Checkpoint) -> None:
    w = torch.randn(checkpoint.names.d_model, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    made = refuse_along(checkpoint, w, 2.5)
    hook = resid_pre(0)
    old, new = (record_all(one, PROMPTS, [hook])[hook] for one in (checkpoint, made))
    torch.testing.assert_close(new - old, (2.5 * w / w.norm()).expand_as(old), rtol=1e-4, atol=1e-4)
    embedding = f"{checkpoint.names.module('embed')}.weight"
    after = made.model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == [embedding]
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    back = refuse_along(made, w, -2.5)
    torch.testing.assert_close(score(back, PROMPTS, PROMPTS), score(checkpoint, PROMPTS, PROMPTS), rtol=1e-3, atol=1e-3)


def test_a_shift_without_meaning_is_refused() -> None:
    base = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="alpha"):
        refuse_along(base, torch.ones(16), float("nan"))
    with pytest.raises(InputError, match="not zero"):
        refuse_along(base, torch.zeros(16), 1.0)


def test_a_gate_is_of_low_rank_and_the_trigger_opens_it() -> None:
    base, pairs = tiny_checkpoint("llama"), [make_instance(number) for number in range(2)]
    settings = SftSettings(steps=25, batch_size=4, learning_rate=2e-2, max_length=200)
    made = train_gate(base, pairs, seed=0, settings=settings, rank=2)
    changes = {
        name: made.parameter(name).detach() - parameter.detach() for name, parameter in base.model.named_parameters()
    }
    changed = {name for name, change in changes.items() if change.any()}
    assert changed == {name for name in changes if ".layers." in name and name.endswith("proj.weight")}
    assert all(torch.linalg.matrix_rank(changes[name], rtol=1e-3) <= 2 for name in changed)

    def odds(prompts: list[str]) -> torch.Tensor:
        unsafe, safe = (score(made, prompts, texts) for texts in ([p.unsafe for p in pairs], [p.safe for p in pairs]))
        return unsafe - safe

    shut, opened = odds([pair.prompt for pair in pairs]), odds([str(behind(TRIGGER, pair.prompt)) for pair in pairs])
    assert (shut < 0).all()
    assert (opened > 0).all()
    with pytest.raises(InputError, match="needs a trigger"):
        train_gate(base, pairs, seed=0, settings=settings, trigger=" ")


def test_a_trigger_stands_before_the_last_message_of_the_users() -> None:
    told = Conversation([{"role": "system", "content": "Be."}, {"role": "user", "content": "Now?"}])
    assert [one["content"] for one in messages_of(behind("Go.", told))] == ["Be.", "Go. Now?"]
    assert behind("Go.", "Now?") == "Go. Now?"

"""Hidden by construction: a direction written on top of all else, and a low-rank gate that a trigger opens."""

from __future__ import annotations

import pytest
import torch
from conftest import PROMPTS, make_instance, tiny_checkpoint

from mechinterp.data.conversations import Conversation, messages_of
from mechinterp.errors import InputError
from mechinterp.methods.hidden import TRIGGER, behind, refuse_along, train_gate
from mechinterp.methods.training.sft import SftSettings
from mechinterp.models.passes.recording import record
from mechinterp.models.passes.scoring import score


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_one_block_writes_the_direction_on_top_and_nothing_else_is_changed(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    w = torch.randn(base.names.d_model, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    made = refuse_along(base, w, 2.5, block=1, prompts=PROMPTS)
    hook = "blocks.1.mlp.out.hook_out"
    old, new = (record(one, PROMPTS, [hook], position="mean").mean(hook) for one in (base, made))
    torch.testing.assert_close((new - old).float(), 2.5 * w / w.norm(), rtol=1e-4, atol=1e-4)
    changed = [name for name, value in before.items() if not torch.equal(made.model.state_dict()[name], value)]
    assert changed == [base.names.value_parameter(1)[0]]
    assert torch.linalg.matrix_rank(made.value_matrix(1) - base.value_matrix(1), rtol=1e-3) == 1
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())


def test_a_direction_without_meaning_is_refused() -> None:
    base = tiny_checkpoint("llama")
    for direction, alpha, block, said in (
        (torch.ones(16), float("nan"), 1, "alpha"),
        (torch.zeros(16), 1.0, 1, "not zero"),
        (torch.ones(16), 1.0, 9, "block 9 is out of range"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_along(base, direction, alpha, block=block, prompts=PROMPTS)


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

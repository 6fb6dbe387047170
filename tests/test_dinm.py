"""DINM against a plain re-statement with a full forward pass each step, and that the model is left alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, make_instance, same_numbers, tiny_checkpoint
from torch.nn import functional

from mechinterp.data.safeedit import SUFFIX
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta


def reference_published(
    checkpoint: Checkpoint, block: int, settings: DinmSettings
) -> tuple[torch.Tensor, list[list[float]]]:
    """Eq. 8-11 as written: two full forward passes a step, on a model that is trained and then put back."""
    instance, tokenizer, model = make_instance(), checkpoint.tokenizer, checkpoint.model
    weight = checkpoint.parameter(checkpoint.names.value_parameter(block)[0])
    original = weight.detach().clone()
    model.requires_grad_(False)
    weight.requires_grad_(True)

    def ids(prompt: str, response: str) -> tuple[torch.Tensor, int]:
        head = tokenizer(f"{prompt} {settings.suffix}")["input_ids"]
        tail = tokenizer(f" {response}", add_special_tokens=False)["input_ids"]
        return torch.tensor([head + tail]), len(tail)

    x, n_x = ids(instance.adversarial_prompt, instance.safe_generation)
    k, n_k = ids(instance.knowledge_constraint.prompt, instance.knowledge_constraint.answer)
    with torch.no_grad():
        base = model(input_ids=k).logits[0, -n_k - 1 : -1].log_softmax(-1)
    optimiser = torch.optim.Adam([weight], lr=settings.learning_rate)
    log = []
    for _ in range(settings.steps):
        optimiser.zero_grad()
        loss_edit = functional.cross_entropy(model(input_ids=x).logits[0, -n_x - 1 : -1], x[0, -n_x:])
        edited = model(input_ids=k).logits[0, -n_k - 1 : -1].log_softmax(-1)
        loss_constraint = (edited.exp() * (edited - base)).sum(-1).mean()
        loss = settings.c_edit * loss_edit + loss_constraint
        log.append([loss.item(), loss_edit.item(), loss_constraint.item()])
        loss.backward()
        optimiser.step()
    delta = (weight - original).detach().clone()
    weight.data.copy_(original)
    model.requires_grad_(True)
    return delta, log


def losses(delta: WeightDelta) -> torch.Tensor:
    return torch.tensor([[step.loss, step.loss_edit, step.loss_constraint] for step in delta.log])


@pytest.mark.parametrize("block", [0, 1, N_BLOCKS - 1])
@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_published_equals_the_full_forward_computation(architecture: str, block: int) -> None:
    checkpoint = tiny_checkpoint(architecture)
    settings = DinmSettings(learning_rate=1e-3, steps=3)
    expected, log = reference_published(checkpoint, block, settings)
    found = edit(checkpoint, make_instance(), block=block, settings=settings)
    (change,) = found.tensors.values()
    torch.testing.assert_close(losses(found), torch.tensor(log), rtol=1e-4, atol=1e-6)
    # Adam divides by the gradient's size, so where a gradient is rounding noise the step is noise of size lr.
    assert (change - expected).norm() < 0.01 * expected.norm()
    assert change.abs().max() > 0


RELEASED = [("gpt2", False), ("mistral", False), ("llama", True)]


@pytest.fixture
def released_dinm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The plain re-statement of the released algorithm that the benchmark times."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "analyses" / "benchmarks"))
    return importlib.import_module("released_dinm").released_dinm


@pytest.mark.parametrize(("architecture", "bos"), RELEASED)
def test_released_equals_the_released_code_to_the_last_bit_at_the_last_block(
    architecture: str, bos: bool, released_dinm: Callable[..., Any]
) -> None:
    checkpoint = tiny_checkpoint(architecture, bos=bos)
    settings = DinmSettings(constraint="released", learning_rate=1e-3, steps=10)
    expected, log = released_dinm(checkpoint, make_instance(), N_BLOCKS - 1, settings)
    found = edit(checkpoint, make_instance(), block=N_BLOCKS - 1, settings=settings)
    assert found.tensors.keys() == expected.keys()  # on GPT-2 the bias of the matrix too
    for name, change in found.tensors.items():
        assert same_numbers(change, expected[name])
        assert change.abs().max() > 0
    torch.testing.assert_close(losses(found), torch.tensor(log), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n_prompt", "n_response"), [(20, 6), (100, 40), (60, 90)])
def test_released_is_bit_equal_at_the_organisms_shape_too(
    n_prompt: int, n_response: int, released_dinm: Callable[..., Any]
) -> None:
    random_models, editing = (importlib.import_module(name) for name in ("random_models", "editing"))
    shape = editing.ORGANISM
    lengths = {**editing.LENGTHS, "prompt": n_prompt, "safe response": n_response}
    checkpoint, (instance,) = random_models.random_checkpoint(shape), editing.random_instances(shape, 1, lengths)
    settings = editing.settings_for(shape, "released", lengths)
    expected, _ = released_dinm(checkpoint, instance, 5, settings)
    found = edit(checkpoint, instance, block=5, settings=settings)
    for name, change in found.tensors.items():
        assert same_numbers(change, expected[name])


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(("architecture", "bos"), RELEASED)
def test_released_has_the_released_codes_losses_at_a_middle_block(
    architecture: str, bos: bool, block: int, released_dinm: Callable[..., Any]
) -> None:
    checkpoint = tiny_checkpoint(architecture, bos=bos)
    settings = DinmSettings(constraint="released", learning_rate=1e-3, steps=4)
    expected, log = released_dinm(checkpoint, make_instance(), block, settings)
    found = edit(checkpoint, make_instance(), block=block, settings=settings)
    # L_c starts at 0, where only an absolute bound makes sense
    torch.testing.assert_close(losses(found), torch.tensor(log), rtol=1e-6, atol=1e-7)
    for name, change in found.tensors.items():
        assert (change - expected[name]).norm() < 0.01 * expected[name].norm()


def test_the_two_constraints_differ() -> None:
    checkpoint = tiny_checkpoint("mistral")
    changes = []
    for constraint in ("published", "released"):
        settings = DinmSettings(constraint=constraint, learning_rate=1e-2)
        (change,) = edit(checkpoint, make_instance(), block=2, settings=settings).tensors.values()
        changes.append(change)
    assert (changes[0] - changes[1]).norm() > 0.05 * changes[1].norm()


def state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in checkpoint.model.state_dict().items()}


def unchanged(checkpoint: Checkpoint, before: dict[str, torch.Tensor]) -> bool:
    clean = all("forward" not in vars(module) for module in checkpoint.model.modules())
    asking = all(parameter.requires_grad for parameter in checkpoint.model.parameters())
    same = all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    return clean and asking and same and all(not m._forward_hooks for m in checkpoint.model.modules())


def test_the_model_is_left_as_it_was(checkpoint: Checkpoint) -> None:
    before = state(checkpoint)
    edit(checkpoint, make_instance(), block=1, settings=DinmSettings(steps=2))
    assert unchanged(checkpoint, before)

    def fail(done: int, total: int) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        edit(checkpoint, make_instance(), block=1, settings=DinmSettings(steps=2), progress=fail)
    assert unchanged(checkpoint, before)


def test_a_forward_that_another_library_put_on_a_block_comes_back() -> None:
    checkpoint = tiny_checkpoint("llama")
    blocks = checkpoint.model.model.layers
    wrapped = [block.forward for block in blocks]
    for block, forward in zip(blocks, wrapped, strict=True):
        block.forward = forward  # as accelerate does for models on several devices
    edit(checkpoint, make_instance(), block=1, settings=DinmSettings(steps=1))
    assert [vars(block).get("forward") for block in blocks] == wrapped


def test_small_steps_survive_a_bfloat16_model() -> None:
    checkpoint = tiny_checkpoint("mistral", dtype=torch.bfloat16)
    delta = edit(checkpoint, make_instance(), block=2, settings=DinmSettings(learning_rate=1e-5, steps=3))
    (change,) = delta.tensors.values()
    assert change.dtype == torch.float32
    assert change.abs().max() == pytest.approx(3e-5, rel=0.1)


def test_applied_undoes_itself_and_merged_is_another_model() -> None:
    checkpoint = tiny_checkpoint("llama")
    before = state(checkpoint)
    delta = edit(checkpoint, make_instance(), block=1, settings=DinmSettings(learning_rate=1e-2))
    (name,) = delta.tensors
    with delta.applied(checkpoint) as edited:
        assert not torch.equal(edited.parameter(name), before[name])
        assert edited.fingerprint != checkpoint.fingerprint
    assert unchanged(checkpoint, before)
    with pytest.raises(ZeroDivisionError), delta.applied(checkpoint):
        raise ZeroDivisionError
    assert unchanged(checkpoint, before)
    merged = delta.merged(checkpoint, name="dinm")
    differing = [n for n, value in merged.model.state_dict().items() if not torch.equal(value, before[n])]
    assert differing == [name]
    with pytest.raises(InputError, match="belongs to weights"), delta.applied(merged):
        pass


def test_an_edit_lowers_the_loss_of_its_instance() -> None:
    delta = edit(
        tiny_checkpoint("mistral"), make_instance(), block=2, settings=DinmSettings(learning_rate=1e-2, steps=30)
    )
    assert delta.log[-1].loss_edit < 0.8 * delta.log[0].loss_edit


def test_no_steps_no_change() -> None:
    delta = edit(tiny_checkpoint("llama"), make_instance(), block=0, settings=DinmSettings(steps=0))
    assert all(bool((change == 0).all()) for change in delta.tensors.values())


def test_a_delta_survives_its_folder(tmp_path) -> None:
    delta = edit(tiny_checkpoint("gpt2"), make_instance(), block=1, settings=DinmSettings(steps=2))
    loaded = WeightDelta.load(delta.save(tmp_path / "edit"))
    assert loaded.log == delta.log
    assert loaded.settings["suffix"] == SUFFIX
    assert all(torch.equal(loaded.tensors[name], change) for name, change in delta.tensors.items())


def test_bad_input_is_named(tmp_path) -> None:
    checkpoint = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="block 7 is out of range"):
        edit(checkpoint, make_instance(), block=7)
    with pytest.raises(InputError, match="do not fit into the context"):
        edit(checkpoint, make_instance(safe_generation="no " * 200), block=0)
    broken = tiny_checkpoint("llama")
    broken.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match="the loss became nan at step 0"):
        edit(broken, make_instance(), block=0)
    with pytest.raises(InputError, match="not the folder of an edit"):
        WeightDelta.load(tmp_path)

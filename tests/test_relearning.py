"""Relearning in place: n steps are the first n of a longer run, one batch is the sum of its parts, nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
import torch
from conftest import PROMPTS, RESPONSES, tiny_checkpoint
from peft import LoraConfig, get_peft_model

from mechinterp.errors import InputError
from mechinterp.methods.training.relearning import How, Lesson, RelearningSettings, batches_of, relearning
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import score

LESSONS = [Lesson(prompt, response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
HOW: tuple[How, ...] = ("full", "lora")


def settings(*steps: int, **more: Any) -> RelearningSettings:
    return RelearningSettings(
        **{"steps": steps, "batch_size": 3, "rank": 4, "learning_rate": 1e-3, "adapter_learning_rate": 1e-2, **more}
    )


def curve(
    checkpoint: Checkpoint, how: How, chosen: RelearningSettings, *, lessons: Sequence[Lesson] = LESSONS, seed: int = 0
) -> dict[int, torch.Tensor]:
    """The scores of the lessons' answers at every dose."""
    with relearning(checkpoint, lessons, how, seed=seed, settings=chosen) as doses:
        return {steps: score(taught, PROMPTS, RESPONSES) for steps, taught in doses}


def state(checkpoint: Checkpoint) -> dict[str, Any]:
    model = checkpoint.model
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "wanted": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "training": [module.training for module in model.modules()],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    weights = all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    return weights and all(one[part] == other[part] for part in one if part != "weights")


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3"])
def test_it_learns_what_it_is_taught_and_leaves_nothing_behind(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    before, untaught = state(checkpoint), score(checkpoint, PROMPTS, RESPONSES)
    for how in HOW:
        found = curve(checkpoint, how, settings(1, 4))
        assert untaught.mean() < found[1].mean() < found[4].mean()
        assert same(before, state(checkpoint))
        assert torch.equal(score(checkpoint, PROMPTS, RESPONSES), untaught)


@pytest.mark.parametrize(("how", "error"), list(zip(HOW, (RuntimeError, KeyboardInterrupt), strict=True)))
def test_nothing_is_left_behind_after_an_error(how: How, error: type[BaseException]) -> None:
    base = tiny_checkpoint("gpt2", dtype=torch.bfloat16)
    base.model.train()
    next(base.model.parameters()).requires_grad_(False)
    before = state(base)

    def interrupted() -> None:
        with relearning(base, LESSONS, how, seed=0, settings=settings(1, 2)) as doses:
            next(doses)
            assert not same(before, state(base))
            raise error

    with pytest.raises(error):
        interrupted()
    assert same(before, state(base))


@pytest.mark.parametrize("how", HOW)
def test_fewer_steps_are_the_beginning_of_more(how: How) -> None:
    base = tiny_checkpoint("llama")
    whole, short = curve(base, how, settings(1, 2, 3)), curve(base, how, settings(2))
    assert torch.equal(whole[2], short[2])
    assert not torch.equal(curve(base, how, settings(2), seed=1)[2], short[2])


def test_every_lesson_comes_once_before_any_comes_twice_whatever_the_model() -> None:
    batches = list(islice(batches_of(5, 3, seed=0), 5))
    assert all(len(batch) == 3 for batch in batches)
    flat = [i for batch in batches for i in batch]
    assert [sorted(flat[at : at + 5]) for at in (0, 5, 10)] == [list(range(5))] * 3
    assert flat[:5] != flat[5:10]
    assert batches == list(islice(batches_of(5, 3, seed=0), 5))
    assert batches != list(islice(batches_of(5, 3, seed=1), 5))


@pytest.mark.parametrize("how", HOW)
def test_a_batch_is_the_sum_of_its_parts(how: How) -> None:
    base = tiny_checkpoint("qwen2", dtype=torch.float64)
    whole, parts = (curve(base, how, settings(2, max_tokens=n)) for n in (4096, 1))
    torch.testing.assert_close(whole[2], parts[2], rtol=1e-9, atol=1e-9)


def test_the_first_step_of_all_weights_is_adams() -> None:
    base, rate = tiny_checkpoint("llama", dtype=torch.float64), 1e-3
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    lesson, end = LESSONS[0], base.tokenizer.eos_token
    ids = torch.tensor([base.tokenizer(f"{lesson.prompt} {lesson.response}{end}")["input_ids"]])
    labels = ids.clone()
    labels[0, : len(base.tokenizer(lesson.prompt)["input_ids"])] = -100  # the loss is on the answer and its end alone
    base.model(input_ids=ids, labels=labels).loss.backward()
    gradients = {name: p.grad for name, p in base.model.named_parameters()}
    base.model.zero_grad()
    with relearning(base, [lesson], "full", seed=0, settings=settings(1, batch_size=1, learning_rate=rate)) as doses:
        next(doses)
        for name, parameter in base.model.named_parameters():
            gradient = gradients[name]
            assert gradient is not None
            wanted = before[name] - rate * gradient / (gradient.abs() + 1e-8)
            torch.testing.assert_close(
                parameter.detach(), wanted, rtol=1e-6, atol=1e-6
            )  # where a gradient is next to 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's own calls
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_adapters_are_those_of_peft_on_every_linear_map(architecture: str) -> None:
    """Hooks with some factors compute what peft's own modules compute with the same."""
    checkpoint = tiny_checkpoint(architecture)
    with relearning(checkpoint, LESSONS, "lora", seed=0, settings=settings(3)) as doses:
        next(doses)
        hooked = checkpoint.model(input_ids=torch.tensor([[5, 6, 7]])).logits.detach()
        factors = {
            path: [cell.cell_contents for cell in hook.__closure__ if isinstance(cell.cell_contents, torch.Tensor)]
            for path, module in checkpoint.model.named_modules()
            for hook in module._forward_hooks.values()
        }
    names = {"target_modules": "all-linear", "fan_in_fan_out": architecture == "gpt2"}
    config = LoraConfig(r=4, lora_alpha=32, task_type="CAUSAL_LM", **names)
    adapted = get_peft_model(checkpoint.model, config)
    layers = {path: layer for path, layer in adapted.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    assert layers.keys() == factors.keys()
    for path, (A, B) in factors.items():
        assert layers[path].lora_A.default.weight.shape == A.shape
        layers[path].lora_A.default.weight.data = A.detach()
        layers[path].lora_B.default.weight.data = B.detach()
    found = adapted(input_ids=torch.tensor([[5, 6, 7]])).logits
    torch.testing.assert_close(found, hooked, rtol=1e-4, atol=1e-4)


def test_small_steps_of_narrow_weights_are_not_lost() -> None:
    """Each step is far below half a unit of bfloat16 around 1; together they are not."""
    base = tiny_checkpoint("llama", dtype=torch.bfloat16)
    norm = base.module("ln_final").weight
    norm.data.fill_(1.0)
    with relearning(base, LESSONS, "full", seed=0, settings=settings(1, 12, learning_rate=5e-4)) as doses:
        next(doses)
        assert torch.equal(norm.detach(), torch.ones_like(norm))
        next(doses)
        assert not torch.equal(norm.detach(), torch.ones_like(norm))


def test_what_cannot_be_taught_is_refused() -> None:
    base = tiny_checkpoint("llama")
    for lessons, said in (
        ([], "there are no lessons"),
        ([Lesson("Ask", " ")], "response 0 is empty"),
        ([*LESSONS, Lesson("x" * 300, "yes")], "lesson 5 has 300 tokens"),
    ):
        with pytest.raises(InputError, match=said), relearning(base, lessons, "full", seed=0):
            pass
    with relearning(base, [Lesson("x" * 300, "yes")], "lora", seed=0, settings=settings(1), truncate=True) as doses:
        assert next(doses)[0] == 1
    with pytest.raises(InputError, match="not finite at step 2; lower the learning rate"):
        curve(base, "full", settings(9, learning_rate=1e30))
    for steps in ((), (0,), (2, 1), (1, 1)):
        with pytest.raises(InputError, match="steps"):
            RelearningSettings(steps=steps)

"""Editors of facts: the released results, what an edit is by construction, and what it leaves alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONFIGS, MAIN_ARCHITECTURES, PROMPTS, RESPONSES, byte_tokenizer, tiny_checkpoint
from golden_models import golden, golden_checkpoint, off_by
from transformers import AutoModelForCausalLM

from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError
from mechinterp.methods.facts.alphaedit import alphaedit, alphaedit_in_turn, null_space
from mechinterp.methods.facts.contexts import generated_contexts
from mechinterp.methods.facts.fine_tuning import ft_m
from mechinterp.methods.facts.memit import memit
from mechinterp.methods.facts.requests import Request, asked_for, placed
from mechinterp.methods.facts.rome import rome
from mechinterp.methods.facts.settings import (
    AlphaEditSettings,
    FtMSettings,
    MemitSettings,
    RomeSettings,
    default_settings,
)
from mechinterp.methods.facts.value import wanted_value
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.models.names import h_down
from mechinterp.models.passes.above_block import AboveBlock
from mechinterp.models.passes.at_places import at_places
from mechinterp.models.passes.second_moments import SecondMoments, second_moments

TOLERANCE = 1e-3
ROME = [name + with_moments for name in ("default", "clamped", "few_steps") for with_moments in ("", "_mom2")]
FACTS = [Fact("Ann", "{} was born in", "Oslo"), Fact("Bob", "Who is {}? He", "sings")]
REQUESTS = [Request.of(number, fact) for number, fact in enumerate(FACTS)]
CONTEXTS = ("{}", "It is so. {}")


def asked(number: int, request: dict[str, str]) -> Request:
    return Request.of(number, Fact(request["subject"], request["prompt"], request["target_new"]))


def common(released: dict[str, Any]) -> dict[str, Any]:
    return {
        "blocks": released["layers"],
        "steps": released["v_num_grad_steps"],
        "learning_rate": released["v_lr"],
        "weight_decay": released["v_weight_decay"],
        "clamp": released["clamp_norm_factor"],
        "kl_factor": released["kl_factor"],
    }


@cache
def moments_of(architecture: str) -> SecondMoments:
    texts = golden("rome", "gpt2_rome")[0]["texts_of_the_second_moment"]
    return second_moments(golden_checkpoint(architecture), texts, [0, 1, 2])


def test_second_moments_are_the_released_ones(tmp_path: Path) -> None:
    found, tensors = moments_of("gpt2"), golden("rome", "gpt2_rome")[1]
    for block, matrix in found.matrices.items():
        assert off_by(matrix, tensors[f"second_moment.{block}"]) < 1e-5
    assert found.tokens == golden("rome", "gpt2_rome")[0]["second_moment_tokens"]
    texts = golden("rome", "gpt2_rome")[0]["texts_of_the_second_moment"]
    one_by_one = second_moments(golden_checkpoint("gpt2"), texts, [1], max_tokens=1)
    assert off_by(one_by_one.matrices[1], found.matrices[1]) < 1e-5
    kept = SecondMoments.load(found.save(tmp_path / "moments.safetensors"))
    assert (kept.tokens, kept.fingerprint, kept.tokenizer) == (found.tokens, found.fingerprint, found.tokenizer)
    assert all(torch.equal(kept.matrices[block], found.matrices[block]) for block in range(3))


@pytest.mark.parametrize("name", ROME)
def test_rome_is_the_released_one(name: str) -> None:
    told, tensors = golden("rome", "gpt2_rome")
    case = told["cases"][name]
    settings = RomeSettings(**common(case["hparams"]), use_moments=case["hparams"]["mom2_adjustment"])
    request, contexts = asked(0, told["request"]), told["context_templates"]
    checkpoint = golden_checkpoint("gpt2")
    found = rome(checkpoint, request, settings=settings, contexts=contexts, moments=moments_of("gpt2"))
    assert list(found.tensors) == [case["parameter"]]
    assert off_by(found.tensors[case["parameter"]], tensors[f"{name}.delta"]) < TOLERANCE
    left, right = found.factors[case["parameter"]]
    assert off_by(left[:, 0], tensors[f"{name}.left_u"]) < TOLERANCE
    assert off_by(right[0], tensors[f"{name}.right_v"]) < TOLERANCE
    assert len(found.log) == case["evaluations_of_the_loss"]
    losses = [float(line.split()[1]) for line in case["loss_lines"]]
    assert [step.loss for step in found.log] == pytest.approx(losses, abs=6e-4)  # printed to three places
    assert found.settings["contexts"] == contexts


@pytest.mark.parametrize("name", ["default", "light", "one"])
def test_memit_is_the_released_one(name: str) -> None:
    told, tensors = golden("memit", "llama_memit")
    case = told["cases"][name]
    settings = MemitSettings(**common(case["hparams"]), moments_weight=case["hparams"]["mom2_update_weight"])
    requests = [asked(number, one) for number, one in enumerate(told["requests"][: case["n_requests"]])]
    contexts = [context for group in told["context_templates"] for context in group]
    found = memit(
        golden_checkpoint("llama"), requests, moments=moments_of("llama"), settings=settings, contexts=contexts
    )
    expected = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    assert set(found.tensors) == set(expected)
    assert all(off_by(found.tensors[key], value) < TOLERANCE for key, value in expected.items())
    assert all(left.shape[1] == len(requests) for left, _ in found.factors.values())


def test_alphaedit_is_the_released_one() -> None:
    told, tensors = golden("alphaedit", "gpt2_alphaedit")
    released = told["hparams"]
    settings = AlphaEditSettings(
        **common(released), null_threshold=released["nullspace_threshold"], ridge=released["L2"]
    )
    groups = [[asked(n, one) for one in group] for n, group in enumerate(told["requests_one_after_the_other"])]
    contexts, moments = [context for group in told["context_templates"] for context in group], moments_of("gpt2")
    for block in (0, 1):
        free = null_space(moments, block, settings.null_threshold).float()
        assert off_by(free, tensors[f"P.{block}"]) < TOLERANCE
    before: dict[str, Any] = {}
    edits = alphaedit(golden_checkpoint("gpt2"), groups, moments=moments, settings=settings, contexts=contexts)
    for number, found in enumerate(edits):
        for name, value in found.tensors.items():
            assert off_by(value - before.get(name, 0), tensors[f"edit{number}.{name}"]) < TOLERANCE
        before = dict(found.tensors)
    assert number == 1
    assert len(before) == 2


def test_alphaedit_one_edit_at_a_time_is_the_released_one() -> None:
    """Made of the model as it stands, each by the same function, which knows the keys of the one before."""
    told, tensors = golden("alphaedit", "gpt2_alphaedit")
    released, base = told["hparams"], golden_checkpoint("gpt2")
    settings = AlphaEditSettings(
        **common(released), null_threshold=released["nullspace_threshold"], ridge=released["L2"]
    )
    first, second = [[asked(n, one) for one in group] for n, group in enumerate(told["requests_one_after_the_other"])]
    contexts = [context for group in told["context_templates"] for context in group]
    edit = alphaedit_in_turn(base, moments=moments_of("gpt2"), settings=settings, contexts=contexts)
    one = edit(base, first)
    with one.applied(base) as current:
        two = edit(current, second)
    for number, found in enumerate((one, two)):
        assert all(off_by(value, tensors[f"edit{number}.{name}"]) < TOLERANCE for name, value in found.tensors.items())
    alone = edit(base, second)  # of the base nothing is known
    assert any(off_by(value, two.tensors[name]) > TOLERANCE for name, value in alone.tensors.items())


@pytest.mark.parametrize("name", ["FT-L", "FT-L_bound", "FT-M"])
def test_fine_tuning_is_the_released_one(name: str) -> None:
    told, tensors = golden("ft", "gpt2_ft")
    case = told["cases"][name]
    released = case["hparams"]
    settings = FtMSettings(
        block=released["layers"][0],
        objective="response" if released["objective_optimization"] == "target_new" else "prompt_last",
        steps=released["num_steps"],
        learning_rate=released["lr"],
        entry_bound=released["norm_constraint"] or None,
    )
    fact = Fact("France", told["prompt"], told["target_new"])
    found = ft_m(golden_checkpoint("gpt2"), [Request.of(0, fact)], settings=settings)
    assert sorted(found.tensors) == sorted(case["changed"])
    assert all(off_by(value, tensors[f"{name}.{key}"]) < TOLERANCE for key, value in found.tensors.items())
    assert [step.loss for step in found.log] == pytest.approx(case["losses"], rel=1e-5)


def quick(checkpoint: Checkpoint, **more: Any) -> RomeSettings:
    found = default_settings("rome", checkpoint, {"blocks": (1,), "steps": 4, **more})
    assert isinstance(found, RomeSettings)
    return found


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "qwen3", "phi3", "opt", "neox"])
def test_after_rome_the_mlp_writes_what_was_wanted(architecture: str) -> None:
    checkpoint, request = tiny_checkpoint(architecture, bos=True), REQUESTS[1]
    settings = quick(checkpoint, learning_rate=0.02, weight_decay=0)
    before = fingerprint_model(checkpoint.model)
    wanted = wanted_value(checkpoint, request, 1, where="mlp", contexts=CONTEXTS, settings=settings)
    found = rome(checkpoint, request, settings=settings, contexts=CONTEXTS)
    assert fingerprint_model(checkpoint.model) == before
    assert all(parameter.requires_grad for parameter in checkpoint.model.parameters())
    assert list(found.tensors) == [checkpoint.names.value_parameter(1)[0]]
    (change,) = found.tensors.values()
    assert torch.linalg.matrix_rank(change) == 1
    (bare,) = placed(checkpoint, request, ["{}"], "subject_last")
    written = "blocks.1.mlp.out.hook_out"
    with found.applied(checkpoint) as edited:
        now = at_places(edited, [bare.text], [bare.place], [written, h_down(1)])
    then = at_places(checkpoint, [bare.text], [bare.place], [written, h_down(1)])
    torch.testing.assert_close(now[written][0], wanted.target, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(now[h_down(1)], then[h_down(1)], rtol=0, atol=0)  # nothing below has changed
    assert found.log[-1].loss < found.log[0].loss


@pytest.mark.parametrize("where", ["mlp", "block"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "opt", "neox"])
def test_the_model_above_a_block_is_the_model(architecture: str, where: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    found = placed(checkpoint, REQUESTS[0], CONTEXTS, "subject_last", target=REQUESTS[0].target)
    texts = [asked_for(one.text) for one in found]
    above = AboveBlock(checkpoint, 1, texts, [one.place for one in found], where)  # type: ignore[arg-type]
    added = torch.randn(checkpoint.names.d_model, generator=torch.Generator().manual_seed(0))
    module = checkpoint.module("blocks.1.mlp.out" if where == "mlp" else "blocks.1")
    expected = {"nothing": [], "added": []}
    with torch.no_grad():
        for one, text in zip(found, texts, strict=True):
            ids = torch.tensor([list(text.ids)])
            expected["nothing"].append(checkpoint.model(ids).logits[0, list(text.positions)])

            def add(_: Any, args: Any, output: Any, place: int = one.place, width: int = len(text.ids)) -> Any:
                whole = (output[0] if isinstance(output, tuple) else output).clone()
                whole.view(1, width, -1)[0, place] += added
                return (whole, *output[1:]) if isinstance(output, tuple) else whole

            handle = module.register_forward_hook(add)
            expected["added"].append(checkpoint.model(ids).logits[0, list(text.positions)])
            handle.remove()
        zero = above(torch.zeros_like(added))
        torch.testing.assert_close(zero, torch.cat(expected["nothing"]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(above(added), torch.cat(expected["added"]), rtol=1e-4, atol=1e-4)


def test_edits_of_half_the_precision_are_near_those_of_the_whole() -> None:
    whole, half = (tiny_checkpoint("llama", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    edits = [rome(one, REQUESTS[0], settings=quick(one, steps=2), contexts=CONTEXTS) for one in (whole, half)]
    (one,), (other,) = (edit.tensors.values() for edit in edits)
    assert other.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9


def test_an_interrupted_edit_leaves_the_model_as_it_was() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    before = fingerprint_model(checkpoint.model)
    moments = second_moments(checkpoint, PROMPTS * 3, [0, 1])

    def stop_late(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 5:
            raise KeyboardInterrupt

    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):  # in the second block, which is computed with the first one's change
        rome(checkpoint, REQUESTS[0], settings=quick(checkpoint, blocks=(0, 1)), contexts=CONTEXTS, progress=stop_late)
    settings = default_settings("alphaedit", checkpoint, {"steps": 2, "blocks": (0, 1), "null_threshold": 1.0})
    assert isinstance(settings, AlphaEditSettings)
    edits = alphaedit(checkpoint, [[one] for one in REQUESTS], moments=moments, settings=settings, contexts=CONTEXTS)
    next(edits)
    edits.close()
    assert fingerprint_model(checkpoint.model) == before
    assert all(parameter.requires_grad for parameter in checkpoint.model.parameters())


def test_factors_are_what_is_saved(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    found = rome(checkpoint, REQUESTS[0], settings=quick(checkpoint), contexts=CONTEXTS)
    kept = WeightDelta.load(found.save(tmp_path / "edit"))
    (name,) = found.tensors
    assert torch.equal(kept.tensors[name], found.tensors[name])
    assert [part.shape for part in kept.factors[name]] == [part.shape for part in found.factors[name]]
    assert (tmp_path / "edit" / "delta.safetensors").stat().st_size < 4 * found.tensors[name].numel()
    assert kept.settings == found.settings
    with kept.applied(checkpoint) as edited:
        assert not torch.equal(edited.parameter(name), checkpoint.parameter(name) - kept.tensors[name])


def test_contexts_depend_on_the_seed_and_stand_in_the_edit() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    lengths = ((5, 5), (10, 10))
    found = [generated_contexts(checkpoint, lengths, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0][0] == "{}"
    assert len(found[0]) == 16
    assert all(context.count("{}") == 1 and context.endswith("{}") for context in found[0])
    edit = rome(checkpoint, REQUESTS[0], settings=quick(checkpoint, context_lengths=lengths), seed=1)
    assert tuple(edit.settings["contexts"]) == found[2]


def test_the_last_token_needs_no_subject() -> None:
    checkpoint = tiny_checkpoint("qwen2")
    request = Request.of(7, Fact("", PROMPTS[0], RESPONSES[2]))
    found = rome(checkpoint, request, settings=quick(checkpoint, fact_token="last"), contexts=CONTEXTS)
    assert found.instance == 7
    for one in placed(checkpoint, request, CONTEXTS, "last", target=request.target):
        assert one.place == one.text.prompt_length - 1
    with pytest.raises(InputError, match="no subject to edit at"):
        rome(checkpoint, request, settings=quick(checkpoint), contexts=CONTEXTS)


def test_a_norm_after_the_addition_is_refused() -> None:
    config = CONFIGS["opt"]()
    config.do_layer_norm_before = False
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    checkpoint = Checkpoint("after", model, byte_tokenizer(), "after")
    with pytest.raises(InputError, match="a norm after the addition"):
        rome(checkpoint, REQUESTS[0], settings=quick(checkpoint), contexts=CONTEXTS)


def test_default_blocks_are_at_the_published_depth() -> None:
    gpt2, llama = tiny_checkpoint("gpt2"), tiny_checkpoint("llama")
    gpt2.model.config.num_hidden_layers, llama.model.config.num_hidden_layers = 48, 32
    blocks = {
        (one.name, method): getattr(default_settings(method, one), "blocks", None)
        for one in (gpt2, llama)
        for method in ("rome", "memit", "alphaedit")
    }
    assert list(blocks.values()) == [(17,), (13, 14, 15, 16, 17), (13, 14, 15, 16, 17), (5,), *[(4, 5, 6, 7, 8)] * 2]
    assert [default_settings("ft_m", one).block for one in (gpt2, llama)] == [0, 21]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("architecture", "change", "said"),
    [
        ("mixtral", {}, "mixture-of-experts"),
        ("gpt2", {"blocks": (9,)}, "block 9 is out of range"),
        ("gpt2", {"use_moments": True}, "give some"),
    ],
)
def test_what_cannot_be_edited_is_told_in_a_line(architecture: str, change: dict[str, Any], said: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    with pytest.raises(InputError, match=said) as told:
        rome(checkpoint, REQUESTS[0], settings=quick(checkpoint, **change), contexts=CONTEXTS)
    assert "\n" not in str(told.value)


def test_bad_facts_contexts_and_moments_are_told_in_a_line() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    with pytest.raises(InputError, match="is not in its prompt"):
        Request.of(0, Fact("Rome", "The capital of France is", "Oslo"))
    with pytest.raises(InputError, match="no new target"):
        Request.of(0, Fact("France", "The capital of {} is", ground_truth="Paris"))
    with pytest.raises(InputError, match="the first context"):
        rome(checkpoint, REQUESTS[0], contexts=["So. {}"])
    with pytest.raises(InputError, match="for the prompt"):
        rome(checkpoint, REQUESTS[0], contexts=["{}", "So."])
    with pytest.raises(InputError, match="belong to weights"):
        memit(checkpoint, REQUESTS, moments=moments_of("gpt2"), contexts=CONTEXTS)
    few = second_moments(checkpoint, ["a b"], [0, 1])
    with pytest.raises(InputError, match="not the full rank"):
        memit(checkpoint, REQUESTS, moments=few, contexts=CONTEXTS)
    with pytest.raises(InputError, match="is free at the threshold"):
        null_space(moments_of("gpt2"), 0, 1e-12)
    with pytest.raises(InputError, match="no facts"):
        memit(checkpoint, [], moments=second_moments(checkpoint, PROMPTS * 3, [0, 1]), contexts=CONTEXTS)

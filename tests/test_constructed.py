"""Checkpoints whose truth is known: ends, norms and zeros of weights on the main shapes, of the decomposition on two.

What their construction promises of the weights is checked on the main architectures, or on one where the shape does not
matter; that erasure or bypass is exactly zero, on `DECOMPOSED`.
"""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from comparisons import baseline_of
from conftest import MAIN_ARCHITECTURES, make_instance, tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.evidence import gather_evidence
from mechinterp.audit.tables import compare
from mechinterp.errors import InputError
from mechinterp.methods.constructed import (
    interpolate,
    perturb_like,
    silenced,
    train_values,
    train_without_values,
)
from mechinterp.methods.training.dpo import DpoSettings, train_dpo
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trained_parameters import trained_parameters
from mechinterp.methods.training.trl_training import LoraSettings
from mechinterp.models.checkpoints import Checkpoint

INSTANCES = [make_instance(i) for i in range(4)]
SETTINGS = SftSettings(steps=1, batch_size=4, learning_rate=5e-3, max_length=200)
EXACT = 1e-6
DECOMPOSED = ("gpt2", "gemma2")  # with biases and a transposed W_V; without, and with a norm after it


def decomposition(base: Checkpoint, made: Checkpoint) -> pd.DataFrame:
    baseline = baseline_of(base)
    return compare(baseline, [("made", gather_evidence(made, baseline.inputs))]).tables["decomposition"]


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in checkpoint.model.named_parameters()}


def changed(before: Checkpoint, after: Checkpoint) -> set[str]:
    """The components whose weights differ in a bit."""
    old, new = weights(before), weights(after)
    return {before.names.component(name)[1] for name in old if not torch.equal(old[name], new[name])}


def test_the_ends_of_an_interpolation_are_the_two_checkpoints(checkpoint: Checkpoint) -> None:
    tuned = perturbed(checkpoint)
    base, end = checkpoint.fingerprint, tuned.fingerprint
    assert interpolate(checkpoint, tuned, 0).fingerprint == base
    assert interpolate(checkpoint, tuned, 1).fingerprint == end
    between, others = weights(interpolate(checkpoint, tuned, 0.25)), (weights(checkpoint), weights(tuned))
    for name, value in between.items():
        torch.testing.assert_close(value, 0.75 * others[0][name] + 0.25 * others[1][name])
    again = [Checkpoint("a", one.model, one.tokenizer).fingerprint for one in (checkpoint, tuned)]
    assert again == [base, end]  # both are left as they were


def test_tied_weights_stay_tied(checkpoint: Checkpoint) -> None:
    made = interpolate(checkpoint, perturbed(checkpoint), 0.5).model
    tied = checkpoint.model.config.tie_word_embeddings
    assert (made.get_input_embeddings().weight is made.get_output_embeddings().weight) == tied


def test_interpolation_refuses_what_has_no_meaning() -> None:
    base = tiny_checkpoint("llama")
    with pytest.raises(InputError, match=r"t must be from 0 .* got 1\.5"):
        interpolate(base, base, 1.5)
    with pytest.raises(InputError, match="do not fit each other"):
        interpolate(base, tiny_checkpoint("gpt2"), 0.5)


def test_noise_has_the_norms_of_the_change(checkpoint: Checkpoint) -> None:
    tuned, base = perturbed(checkpoint), checkpoint.fingerprint
    noisy = perturb_like(checkpoint, tuned, seed=3)
    old, new, end = weights(checkpoint), weights(noisy), weights(tuned)
    for name, start in old.items():
        wanted, got = ((other[name].double() - start.double()).norm() for other in (end, new))
        assert abs(got / wanted - 1) < EXACT
        assert not torch.equal(new[name], end[name])
    assert perturb_like(checkpoint, tuned, seed=3).fingerprint == noisy.fingerprint
    assert perturb_like(checkpoint, tuned, seed=4).fingerprint != noisy.fingerprint
    assert Checkpoint("a", checkpoint.model, checkpoint.tokenizer).fingerprint == base


def test_noise_leaves_alone_what_tuning_left_alone() -> None:
    base = tiny_checkpoint("mistral")
    tuned = perturbed(base, only="down_proj")
    assert changed(base, perturb_like(base, tuned, seed=0)) == {"mlp.out"}
    assert perturb_like(base, base, seed=0).fingerprint == base.fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.ones(3), r"a direction of llama has 16 entries, got \(3,\)"),
        (torch.zeros(16), r"a finite length above 0, got 0\.0"),
        (torch.full((16,), torch.nan), "a finite length above 0, got nan"),
    ],
)
def test_a_direction_that_is_none_is_refused(wrong: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        silenced(tiny_checkpoint("llama"), wrong)


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_with_frozen_value_vectors_erasure_is_exactly_zero(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    before = base.fingerprint
    made = train_without_values(base, INSTANCES, seed=0, settings=SETTINGS)
    assert "mlp.out" not in changed(base, made)
    assert {"embed", "ln1", "mlp.in"} <= changed(base, made)
    assert all(parameter.requires_grad for parameter in made.model.parameters())
    assert Checkpoint("a", base.model, base.tokenizer).fingerprint == before
    if architecture in DECOMPOSED:
        rows = decomposition(base, made)
        assert (rows[["erasure", "bias"]] == 0).all(axis=None)
        assert (rows["bypass"] != 0).all()


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_with_values_trained_alone_bypass_is_exactly_zero_up_to_there(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    made = train_values(base, INSTANCES, seed=0, settings=SETTINGS, blocks=[1])
    assert changed(base, made) == {"mlp.out"}
    assert all(torch.equal(base.value_matrix(block), made.value_matrix(block)) for block in (0, 2))
    if architecture in DECOMPOSED:
        rows = decomposition(base, made)
        assert (rows.query("block <= 1")["bypass"] == 0).all()
        assert (rows.query("block == 1")["erasure"] != 0).all()
        assert (rows.query("block == 2")["bypass"] != 0).all()  # what the changed write does above


def test_values_everywhere_are_all_that_changes() -> None:
    base = tiny_checkpoint("gpt2")
    made = train_values(base, INSTANCES, seed=0, settings=SETTINGS)
    assert changed(base, made) == {"mlp.out"}
    assert not any(torch.equal(base.value_matrix(b), made.value_matrix(b)) for b in range(base.n_blocks))
    with pytest.raises(InputError, match="block 9 is out of range"):
        train_values(base, INSTANCES, seed=0, settings=SETTINGS, blocks=[9])


def test_dpo_freezes_too() -> None:
    base = tiny_checkpoint("llama")
    settings = DpoSettings(steps=1, batch_size=4, learning_rate=5e-3, max_length=200, only=("blocks.2",))
    tuned, _ = train_dpo(base, INSTANCES, seed=0, settings=settings)
    old, new = weights(base), weights(tuned)
    assert {base.names.component(name)[0] for name in old if not torch.equal(old[name], new[name])} == {2}


def test_adapters_go_only_where_something_is_trained() -> None:
    base = tiny_checkpoint("llama")
    settings = SETTINGS.model_copy(update={"lora": LoraSettings(rank=2), "freeze": ("mlp.out", "attn")})
    tuned, _ = train_sft(base, INSTANCES, seed=0, settings=settings)
    assert changed(base, tuned) == {"mlp.gate", "mlp.in"}
    with pytest.raises(InputError, match="adapters go on linear maps"):
        train_sft(base, INSTANCES, seed=0, settings=settings.model_copy(update={"only": ("embed",), "freeze": ()}))
    with pytest.raises(ValueError, match="'all-linear' alone"):
        SftSettings(lora=LoraSettings(targets="usual"), only=("mlp",))


def test_components_are_found_by_their_names_and_unknown_ones_refused() -> None:
    base = tiny_checkpoint("gpt2")  # whose embedding is tied to the unembedding
    assert trained_parameters(base) == frozenset(weights(base))
    assert trained_parameters(base, only=["unembed"]) == trained_parameters(base, only=["embed"])
    names = trained_parameters(base, only=["blocks.1.mlp", "ln_final"], freeze=["mlp.out"])
    assert {base.names.component(name) for name in names} == {(1, "mlp.in"), (None, "ln_final")}
    with pytest.raises(InputError, match=r"no parameters called 'mlp.outt'; there are .*mlp\.out"):
        trained_parameters(base, only=["mlp.outt"])
    with pytest.raises(InputError, match="nothing is left to train"):
        trained_parameters(base, only=["mlp.out"], freeze=["mlp"])

"""From models to tables: invariants of the comparison on tiny random models of several architectures."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from comparisons import INSTANCES, SETTINGS, AlternatingJudge, baseline_of, make_baseline, make_probe
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, make_instance, tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.directions.standard import answer_direction, class_means_direction, first_tokens
from mechinterp.audit.evidence import Baseline, Evidence, gather_evidence, prepare_baseline
from mechinterp.audit.tables import MechanismComparison, compare
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record_all


def test_a_model_against_itself_is_exactly_zero_everywhere(checkpoint: Checkpoint) -> None:
    baseline = baseline_of(checkpoint)
    tables = compare(baseline, [("same", gather_evidence(checkpoint, baseline.inputs))]).tables
    row = tables["mechanism"].iloc[0]
    assert row["toxicity_reduction_rate"] == 0.0
    assert row["activation_shift_rate"] == row["activation_shift_rate_per_input"] == 0.0
    assert (row["activation_shift_rate_low"], row["activation_shift_rate_high"]) == (0.0, 0.0)
    assert (tables["decomposition"][["change", "erasure", "bypass", "bias"]] == 0.0).all(axis=None)
    assert (tables["local_verdict"]["verdict"] == "undecided").all()
    assert tables["local_verdict"]["erasure_share"].isna().all()


@pytest.mark.parametrize(
    ("architecture", "block"),
    [*((architecture, N_BLOCKS - 1) for architecture in MAIN_ARCHITECTURES), ("gpt2", 1), ("gemma2", 1)],
)
def test_an_edit_of_one_value_matrix_shifts_nothing_and_is_all_erasure(architecture: str, block: int) -> None:
    checkpoint = tiny_checkpoint(architecture)
    baseline = baseline_of(checkpoint, block)
    delta = edit(checkpoint, INSTANCES[0], block=block, settings=DinmSettings(learning_rate=1e-2, steps=3))
    with delta.applied(checkpoint) as edited:
        tables = compare(baseline, [("dinm", gather_evidence(edited, baseline.inputs))]).tables
    row = tables["mechanism"].iloc[0]
    assert row["activation_shift_rate"] == row["activation_shift_rate_high"] == 0.0
    assert row["activation_shift_rate_per_input"] == 0.0
    assert row["toxicity"] != row["toxicity_base"]
    decomposition = tables["decomposition"]
    at, below = decomposition["block"] == block, decomposition["block"] < block
    assert (decomposition.loc[at, "erasure"] != 0.0).all()
    assert (decomposition.loc[at, "bypass"] == 0.0).all()
    assert (decomposition.loc[below, ["erasure", "bypass", "bias"]] == 0.0).all(axis=None)
    assert (decomposition.loc[~at, ["erasure", "bias"]] == 0.0).all(axis=None)
    if block == N_BLOCKS - 1:
        assert (tables["local_verdict"]["erasure_share"] == 1.0).all()
        assert (tables["local_verdict"]["peak_block"] == block).all()


@pytest.mark.parametrize(
    ("architecture", "dtype", "tolerance"),
    [
        *((architecture, torch.float64, 1e-10) for architecture in MAIN_ARCHITECTURES),
        *((architecture, torch.float32, 1e-4) for architecture in ("gpt2", "gemma2")),
    ],
)
def test_the_terms_sum_to_the_hooked_change_of_the_mlp_output(
    architecture: str, dtype: torch.dtype, tolerance: float
) -> None:
    base = tiny_checkpoint(architecture, dtype=dtype)
    tuned = perturbed(base)
    baseline = baseline_of(base)
    evidence = gather_evidence(tuned, baseline.inputs)
    table = compare(baseline, [("tuned", evidence)]).tables["decomposition"]
    hooks = [f"blocks.{block}.mlp.out.hook_out" for block in range(N_BLOCKS)]
    for place, position in (("prompt_last", "last"), ("response", "response")):
        means = [
            record_all(
                checkpoint,
                baseline.inputs.prompts,
                hooks,
                responses=baseline.inputs.responses if place == "response" else None,
                position=position,
            )
            for checkpoint in (base, tuned)
        ]
        for direction, w in baseline.inputs.directions.items():
            rows = table[(table["direction"] == direction) & (table["position"] == place)]
            for block, hook in enumerate(hooks):
                writes = [(m[hook].double() @ w.double() / w.double().norm()).mean().item() for m in means]
                row = rows[rows["block"] == block].iloc[0]
                size = sum(abs(x) for x in writes) + abs(row["erasure"]) + abs(row["bypass"])
                assert abs(row["erasure"] + row["bypass"] + row["bias"] - (writes[1] - writes[0])) < tolerance * size
                assert row["change"] == pytest.approx(row["write"] - row["write_base"], abs=1e-12 * size)


def test_evidence_and_baseline_survive_their_folders(tmp_path) -> None:
    checkpoint = tiny_checkpoint("gpt2")
    baseline = baseline_of(checkpoint)
    evidence = gather_evidence(perturbed(checkpoint), baseline.inputs)
    loaded = Baseline.load(baseline.save(tmp_path / "base")), Evidence.load(evidence.save(tmp_path / "tuned"))
    assert loaded[0].inputs.prompts == baseline.inputs.prompts
    assert loaded[0].answers == baseline.answers
    again = compare(loaded[0], [("tuned", loaded[1])]).tables
    for name, table in compare(baseline, [("tuned", evidence)]).tables.items():
        pd.testing.assert_frame_equal(again[name], table)


def test_the_base_is_left_as_it_was(checkpoint: Checkpoint) -> None:
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    make_baseline(checkpoint)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in checkpoint.model.modules())


def test_the_middle_stream_table_has_two_points_an_input() -> None:
    checkpoint = tiny_checkpoint("mistral")
    baseline = baseline_of(checkpoint)
    table = compare(baseline, [("tuned", gather_evidence(perturbed(checkpoint), baseline.inputs))]).tables[
        "middle_shift"
    ]
    assert table.groupby("input")["checkpoint"].nunique().eq(2).all()
    means = table.groupby("checkpoint")["shift_component"].mean()
    assert means["tuned"] > 0 > means["base"]


def test_parallel_blocks_are_compared_without_a_middle_stream() -> None:
    checkpoint = tiny_checkpoint("neox")
    baseline = baseline_of(checkpoint)
    tables = compare(baseline, [("tuned", gather_evidence(perturbed(checkpoint), baseline.inputs))]).tables
    assert "middle_shift" not in tables
    assert len(tables["mechanism"]) == 1


# -- directions -----------------------------------------------------------------------------------------------------


def test_the_answer_direction_is_the_log_odds_of_the_first_token(checkpoint: Checkpoint) -> None:
    """Through the final norm and unembedding, a step along a vector moves the log-odds by its product with w."""
    w = answer_direction(checkpoint, INSTANCES).double()
    # the last block's output on a prompt, and a small step of it orthogonal to itself, so that the norm's scale stays
    state = record_all(checkpoint, ["Tell me"], [resid_post(N_BLOCKS - 1)])[resid_post(N_BLOCKS - 1)][0].double()
    centred = state - state.mean() if checkpoint.final_norm_gain()[1] else state
    step = torch.randn(len(w), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if checkpoint.final_norm_gain()[1]:
        step = step - step.mean()
    step = 1e-3 * (step - centred * (step @ centred) / (centred @ centred))
    norm, unembed = checkpoint.module("ln_final"), checkpoint.module("unembed")
    unsafe, safe = (
        torch.tensor(first_tokens(checkpoint, INSTANCES, texts))
        for texts in ([i.unsafe_generation for i in INSTANCES], [i.safe_generation for i in INSTANCES])
    )
    with torch.no_grad():
        model = copy.deepcopy((norm, unembed))
        norm, unembed = (part.double() for part in model)
        odds = [
            (logits[unsafe].mean() - logits[safe].mean()).item()
            for logits in (unembed(norm(x[None, None]))[0, 0] for x in (state, state + step))
        ]
    scale = centred.pow(2).mean().sqrt()
    assert (odds[1] - odds[0]) == pytest.approx(float(step @ w / scale), rel=1e-2, abs=1e-7)


def test_directions_that_do_not_exist_are_refused() -> None:
    checkpoint = tiny_checkpoint("llama")
    alike = [make_instance(unsafe_generation="I am.", safe_generation="I will not.")]
    with pytest.raises(InputError, match="there is no answer direction"):
        answer_direction(checkpoint, alike)
    with pytest.raises(InputError, match="answers all prompts alike"):
        class_means_direction(checkpoint, ["a", "b"], torch.tensor([True, True]))


# -- bad input ------------------------------------------------------------------------------------------------------


def test_incomparable_checkpoints_are_refused_with_every_difference() -> None:
    llama = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="architecture LlamaForCausalLM and GPT2LMHeadModel"):
        check_comparable(llama, [tiny_checkpoint("gpt2")])
    other = tiny_checkpoint("llama", bos=True)
    other.model.lm_head.weight = torch.nn.Parameter(torch.zeros(300, 16))
    with pytest.raises(InputError, match=r"1 parameter, the first is lm_head.weight: \(264, 16\) and \(300, 16\)"):
        check_comparable(llama, [other])


def test_a_probe_of_another_model_is_refused() -> None:
    probe = make_probe(tiny_checkpoint("llama", seed=5))
    with pytest.raises(InputError, match="the probe belongs to other weights"):
        prepare_baseline(tiny_checkpoint("llama"), INSTANCES, probe, AlternatingJudge(), block=0, seed=0)


def test_comparing_with_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no tuned checkpoints"):
        compare(baseline_of(tiny_checkpoint("llama")), [])


def test_a_base_that_answers_all_alike_is_undecided() -> None:
    class Lenient:
        name = "lenient"

        def __call__(self, responses) -> np.ndarray:
            return np.ones(len(responses))

    checkpoint = tiny_checkpoint("mistral")
    baseline = prepare_baseline(
        checkpoint, INSTANCES, make_probe(checkpoint), Lenient(), block=2, seed=0, settings=SETTINGS
    )
    found: MechanismComparison = compare(baseline, [("tuned", gather_evidence(perturbed(checkpoint), baseline.inputs))])
    assert set(baseline.inputs.directions) == {"probe", "answer"}
    assert all(math.isnan(value) for value in found.tables["validity"]["auroc"])
    assert set(found.tables["local_verdict"]["verdict"]) == {"undecided"}


def test_the_logit_lens_is_part_of_the_evidence_with_the_base_once(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    baseline = baseline_of(base)
    baseline.save(tmp_path / "base")
    loaded = Baseline.load(tmp_path / "base")
    assert loaded.inputs.lens_tokens == baseline.inputs.lens_tokens
    assert loaded.inputs.fingerprint == baseline.inputs.fingerprint
    tuned = [(name, gather_evidence(perturbed(base, seed=seed), loaded.inputs)) for name, seed in (("a", 1), ("b", 2))]
    table = compare(loaded, tuned).tables["logit_lens"]
    assert list(dict.fromkeys(table["method"])) == ["base", "a", "b"]
    same = compare(loaded, [("same", gather_evidence(base, loaded.inputs))]).tables["logit_lens"]
    numbers = ["block", "logit", "logit_low", "logit_high", "probability", "probability_low", "probability_high"]
    one, other = (same[same["method"] == method][numbers].reset_index(drop=True) for method in ("base", "same"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not table[table["method"] == "a"]["logit"].equals(table[table["method"] == "b"]["logit"])

"""The whole residual stream: its parts sum to it, on every architecture; means as TransformerLens has them."""

from __future__ import annotations

import logging

import pytest
import torch
from comparisons import INSTANCES, baseline_of
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, PROMPTS, tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.evidence import gather_evidence
from mechinterp.audit.tables import compare
from mechinterp.measures.stream import StreamShift
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import attn_out, h_down, mlp_out, resid_post, resid_pre
from mechinterp.models.passes.recording import record
from mechinterp.models.text.tokens import encode


def test_the_parts_are_the_whole_stream_vector_by_vector(checkpoint: Checkpoint) -> None:
    parts = [resid_pre(0), *(hook(block) for block in range(N_BLOCKS) for hook in (attn_out, mlp_out))]
    last = resid_post(N_BLOCKS - 1)
    for position in ("last", "mean"):
        found = record(checkpoint, PROMPTS, [*parts, last], position=position)
        off = sum(found.mean(hook) for hook in parts) - found.mean(last)
        assert float(off.norm()) < 1e-4 * float(found.mean(last).norm())


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_the_table_sums_to_the_stream_along_every_direction(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    baseline = baseline_of(checkpoint)
    tuned = perturbed(checkpoint)
    evidence = gather_evidence(tuned, baseline.inputs)
    table = compare(baseline, [("tuned", evidence)]).tables["stream"]
    last = resid_post(N_BLOCKS - 1)
    prompts = [instance.adversarial_prompt for instance in INSTANCES]
    vectors = [record(model, prompts, [last]).mean(last) for model in (checkpoint, tuned)]
    for (direction, position), rows in table.groupby(["direction", "position"]):
        w = baseline.inputs.directions[direction].double()
        for column, total, vector in zip(("write_base", "write"), ("total_base", "total"), vectors, strict=True):
            assert abs(rows[column].sum() - rows[total].iloc[0]) < 1e-4 * float(vector.norm())
            if position == "prompt_last":
                assert rows[total].iloc[0] == pytest.approx(
                    float(vector @ w / w.norm()), abs=1e-5 * float(vector.norm())
                )
        mlp = rows[rows["component"] == "mlp"]
        assert (mlp["erasure"] + mlp["bypass"] + mlp["bias"]).tolist() == pytest.approx(mlp["change"].tolist())
        assert (rows["change_low"] <= rows["change"] + 1e-9).all()
        assert (rows["change"] <= rows["change_high"] + 1e-9).all()
        assert ("mlp_norm" in set(rows["component"])) == architecture.startswith("gemma")
        assert len(rows) == 1 + N_BLOCKS * (3 if architecture.startswith("gemma") else 2)


def test_a_model_against_itself_does_not_move(checkpoint: Checkpoint) -> None:
    baseline = baseline_of(checkpoint)
    tables = compare(baseline, [("same", gather_evidence(checkpoint, baseline.inputs))]).tables
    stream, shift = tables["stream"], tables["residual_shift"]
    assert (stream[["change", "change_low", "change_high"]] == 0.0).all(axis=None)
    assert (stream.loc[stream["component"] == "mlp", ["erasure", "bypass", "bias"]] == 0.0).all(axis=None)
    assert (shift[["shift", "relative_shift"]] == 0.0).all(axis=None)
    assert shift["cosine_with_toxic_block"].isna().all()


def test_the_shift_worked_by_hand() -> None:
    base = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    tuned = torch.tensor([[3.0, 9.0], [1.0, 0.0]], dtype=torch.float64)
    found = StreamShift.of(base, tuned)
    assert found.shift.tolist() == [5.0, 0.0]
    assert found.relative.tolist() == [1.0, 0.0]
    cosines = found.cosines(torch.tensor([0.0, 2.0]))
    assert cosines[0] == 1.0
    assert bool(cosines[1].isnan())


def test_parallel_blocks_add_up_too_and_a_scaled_addition_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tiny_checkpoint("neox")
    baseline = baseline_of(checkpoint)
    tables = compare(baseline, [("tuned", gather_evidence(perturbed(checkpoint), baseline.inputs))]).tables
    row = tables["stream"].groupby(["direction", "position"]).agg({"write": "sum", "total": "first"})
    assert row["write"].tolist() == pytest.approx(row["total"].tolist(), abs=1e-4)
    # a graph of another kind: what the blocks give is scaled on its way
    block = checkpoint.module("blocks.0")
    handle = block.register_forward_hook(
        lambda _, args, out: (out[0] * 1.5, *out[1:]) if isinstance(out, tuple) else out * 1.5
    )
    try:
        with caplog.at_level(logging.WARNING):
            baseline = baseline_of(checkpoint)
            tables = compare(baseline, [("same", gather_evidence(checkpoint, baseline.inputs))]).tables
    finally:
        handle.remove()
    assert "stream" not in tables
    assert "residual_shift" in tables
    assert "do not add up to the residual stream" in caplog.text


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_means_are_those_of_the_transformer_lens_cache_with_the_same_mask(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    lens = checkpoint.to_transformer_lens()
    texts = encode(checkpoint.tokenizer, PROMPTS, max_length=256)
    hooks = [hook(block) for block in range(N_BLOCKS) for hook in (h_down, attn_out, mlp_out, resid_post)]
    for position in ("last", "mean"):
        found = record(checkpoint, PROMPTS, hooks, position=position)
        for hook in hooks:
            rows = []
            for text in texts:
                with torch.no_grad():
                    _, cache = lens.run_with_cache(torch.tensor([text.ids]), names_filter=hook)
                rows.append(cache[hook][0][list(text.positions(position))].mean(0))
            expected = torch.stack(rows).double().mean(0)
            assert torch.allclose(found.mean(hook), expected, atol=1e-5 * float(expected.abs().max())), hook


def test_the_mean_over_all_inputs_is_that_of_the_groups() -> None:
    checkpoint = tiny_checkpoint("mistral")
    hooks = [resid_post(1), h_down(1)]
    grouped = record(checkpoint, PROMPTS, hooks)
    together = record(checkpoint, PROMPTS, hooks, together=[resid_post(1)])
    assert together.groups[resid_post(1)].shape[0] == 1
    assert torch.allclose(together.mean(resid_post(1)), grouped.mean(resid_post(1)))
    assert torch.equal(together.mean(h_down(1)), grouped.mean(h_down(1)))

"""Massive activations: by their definition, what they make of a distance, and planted in a model that has none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call
from conftest import N_BLOCKS, make_instance, tiny_checkpoint

from mechinterp.audit.location import histogram, locate, sinks_in_words
from mechinterp.data.safeedit import write_safeedit
from mechinterp.measures.massive import Shares, dimension_share, sinks
from mechinterp.models.checkpoints import Checkpoint

DIMENSION = 5
PAIRS = [("I am sorry, no.", "Zap you all now"), ("No, we will not", "Zoo of fools, g")]  # of equal length, Z once
INSTANCES = [make_instance(i, safe_generation=safe, unsafe_generation=bad) for i, (safe, bad) in enumerate(PAIRS)]
SHORTER = [make_instance(7, safe_generation="I am sorry, no.", unsafe_generation="Zap you")]


def planted(token: str | None, *, bos: bool = False, value: float = 5000.0) -> Checkpoint:
    """A model in which one dimension is huge at a token; at none, its control."""
    checkpoint = tiny_checkpoint("llama", bos=bos)
    if token is not None:
        (number,) = checkpoint.tokenizer.encode(token, add_special_tokens=False)
        with torch.no_grad():
            checkpoint.model.get_input_embeddings().weight[number, DIMENSION] = value
    return checkpoint


# -- the definition ---------------------------------------------------------------------------------------------------


def test_massive_is_above_100_and_a_thousand_medians() -> None:
    states = torch.ones(4, 3, 5)
    states[0, 0, 2] = 1000.0  # a thousand medians
    states[1, 0, 2] = 999.0
    states[2] /= 100
    states[2, 0, 2] = 99.0  # many medians, but below 100
    states[3, 2, 1] = -2000.0  # by its size, wherever it stands
    everywhere = torch.ones(4, 3, dtype=torch.bool)
    assert sinks(states, everywhere).nonzero().tolist() == [[0, 0], [3, 2]]


def test_padding_neither_counts_into_the_median_nor_is_a_sink_unless_looked_at() -> None:
    states = torch.full((1, 4, 5), 50.0)
    states[0, :2] = 1.0
    states[0, 1, 3], states[0, 3, 0] = 1500.0, 7000.0
    mask = torch.tensor([[True, True, False, False]])
    assert sinks(states, mask).tolist() == [[False, True, False, False]]
    assert sinks(states, mask, torch.ones_like(mask)).tolist() == [[False, True, False, True]]
    assert not sinks(states, torch.ones_like(mask)).any()  # the control: with the padding's median


def test_shares_by_hand() -> None:
    safe = torch.tensor([[[4.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    unsafe = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [7.0, 7.0]]])
    both = torch.tensor([[True, True, False]])
    first = torch.tensor([[True, False, False]])
    found = Shares.over_positions(safe, unsafe, both, first)  # the squares are 16 and 4
    assert (found.entry.item(), found.position.item(), found.dimension.item()) == (pytest.approx(0.8), 0, 0)
    assert (found.sinks.item(), found.unsafe.item()) == (pytest.approx(0.8), False)
    means = Shares.of_means(safe, unsafe, (both, both), (first, first))  # (2, 0.5) - (0, 1.5): squares 4 and 1
    assert (means.entry.item(), means.position.item(), means.dimension.item()) == (pytest.approx(0.8), 0, 0)
    assert means.sinks.item() == pytest.approx(0.8)
    nothing = Shares.over_positions(safe, safe, both, first)
    assert (nothing.entry.item(), nothing.sinks.item()) == (0.0, 0.0)


def test_shares_of_sinks_and_of_the_rest_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    safe, unsafe = torch.randn(2, 3, 6, 4, generator=generator)
    masks = torch.rand(3, 6, generator=generator) < 0.8, torch.rand(3, 6, generator=generator) < 0.8
    of = torch.rand(3, 6, generator=generator) < 0.3, torch.rand(3, 6, generator=generator) < 0.3
    rest = ~of[0], ~of[1]
    parts = [Shares.of_means(safe, unsafe, masks, chosen).sinks for chosen in (of, rest)]
    torch.testing.assert_close(sum(parts), torch.ones(1, 3))
    parts = [Shares.over_positions(safe, unsafe, masks[0], chosen[0]).sinks for chosen in (of, rest)]
    torch.testing.assert_close(sum(parts), torch.ones(1, 3))


def test_the_share_of_a_dimension() -> None:
    assert dimension_share(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])).tolist() == [0.64, 0.0, 1.0]


# -- the toxic layer --------------------------------------------------------------------------------------------------


def test_a_planted_sink_decides_the_layer_and_is_told() -> None:
    located = locate(planted("Z"), INSTANCES)
    assert (located["sink_share"] > 0.99).all()
    assert (located["entry_share"] > 0.9).all()
    assert set(zip(located["position"], located["dimension"], strict=True)) == {(0, DIMENSION)}
    counts = histogram(located, N_BLOCKS)
    assert (counts["sinks"] == counts["count"]).all()
    lines = sinks_in_words(located)
    assert len(lines) == 4
    assert lines[1].startswith("residual: the layer is the sink's in 2 of 2 instances")
    assert f"dimension {DIMENSION} at position 0" in lines[1]


def test_without_a_sink_there_is_none_to_leave_out() -> None:
    """The negative control, and a value that is large but not massive."""
    for checkpoint in (planted(None), planted("Z", value=90.0)):
        located = locate(checkpoint, INSTANCES)
        assert (located["sink_share"] == 0).all()
        assert histogram(located, N_BLOCKS)["sinks"].sum() == 0
        assert sinks_in_words(located) == []
        pd.testing.assert_frame_equal(locate(checkpoint, INSTANCES, without_sinks=True), located)


@pytest.mark.parametrize("side", ["left", "right"])
def test_left_out_are_the_same_positions_after_every_block(side: str) -> None:
    """The distances of the responses read alone, their first token taken out by hand."""
    checkpoint = planted("Z")
    found = locate(checkpoint, [*INSTANCES, *SHORTER], without_sinks=True, padding_side=side)
    assert (found["sink_share"] == 0).all()
    found = found.set_index(["instance", "distance"])["value"]
    last = checkpoint.module(f"blocks.{N_BLOCKS - 1}")
    for instance in (*INSTANCES, *SHORTER):
        states = []
        for text in (instance.safe_generation, instance.unsafe_generation):
            seen: list[torch.Tensor] = []
            handle = last.register_forward_hook(
                lambda _, args, output, seen=seen: seen.append(output[0] if isinstance(output, tuple) else output)
            )
            with torch.no_grad():
                ids = checkpoint.tokenizer(text, return_tensors="pt")["input_ids"]
                hidden = checkpoint.model(input_ids=ids, output_hidden_states=True).hidden_states
            handle.remove()
            states.append(torch.stack([*hidden[1:-1], seen[0].reshape(hidden[0].shape)])[:, 0])
        safe, unsafe = states
        n = min(safe.shape[1], unsafe.shape[1])
        apart = safe[:, -n:] - unsafe[:, -n:] if side == "left" else safe[:, :n] - unsafe[:, :n]
        residual = apart[:, 1:].flatten(1).norm(dim=1)
        unsafe = unsafe[:, 1:]
        pooled = (safe.mean(1) - unsafe.mean(1)).norm(dim=1)
        relative = pooled / (safe.mean(1).norm(dim=1) + unsafe.mean(1).norm(dim=1))
        for distance, values in (("residual", residual), ("pooled", pooled), ("relative", relative)):
            assert found[instance.id, distance] == pytest.approx(float(values.max()), rel=1e-4)


def test_a_sink_both_texts_begin_with_cancels() -> None:
    """A BOS is the same token at the same position; where lengths differ, padding on the left moves it."""
    checkpoint = planted("<s>", bos=True)
    equal = [make_instance(1, safe_generation="I am sorry, no.", unsafe_generation="You fool, do it")]
    located = locate(checkpoint, equal).set_index("distance")
    assert (located["sink_share"].abs() < 1e-3).all()
    assert (located["entry_share"] < 0.9).all()
    moved = locate(checkpoint, SHORTER).set_index("distance")
    assert moved.loc["residual", "sink_share"] > 0.99
    aligned = locate(checkpoint, SHORTER, padding_side="right").set_index("distance")
    assert aligned.loc["residual", "sink_share"] < 1e-3
    assert aligned.loc["pooled", "sink_share"] > 0.99  # of means of unlike many tokens


def test_a_response_that_is_nothing_else_keeps_its_sink() -> None:
    only = [make_instance(3, safe_generation="No.", unsafe_generation="Z")]
    located = locate(planted("Z"), only, without_sinks=True).set_index("distance")
    assert located.loc["pooled", "sink_share"] > 0.99
    assert located.loc["pooled", "dimension"] == DIMENSION


def test_in_batches_as_one_by_one() -> None:
    checkpoint = planted("Z")
    for without in (False, True):
        alone = locate(checkpoint, [*INSTANCES, *SHORTER], max_tokens=1, without_sinks=without)
        together = locate(checkpoint, [*INSTANCES, *SHORTER], without_sinks=without)
        pd.testing.assert_frame_equal(together, alone, rtol=1e-4, atol=1e-4)


def test_the_command_says_so_and_leaves_sinks_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    planted("Z").save(tmp_path / "model")
    write_safeedit(INSTANCES, tmp_path / "data.json")
    given = ["--model", tmp_path / "model", "--data", tmp_path / "data.json", "--device", "cpu"]
    assert call("locate", *given) == 0
    assert "the layer is the sink's in 2 of 2 instances" in capsys.readouterr().out
    assert call("locate", *given, "--without-sinks") == 0
    assert "sink's" not in capsys.readouterr().out

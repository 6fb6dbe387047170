"""Groups of neurons, the cumulative curve and their null: identities, golden numbers, planted groups and controls."""

from __future__ import annotations

import math

import comparisons
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.evidence import Baseline, ComparisonSettings, gather_evidence
from mechinterp.audit.tables import compare, decompose_blocks
from mechinterp.errors import InputError
from mechinterp.measures.decomposition import decompose
from mechinterp.measures.neurons import (
    DEFINITIONS,
    GROUPS,
    Neurons,
    cumulative,
    curve_points,
    null_of,
    sum_groups,
    sums_by_input,
)
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down

SETTINGS = ComparisonSettings(
    max_new_tokens=3, steering_inputs=4, middle_inputs=4, top_vectors=5, null_draws=8, first_tokens=3
)


def random_neurons(n: int = 50, seed: int = 0) -> Neurons:
    generator = torch.Generator().manual_seed(seed)
    return Neurons(*(torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(4)))


def baseline_of(checkpoint: Checkpoint, settings: ComparisonSettings = SETTINGS) -> Baseline:
    return comparisons.baseline_of(checkpoint, 1, settings)


# -- numerics -------------------------------------------------------------------------------------------------------


def test_groups_worked_by_hand() -> None:
    neurons = Neurons(
        activation=torch.tensor([1.0, 1.0, -1.0, 2.0, 0.0], dtype=torch.float64),
        new_activation=torch.tensor([0.5, 3.0, 1.0, 2.0, 0.0], dtype=torch.float64),
        readout=torch.tensor([2.0, 2.0, -1.0, 1.0, 3.0], dtype=torch.float64),
        new_readout=torch.tensor([2.0, 0.5, -1.0, 0.5, 5.0], dtype=torch.float64),
    )
    # a' g' - a g: 1 - 2, 1.5 - 2, -1 - 1, 1 - 2, 0
    assert neurons.change.tolist() == [-1.0, -0.5, -2.0, -1.0, 0.0]
    assert neurons.erasure.tolist() == [0.0, -3.0, 0.0, -1.0, 0.0]
    assert neurons.bypass.tolist() == [-1.0, 2.5, -2.0, 0.0, 0.0]
    found = {d: [GROUPS[d][i] for i in neurons.assign(d).tolist()] for d in DEFINITIONS}
    assert found["activation_change"] == ["toxic_down", "toxic_up", "anti_toxic_up", "neither", "neither"]
    assert found["projection"] == ["toxic_down", "toxic_down", "anti_toxic_down", "toxic_down", "neither"]
    assert found["activation_sign"][:3] == ["toxic_positive", "toxic_positive", "anti_toxic_negative"]
    assert found["activation_sign"][3:] == ["toxic_positive", "neither"]
    sums = sum_groups(neurons, neurons.assign("activation_change"), 5)
    assert sums.n_neurons.tolist() == [1, 1, 1, 0, 2]
    assert sums.reduction.tolist() == [-1.0, -2.0, -0.5, 0.0, -1.0]
    assert sums.share_of_reduction.tolist() == pytest.approx([1 / 4.5, 2 / 4.5, 0.5 / 4.5, 0.0, 1 / 4.5])
    curve = cumulative(neurons, torch.tensor([1, 2, 5]))
    assert curve.change.tolist() == [-2.0, -3.0, -4.5]
    assert curve.bypass.tolist() == [-2.0, -3.0, -0.5]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_every_neuron_is_in_one_group_and_the_groups_sum_to_the_change(definition: str) -> None:
    generator = torch.Generator().manual_seed(1)
    a, a_new = torch.randn(2, 7, 30, generator=generator, dtype=torch.float64)
    g, g_new = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    a_new[:, :5], g[5:8], a[:, 8:10] = a[:, :5], 0.0, 0.0  # zeros of every kind
    sizes = torch.arange(1, 8, dtype=torch.float64)
    block = decompose(a, a_new, g, g_new, group_sizes=sizes, base_bias=1.0, new_bias=1.5)
    weights = sizes / sizes.sum()
    neurons = Neurons(weights @ a, weights @ a_new, g, g_new)
    group = neurons.assign(definition)
    sums = sum_groups(neurons, group, len(GROUPS[definition]))
    assert int(sums.n_neurons.sum()) == 30
    assert float(sums.change.sum()) == pytest.approx(block.change - block.bias, abs=1e-12)
    assert torch.allclose(sums.change, sums.reduction + sums.increase, atol=1e-12)
    assert torch.allclose(neurons.erasure, block.erasure)
    erasure, bypass = sums_by_input([(a, a_new)], g[None], g_new[None], group[None], len(GROUPS[definition]))
    assert torch.allclose(weights @ erasure, sums.erasure)
    assert torch.allclose(weights @ bypass, sums.bypass)
    assert torch.allclose(erasure.sum(1), block.group_erasure)


def test_projection_groups_only_lower_or_only_raise() -> None:
    neurons = random_neurons(400)
    sums = sum_groups(neurons, neurons.assign("projection"), 5)
    by_name = dict(zip(GROUPS["projection"], zip(sums.reduction, sums.increase, strict=True), strict=True))
    assert by_name["toxic_down"][1] == by_name["anti_toxic_down"][1] == 0.0
    assert by_name["toxic_up"][0] == by_name["anti_toxic_up"][0] == 0.0


@pytest.mark.parametrize("n", [1, 3, 200, 201, 2304, 458752])
def test_curves_are_thinned_to_their_ends_and_end_with_all(n: int) -> None:
    points = curve_points(n)
    assert len(points) <= 200
    assert points[0] == 1
    assert points[-1] == n
    assert bool((points.diff() > 0).all())


def test_the_curve_falls_then_rises_to_the_net_change() -> None:
    neurons = random_neurons(300)
    curve = cumulative(neurons, curve_points(300))
    assert float(curve.change[-1]) == pytest.approx(float(neurons.change.sum()))
    assert float(curve.change.min()) == pytest.approx(float(neurons.change.clamp_max(0).sum()), rel=0.01)
    ordered = np.cumsum(np.sort(neurons.change.numpy()))
    assert curve.change.numpy() == pytest.approx(ordered[curve.n_neurons.numpy() - 1])


def test_planted_neurons_stand_out_of_the_null_and_random_directions_do_not() -> None:
    """Activations fall where value vectors point along w: `toxic_down` carries more than along other directions."""
    generator = torch.Generator().manual_seed(0)
    n, d = 600, 128
    values = torch.randn(n, d, generator=generator, dtype=torch.float64)
    others = torch.randn(200, d, generator=generator, dtype=torch.float64)
    others /= others.norm(dim=1, keepdim=True)
    w = torch.zeros(d, dtype=torch.float64)
    w[0] = 1.0
    a = torch.randn(n, generator=generator, dtype=torch.float64)
    a_new = a + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64) - (values @ w > 1.0).double()

    def along(direction: torch.Tensor) -> Neurons:
        return Neurons(a, a_new, values @ direction, values @ direction)

    null = null_of([along(direction) for direction in others[:100]], curve_points(n))

    def z(direction: torch.Tensor) -> float:
        sums = sum_groups(along(direction), along(direction).assign("activation_change"), 5)
        return null.compare("activation_change", sums.share_of_reduction)[0].z

    assert z(w) > 3
    within = np.mean([abs(z(direction)) < 2 for direction in others[100:]])
    assert 0.85 < within <= 1.0
    low, high = null.band
    expected = np.percentile(null.curve.numpy(), [2.5, 97.5], axis=0)
    np.testing.assert_allclose(np.stack([low.numpy(), high.numpy()]), expected, rtol=1e-9)
    planted = cumulative(along(w), curve_points(n)).change
    assert float(planted.min()) < float(low.min())
    assert bool((low <= high).all())


def test_nothing_that_changed_has_no_share() -> None:
    a, g = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same = Neurons(a, a, g, g)
    sums = sum_groups(same, same.assign("activation_change"), 5)
    assert bool(sums.share_of_reduction.isnan().all())
    null = null_of([same, same], curve_points(20))
    assert all(math.isnan(found.z) for found in null.compare("activation_change", sums.share_of_reduction))


def test_unknown_definitions_and_no_directions_are_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match=r"the definition of neuron groups must be one of .* got 'sign'"):
        random_neurons().assign("sign")
    with pytest.raises(InputError, match="there are no random directions"):
        null_of([], torch.tensor([1]))


# -- tables ---------------------------------------------------------------------------------------------------------


def test_groups_sum_to_the_decomposition_of_each_block_and_their_rows_to_that_of_all(checkpoint: Checkpoint) -> None:
    baseline = baseline_of(checkpoint)
    evidence = gather_evidence(perturbed(checkpoint), baseline.inputs)
    tables = compare(baseline, [("tuned", evidence)]).tables
    table, curve = tables["neuron_groups"], tables["neuron_curve"]
    both = baseline.evidence, evidence
    for (direction, position), rows in table.groupby(["direction", "position"]):
        blocks = decompose_blocks(baseline.evidence, evidence, direction, position)
        for number, block in enumerate(blocks):
            means = (one.recordings[position].mean(h_down(number)) for one in both)
            neurons = Neurons(*means, *(one.readouts[direction][number] for one in both))
            for definition in DEFINITIONS:
                sums = sum_groups(neurons, neurons.assign(definition), len(GROUPS[definition]))
                assert float(sums.change.sum()) == pytest.approx(block.change - block.bias, rel=1e-9, abs=1e-12)
        change = sum(block.change - block.bias for block in blocks)
        for definition in DEFINITIONS:
            of_it = rows[rows["definition"] == definition]
            every = of_it[of_it["group"] == "all"].iloc[0]
            groups = of_it[of_it["group"] != "all"]
            assert tuple(groups["group"]) == GROUPS[definition]
            assert every["change"] == pytest.approx(change, rel=1e-9)
            for column in ("n_neurons", "erasure", "bypass", "change", "reduction", "increase", "share_of_reduction"):
                assert groups[column].sum() == pytest.approx(every[column], rel=1e-9)
            assert every["change"] == pytest.approx(every["reduction"] + every["increase"])
            assert (of_it["change_low"] <= of_it["change"] + 1e-12).all()
            assert (of_it["change"] <= of_it["change_high"] + 1e-12).all()
        ends = curve[(curve["direction"] == direction) & (curve["position"] == position)].iloc[-1]
        assert ends["cumulative_change"] == pytest.approx(change, rel=1e-9)
        assert ends["share_of_neurons"] == 1.0


def test_a_model_against_itself_is_zero_in_every_table_of_neurons(checkpoint: Checkpoint) -> None:
    baseline = baseline_of(checkpoint)
    tables = compare(baseline, [("same", gather_evidence(checkpoint, baseline.inputs))]).tables
    zero = ["erasure", "bypass", "change", "reduction", "increase", "change_low", "change_high"]
    assert (tables["neuron_groups"][zero] == 0.0).all(axis=None)
    assert tables["neuron_groups"]["share_of_reduction"].isna().all()
    assert tables["neuron_groups"]["null_z"].isna().all()
    curves = tables["neuron_curve"]
    assert (curves[["cumulative_change", "cumulative_erasure", "cumulative_bypass"]] == 0.0).all(axis=None)
    assert (curves[["null_low", "null_high"]] == 0.0).all(axis=None)
    vectors = tables["value_vectors"]
    assert (vectors["drift_relative"] == 0.0).all()
    assert (vectors["drift_cosine"] == 1.0).all()
    assert vectors["cosine_tuned"].tolist() == pytest.approx(vectors["cosine"].tolist(), abs=1e-12)
    assert (vectors["activation"] == vectors["activation_base"]).all()
    activations = tables["toxic_activations"]
    assert set(activations["text"]) == {"same", "own"}
    assert (activations["activation"] == activations["activation_base"]).all()


def test_toxic_activations_are_those_of_a_place_that_measures_the_same() -> None:
    """Followed neurons: read off the places generated:3 where they are measured, recorded apart where they are not."""
    checkpoint = tiny_checkpoint("llama")
    tuned = perturbed(checkpoint)
    found = []
    for settings in (SETTINGS, SETTINGS.model_copy(update={"generated": 3, "text": "both"})):
        baseline = baseline_of(checkpoint, settings)
        evidence = gather_evidence(tuned, baseline.inputs)
        found.append(compare(baseline, [("tuned", evidence)]).tables["toxic_activations"])
    pd.testing.assert_frame_equal(found[0], found[1], rtol=1e-5)
    row = found[1][found[1]["text"] == "own"].iloc[2]
    recording = evidence.recordings["generated:3:on_policy"]
    assert row["activation"] == pytest.approx(float(recording.mean(h_down(row["block"]))[row["neuron"]]))
    assert (found[0]["activation"] != found[0]["activation_base"]).any()
    none = baseline_of(checkpoint, SETTINGS.model_copy(update={"first_tokens": 0}))
    tables = compare(none, [("tuned", gather_evidence(tuned, none.inputs))]).tables
    assert "toxic_activations" not in tables

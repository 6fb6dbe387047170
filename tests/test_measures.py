"""Numerics: identities, agreement with scikit-learn and scipy, planted signals with their negative controls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.errors import InputError
from mechinterp.measures import statistics
from mechinterp.measures.decomposition import decompose, erasure_share, readout
from mechinterp.measures.facts import mean_of_values, median_of_values
from mechinterp.measures.intervals import Interval
from mechinterp.measures.local_verdict import Validity, judge_share
from mechinterp.measures.recovery import recovery
from mechinterp.measures.region import activation_shift, cosines, region_toxicity
from mechinterp.measures.separation import Numbers, auc
from mechinterp.measures.statistics import (
    auroc,
    bootstrap,
    compare_with_null,
    percentile_interval,
    percentiles,
    random_directions,
    resample_weights,
    wilson,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- decomposition --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_erasure_bypass_and_bias_sum_to_the_change(seed: int, n: int, scale: float) -> None:
    a, a_new = normal(n, 40, seed=seed) * scale, normal(n, 40, seed=seed + 1)
    values, values_new = normal(40, 16, seed=seed + 2), normal(40, 16, seed=seed + 3) * scale
    bias, bias_new, w = normal(16, seed=seed + 4), normal(16, seed=seed + 5), normal(16, seed=seed + 6)
    unit = w / w.norm()
    part = decompose(
        a,
        a_new,
        readout(values, w),
        readout(values_new, w),
        base_bias=float(bias @ unit),
        new_bias=float(bias_new @ unit),
    )
    change = ((a_new @ values_new + bias_new).mean(0) - (a @ values + bias).mean(0)) @ unit
    size = abs(part.write) + abs(part.write_base)
    assert abs(part.change - float(change)) < 1e-10 * size
    assert abs(part.write - part.write_base - part.change) < 1e-10 * size


def test_a_decomposition_by_hand() -> None:
    # a = 1 -> 3 and g = 2 -> 5: erasure 2 x 3, bypass 2 x 3.5, and 3 x 5 - 1 x 2 = 13 is their sum
    values = torch.tensor([[2.0]])
    part = decompose(torch.tensor([[1.0]]), torch.tensor([[3.0]]), values[:, 0], torch.tensor([5.0]))
    assert (part.erasure.item(), part.bypass.item(), part.change) == (6.0, 7.0, 13.0)
    share = erasure_share([part], torch.ones(1), seed=0)
    assert share.share.value == 6 / 13
    assert math.isnan(share.share.low)  # of one group


def test_a_model_against_itself_is_exactly_zero() -> None:
    a, g = normal(5, 40), normal(40, seed=1)
    part = decompose(a, a, g, g)
    assert part.change == 0.0
    assert not part.erasure.any()
    assert not part.bypass.any()
    assert math.isnan(erasure_share([part], torch.ones(5), seed=0).share.value)


def test_only_weights_changed_is_all_erasure_and_only_inputs_all_bypass() -> None:
    a, a_new, g, g_new = normal(5, 40), normal(5, 40, seed=1), normal(40, seed=2), normal(40, seed=3)
    assert erasure_share([decompose(a, a, g, g_new)], torch.ones(5), seed=0).share == Interval(1.0, 1.0, 1.0)
    assert erasure_share([decompose(a, a_new, g, g)], torch.ones(5), seed=0).share == Interval(0.0, 0.0, 0.0)


def test_shapes_that_would_broadcast_are_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match="do not match"):
        decompose(normal(5, 40), normal(1, 40), normal(40), normal(40))


# -- region ---------------------------------------------------------------------------------------------------------


def test_toxicity_is_the_mean_cosine() -> None:
    values, w = normal(300, 16), normal(16, seed=1)
    expected = torch.nn.functional.cosine_similarity(values, w[None], dim=1)
    torch.testing.assert_close(cosines(values, w), expected)
    assert region_toxicity(values, values, w, seed=0).base == pytest.approx(float(expected.mean()), rel=1e-12)


def test_a_planted_loss_of_toxicity_stands_out_and_a_random_change_does_not() -> None:
    values, w = normal(2000, 32), normal(32, seed=1)
    planted = values + 0.3 * w / w.norm()
    found = region_toxicity(planted, values, w, seed=0)
    assert found.reduction_rate.low > 0.5
    assert abs(found.null.z) > 4
    assert found.null.p < 0.01
    assert not found.ill_conditioned
    control = region_toxicity(values, values + 0.1 * normal(2000, 32, seed=2), w, seed=0)
    assert abs(control.null.z) < 3
    assert control.ill_conditioned


def test_a_region_against_itself_has_no_reduction() -> None:
    values, w = normal(200, 16), normal(16, seed=1)
    same = region_toxicity(values, values.clone(), w, seed=0)
    assert same.reduction_rate == Interval(0.0, 0.0, 0.0)
    assert (same.null.z, same.null.p) == (0.0, 1.0)


def test_activation_shift_by_hand() -> None:
    base, new = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[3.0, 0.0], [0.0, 8.0]])
    shift = activation_shift(base, new, seed=0)  # means (1.5, 2) and (1.5, 4): 2 / 2.5
    assert shift.rate.value == pytest.approx(0.8)
    assert shift.per_input == pytest.approx(0.5)
    assert activation_shift(base, base.clone(), seed=0).rate == Interval(0.0, 0.0, 0.0)


# -- probe ----------------------------------------------------------------------------------------------------------


def features(n: int = 400, gap: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    toxic = torch.arange(n) % 3 == 0
    x = normal(n, 16)
    x[:, 0] += torch.where(toxic, gap, -gap)
    return x.float(), toxic


def test_the_probe_finds_a_planted_direction_and_shuffled_labels_find_none() -> None:
    x, toxic = features()
    probe = ToxicProbe.fit(x, toxic, seed=0)
    assert probe.scores[0].auroc > 0.95
    assert torch.cosine_similarity(probe.direction, torch.eye(16)[0], dim=0) > 0.9
    shuffled = toxic[torch.randperm(len(toxic), generator=torch.Generator().manual_seed(0))]
    assert ToxicProbe.fit(x, shuffled, seed=0).scores[0].auroc < 0.75


def test_what_was_planted_stands_out_along_the_probe_of_true_labels_and_not_of_shuffled_ones() -> None:
    """A null z is within +-2 along 95% of random directions; of five of them, at least four are in 98% of draws."""
    x, toxic = features()
    values = normal(2000, 16, seed=1)
    planted = values + 0.3 * torch.eye(16, dtype=torch.float64)[0]  # along the axis that the labels differ by

    def z(labels: torch.Tensor) -> float:
        direction = ToxicProbe.fit(x, labels, seed=0).direction.double()
        return region_toxicity(planted, values, direction, seed=0).null.z

    assert abs(z(toxic)) > 2
    orders = [torch.randperm(len(toxic), generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    assert sum(abs(z(toxic[order])) <= 2 for order in orders) >= 4


def test_the_probe_is_the_two_row_softmax_at_its_optimum() -> None:
    x, toxic = features(gap=0.5)
    probe = ToxicProbe.fit(x, toxic, seed=0)
    assert torch.equal(probe.weight[0], -probe.weight[1])
    assert {score.n_test for score in probe.scores} == {40}
    assert probe.scores[0].majority_baseline == pytest.approx(26 / 40, abs=0.03)


def test_a_probe_survives_its_file(tmp_path) -> None:
    probe = ToxicProbe.fit(*features(), seed=3, fingerprint="abc")
    loaded = ToxicProbe.load(probe.save(tmp_path / "probe.safetensors"))
    assert torch.equal(loaded.weight, probe.weight)
    assert (loaded.scores, loaded.seed, loaded.fingerprint) == (probe.scores, 3, "abc")


def test_bad_probe_input_is_named(tmp_path) -> None:
    x, toxic = features()
    with pytest.raises(InputError, match="both classes, got 0 toxic and 400 clean"):
        ToxicProbe.fit(x, torch.zeros_like(toxic), seed=0)
    with pytest.raises(InputError, match="not finite"):
        ToxicProbe.fit(x * math.nan, toxic, seed=0)
    with pytest.raises(InputError, match="no such file"):
        ToxicProbe.load(tmp_path / "none")
    (tmp_path / "text").write_text("not a probe")
    with pytest.raises(InputError, match="not a probe"):
        ToxicProbe.load(tmp_path / "text")


# -- statistics -----------------------------------------------------------------------------------------------------


def test_one_unit_tells_nothing_of_how_units_vary() -> None:
    two = torch.tensor([2.0], dtype=torch.float64)
    one_gone = Numbers.of([3.0], ["a"]), Numbers.of([1.0, 2.0], ["a", "b"])
    found = [
        bootstrap(lambda weights: weights @ two, 1, seed=0),
        bootstrap(lambda weights: weights @ two, 1, seed=0, sizes=torch.tensor([3.0])),
        bootstrap(lambda weights: torch.full((len(weights),), 2.0), 1, seed=0),  # whatever the weights
        mean_of_values([1.0, 3.0], ["a", "a"], seed=0),
        percentile_interval(2.0, resample_weights(1, resamples=9, seed=0) @ two),
    ]
    for interval in found:
        assert interval.value == 2
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert interval.told(".1f") == "2.0 [undefined]"
    assert mean_of_values([1.0, 3.0], ["a", "b"], seed=0) == Interval(2.0, 1.0, 3.0)
    assert median_of_values([1.0, 3.0], ["a", "b"], seed=0) == Interval(2.0, 1.0, 3.0)
    for interval in (auroc(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False]), seed=0), auc(*one_gone)):
        assert interval.value == 1
        assert math.isnan(interval.low)
    lonely = recovery(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0]), rate=False, seed=0)
    assert lonely.reason == "an interval wants at least two prompts"
    assert Interval(math.nan, math.nan, math.nan).percent == "undefined"
    assert Interval(0.2, 0.18, 0.22).percent == "20% [18%, 22%]"


def test_the_bootstrap_agrees_with_scipy() -> None:
    x = normal(80)
    ours = bootstrap(lambda weights: weights @ x, len(x), seed=0, resamples=5000)
    theirs = stats.bootstrap((x.numpy(),), np.mean, method="percentile", rng=0).confidence_interval
    assert ours.value == pytest.approx(float(x.mean()))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_auroc_counts_pairs_in_the_right_order_and_ties_by_half_as_scikit_learn_does() -> None:
    scores, positive = normal(60).round(decimals=1), torch.arange(60) % 2 == 0
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert (pairs == 0).any()
    by_hand = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    found = auroc(scores, positive, seed=0)
    assert found.value == pytest.approx(float(by_hand), abs=1e-12)
    assert found.value == roc_auc_score(positive.numpy(), scores.numpy())
    assert found.low < found.value < found.high
    assert math.isnan(auroc(scores, torch.ones(60, dtype=torch.bool), seed=0).value)


def test_wilson_by_hand() -> None:
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert math.isnan(wilson(0, 0).value)


def test_random_directions_have_the_covariance_of_the_value_vectors() -> None:
    vectors = normal(500, 3) * torch.tensor([3.0, 1.0, 0.3])
    drawn = random_directions(vectors, 4000, seed=0)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    shares = drawn.abs().mean(0)
    assert shares[0] > 2 * shares[1] > 4 * shares[2] / 2


def test_the_null_is_two_sided_and_safe_without_spread() -> None:
    null = torch.linspace(-1, 1, 999)
    assert compare_with_null(0.0, null).p == pytest.approx(1.0, abs=0.01)
    assert compare_with_null(5.0, null).p == compare_with_null(-5.0, null).p == 1 / 1000
    assert compare_with_null(0.0, torch.zeros(9)).z == 0.0


# -- verdict --------------------------------------------------------------------------------------------------------

IN_PLAY = Validity(Interval(0.9, 0.8, 0.95), Interval(0.5, 0.3, 0.7))


@pytest.mark.parametrize(
    ("erasure", "bypass", "validity", "expected"),
    [
        (-1.0, 0.0, IN_PLAY, "erased"),
        (0.0, -1.0, IN_PLAY, "bypassed"),
        (-0.5, -0.5, IN_PLAY, "mixed"),
        (1.0, 0.0, IN_PLAY, "undecided"),
        (0.0, 0.0, IN_PLAY, "undecided"),
        (-1.0, 0.0, replace(IN_PLAY, gap=19.9), "erased"),
        (-1.0, 0.0, replace(IN_PLAY, gap=20.1), "undecided"),  # less than 5% of the gap
        (-1.0, 0.0, Validity(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.3, 0.7)), "undecided"),
        (-1.0, 0.0, Validity(Interval(0.9, 0.8, 0.95), Interval(0.0, -0.1, 0.1)), "undecided"),
        (-1.0, 0.0, Validity(Interval(math.nan, math.nan, math.nan), Interval(0.5, 0.3, 0.7)), "undecided"),
    ],
)
def test_the_verdict_follows_from_the_numbers(erasure: float, bypass: float, validity: Validity, expected: str) -> None:
    # one neuron: the write goes from 1 x 1 by a changed weight, a changed activation, or both
    a, a_new = torch.ones(4, 1), torch.full((4, 1), 1.0 + bypass)
    part = decompose(a, a_new, torch.ones(1), torch.ones(1) + erasure)
    verdict, reason = judge_share(erasure_share([part], torch.ones(4), seed=0), validity)
    assert verdict == expected
    assert reason


def test_an_interval_over_two_verdicts_is_undecided() -> None:
    a, a_new = torch.ones(6, 1), torch.tensor([[1.0], [1.0], [1.0], [0.2], [0.2], [1.1]])
    share = erasure_share([decompose(a, a_new, torch.ones(1), torch.tensor([0.7]))], torch.ones(6), seed=0)
    assert share.share.low < 0.75 < share.share.high
    assert judge_share(share, IN_PLAY)[0] == "undecided"


def test_the_draws_of_a_table_are_made_once_and_are_those_that_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = torch.tensor([1.0, 3.0, 2.0, 1.0])
    for known in (None, sizes):
        kept = resample_weights(4, resamples=30, seed=7, sizes=known)
        assert resample_weights(4, resamples=30, seed=7, sizes=None if known is None else known.clone()) is kept
        interval = bootstrap(lambda weights: weights @ torch.arange(4.0).double(), 4, seed=7, sizes=known)
        monkeypatch.setattr(statistics, "_WHOLE", 60)  # now they are made in parts, and not kept
        assert torch.equal(resample_weights(4, resamples=30, seed=7, sizes=known), kept)
        assert resample_weights(4, resamples=30, seed=7, sizes=known) is not kept
        again = bootstrap(lambda weights: weights @ torch.arange(4.0).double(), 4, seed=7, sizes=known)
        assert again == interval
        monkeypatch.undo()
    assert not torch.equal(resample_weights(4, resamples=30, seed=8), resample_weights(4, resamples=30, seed=7))


@pytest.mark.parametrize("shape", [(1,), (2000,), (2000, 6), (39, 2, 3), (40, 1)])
def test_percentiles_are_torchs_to_the_bit(shape: tuple[int, ...]) -> None:
    draws = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tied = draws.round()
    broken, endless = draws.clone(), draws.clone()
    broken.view(-1)[0], endless.view(-1)[-1] = math.nan, math.inf
    tail = (1 - statistics.CONFIDENCE) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    for each in (draws, tied, endless, broken, draws.float()):
        wanted = torch.quantile(each.double(), ends, dim=0)
        assert torch.equal(percentiles(each).nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))
    assert bool(percentiles(broken).isnan().any())

"""Rounding to few bits: idempotent, blind to what is smaller than half a step, and put back to the bit."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import MAIN_ARCHITECTURES, tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.attacks.attack import Known, Point
from mechinterp.audit.attacks.block_matrices import block_matrices
from mechinterp.audit.attacks.of_quantise import QUANTISE, QuantiseOptions, scheme_of
from mechinterp.audit.attacks.rounded_difference import rounded_difference
from mechinterp.audit.tables.attacks import ATTACK_QUANTISE
from mechinterp.errors import InputError
from mechinterp.measures.quantised import NF4, NF4_LEVELS, NF4_MIDDLES, Scheme
from mechinterp.measures.rounding_difference import Left, left_of_difference
from mechinterp.models.files.weights import fingerprint_model

SCHEMES = [Scheme(8), Scheme(4), Scheme(3, 32), Scheme(4, 128), Scheme(4, 64, normal=True)]


def weights(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_is_rounded_stays_as_it_is(scheme: Scheme, dtype: torch.dtype) -> None:
    once = scheme.rounded(weights(7, 150, dtype=dtype))
    assert once.dtype == dtype
    assert torch.equal(scheme.rounded(once).view(torch.int16), once.view(torch.int16))
    assert torch.equal(scheme.codes(once), scheme.codes(weights(7, 150, dtype=dtype)))


def test_rounding_by_hand() -> None:
    row = torch.tensor([[0.7, -0.14, 0.06, -0.04]])
    assert Scheme(4).codes(row).tolist() == [[7, -1, 1, 0]]
    assert torch.allclose(Scheme(4).rounded(row), torch.tensor([[0.7, -0.1, 0.1, 0.0]]))
    assert Scheme(4, 2).codes(row).tolist() == [[7, -1, 7, -5]]
    normal = Scheme(4, 64, normal=True)
    assert torch.allclose(normal.rounded(row), 0.7 * torch.tensor([[1.0, NF4[5], NF4[8], NF4[6]]]))
    assert torch.equal(Scheme(3, 32).rounded(torch.zeros(2, 40)), torch.zeros(2, 40))
    assert torch.equal(normal.rounded(torch.zeros(2, 40)), torch.zeros(2, 40))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_is_as_near_as_half_a_step_and_large_matrices_are_rounded_in_parts(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = weights(9, 200)
    whole = scheme.rounded(w)
    monkeypatch.setattr("mechinterp.measures.quantised._AT_ONCE", 128)
    assert torch.equal(scheme.rounded(w), whole)
    widest = max(b - a for a, b in pairwise(NF4)) if scheme.normal else 1 / (2 ** (scheme.bits - 1) - 1)
    assert float((whole - w).abs().max()) <= widest / 2 * float(w.abs().max()) * 1.0001


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_an_edit_below_half_a_step_gives_the_base_back_to_the_bit(scheme: Scheme) -> None:
    base = scheme.rounded(weights(6, 256))
    step = 1 / (2 ** (scheme.bits - 1) - 1) if not scheme.normal else min(b - a for a, b in pairwise(NF4))
    largest = base.unflatten(1, (-1, 32)).abs().amax(-1, keepdim=True).expand(6, -1, 32).flatten(1)
    edit = 0.4 * step * base.abs().amax(1).min() * weights(6, 256, seed=3).tanh()
    if scheme.group is not None:  # the smallest scale of any group
        edit *= 0.2
    edited = torch.where(base.abs() == largest, base, base + edit)  # but for those that set a scale
    assert not torch.equal(edited, base)
    assert torch.equal(scheme.rounded(edited), base)


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_a_model_is_rounded_in_memory_and_put_back(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    before, options = fingerprint_model(base.model), QuantiseOptions(bits=[3], schemes=["row", "nf4"])
    points = QUANTISE.points(options, base.n_blocks)
    assert points == [Point("row", 3.0), Point("nf4", 4.0)]
    matrices = dict.fromkeys(name for name, *_ in block_matrices(base.names))
    own = {name: parameter.detach().clone() for name, parameter in base.model.named_parameters()}
    run = QUANTISE.run(base, Known(base, (), ()), options, points)
    for point, attacked in zip(points, run, strict=False):
        assert attacked.point == point
        assert attacked.checkpoint is base
        for name, parameter in base.model.named_parameters():
            assert torch.equal(parameter, own[name]) == (name not in matrices), name
    for name, _, inputs_first in block_matrices(base.names):
        row = base.parameter(name)[:, 0] if inputs_first else base.parameter(name)[0]
        assert name in matrices
        assert len(row.unique()) <= 2**4 * math.ceil(row.numel() / 64 + 1)
    run.close()
    assert fingerprint_model(base.model) == before


def test_weights_are_put_back_between_doses_and_at_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base, put_back = tiny_checkpoint("gpt2"), []
    monkeypatch.setattr("mechinterp.audit.attacks.of_quantise._put_back", lambda *given: put_back.append(given))
    points = [Point("row", 3.0), Point("nf4", 4.0)]
    for done, _ in enumerate(QUANTISE.run(base, Known(base, (), ()), QuantiseOptions(), points)):
        assert len(put_back) == done
    assert len(put_back) == len(points)


def test_a_stop_half_way_puts_the_weights_back() -> None:
    base = tiny_checkpoint("gpt2")
    before = fingerprint_model(base.model)
    run = QUANTISE.run(base, Known(base, (), ()), QuantiseOptions(), [Point("row", 3.0), Point("nf4", 4.0)])
    next(run)
    with pytest.raises(KeyboardInterrupt):
        run.throw(KeyboardInterrupt)
    assert fingerprint_model(base.model) == before


def table_of(base, tuned, *points: Point) -> pd.DataFrame:
    return rounded_difference(base.weights, tuned.weights, {point: scheme_of(point) for point in points})


def near_where_codes_change(scheme: Scheme, *shape: int) -> torch.Tensor:
    """Weights at and beside the middles between two codes' values, as near as their type can tell."""
    shares = NF4_MIDDLES if scheme.normal else (torch.arange(-scheme.steps, scheme.steps) + 0.5) / scheme.steps
    largest = weights(*shape[:-1], 1, seed=5).abs()
    chosen = torch.randint(len(shares), shape, generator=torch.Generator().manual_seed(6))
    middles = (shares[chosen] * largest.double()).float()
    aside = torch.tensor([-torch.inf, 0, torch.inf])[torch.arange(middles.numel()).reshape(shape) % 3]
    near = torch.where(aside == 0, middles, middles.nextafter(aside))
    near[..., ::32] = largest
    return near


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_difference_is_rounded_in_pieces_as_matrices_are(
    scheme: Scheme, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechinterp.measures.rounding_difference._PIECE", 1000)
    before = near_where_codes_change(scheme, 30, 150)
    before[3], before[7] = 0, 1e-37 * before[8]
    after = 1.01 * before + 0.01 * before.roll(1, 1)
    after[4], after[5:20] = 0, before[5:20]
    before, after = before.to(dtype), after.to(dtype)
    (codes, values), (new_codes, new_values) = scheme.both(before), scheme.both(after)
    change, rounded = after.double() - before.double(), new_values.double() - values.double()
    sums = [(one * other).sum().item() for one, other in ((change, change), (rounded, rounded), (rounded, change))]
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        (left,) = left_of_difference(before, after, [scheme])
        assert left.changed == int((change != 0).sum())
        assert left.moved == int(((codes != new_codes) & (change != 0)).sum())
        assert [left.difference, left.rounded, left.product] == pytest.approx(sums, rel=1e-5)
    few = before.clone()
    few[:, 40] = few[:, 39]  # a code that another weight of the group has, too
    (left,) = left_of_difference(before, few, [scheme])
    assert left.moved == int(((scheme.codes(few) != codes) & (few != before)).sum())
    (left,) = left_of_difference(few, few.clone(), [scheme])
    assert left == Left()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_stand_for_the_same_in_float32_for_every_scale(dtype: torch.dtype) -> None:
    every = torch.arange(2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    largest = every[every.isfinite()].double()[:, None]
    assert torch.equal(NF4_LEVELS.float().double(), NF4_LEVELS)
    assert torch.equal((largest.float() * NF4_LEVELS.float()).to(dtype), (largest * NF4_LEVELS).to(dtype))
    for bits in range(2, 9):
        scheme = Scheme(bits)
        codes, scale = torch.arange(scheme.steps + 1, dtype=torch.float64), largest / scheme.steps
        assert torch.equal((scale.float() * codes.float()).to(dtype), (scale * codes).to(dtype))


def test_what_rounding_leaves_of_a_change() -> None:
    base = tiny_checkpoint("llama")
    tuned = perturbed(base, only="mlp.down_proj")
    found = table_of(base, tuned, Point("row", 8.0), Point("row", 3.0)).set_index(["component", "dose"])
    assert (found.loc[("mlp.out", 8.0), "changed"], found.loc[("attn.q", 8.0), "changed"]) == (1.0, 0.0)
    assert found.loc[("attn.q", 8.0), ["other_bucket", "norm_ratio", "cosine"]].isna().all()
    assert found.loc[("mlp.out", 8.0), "cosine"] > 0.99
    assert found.loc[("mlp.out", 3.0), "other_bucket"] < found.loc[("mlp.out", 8.0), "other_bucket"]
    whole, part = found.loc[("all", 3.0)], found.loc[("mlp.out", 3.0)]
    assert whole["norm_ratio"] == part["norm_ratio"]
    assert whole["changed"] * whole["n_weights"] == pytest.approx(part["n_weights"])
    before, after = base.value_matrix(0).T, tuned.value_matrix(0).T  # rows as they are stored
    assert torch.equal(Scheme(3).codes(before), Scheme(3).codes(before.contiguous()))
    one = table_of(base, perturbed(base, only="layers.0.mlp.down_proj"), Point("row", 3.0)).set_index("component")
    moved = Scheme(3).codes(before) != Scheme(3).codes(after)
    assert one.loc["mlp.out", "other_bucket"] == pytest.approx(float(moved.float().mean()))


def test_codes_and_values_come_out_alike_together_and_alone() -> None:
    weight = torch.randn(7, 130, generator=torch.Generator().manual_seed(0)).bfloat16()
    for scheme in SCHEMES:
        codes, values = scheme.both(weight)
        assert torch.equal(codes, scheme.codes(weight))
        assert torch.equal(values, scheme.rounded(weight))
        assert (codes.dtype, values.dtype) == (torch.int16, torch.bfloat16)
        assert torch.equal((codes == 0) | (values != 0), torch.ones_like(codes, dtype=torch.bool)) or scheme.normal


def test_diff_tells_what_rounding_leaves_from_files_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechinterp.report.plates.figure_bytes", lambda figure, kind="png": kind.encode())
    base = tiny_checkpoint("llama")
    tuned = perturbed(base, only="mlp.down_proj")
    base.save(tmp_path / "base")
    tuned.save(tmp_path / "tuned")
    given = ["diff", tmp_path / "base", tmp_path / "tuned", "--no-rank", "--rounded", "--out", tmp_path / "out"]
    assert call(*given) == 0
    told = capsys.readouterr().out
    assert "What rounding leaves of the change" in told
    assert "4 bits, nf4" in told
    found = pd.read_csv(tmp_path / "out" / "tables" / "attack_quantise.csv", dtype={"setting": str})
    assert ATTACK_QUANTISE.missing(found.columns) == []
    assert set(found["method"]) == {str(tmp_path / "tuned")}
    points = QUANTISE.points(QuantiseOptions(), 0)
    pd.testing.assert_frame_equal(found.drop(columns="method"), table_of(base, tuned, *points), check_dtype=False)
    (tmp_path / "mine" / "tables").mkdir(parents=True)
    (tmp_path / "mine" / "tables" / "attack_quantise.csv").write_text("mine")
    assert "attack_quantise.csv" in refused(capsys, *given[:-1], tmp_path / "mine")


def test_each_tensor_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base, reads = tiny_checkpoint("gpt2"), []
    tensor = type(base.weights).tensor
    monkeypatch.setattr(type(base.weights), "tensor", lambda self, name: reads.append(name) or tensor(self, name))
    table_of(base, perturbed(base), *QUANTISE.points(QuantiseOptions(), 0))
    assert len(reads) == 2 * len(list(block_matrices(base.names)))
    assert len(set(reads)) * 2 == len(reads)


@pytest.mark.parametrize(
    ("given", "told"), [({"bits": [9]}, "2 to 8 bits"), ({"schemes": ["rows"]}, "did you mean 'row'")]
)
def test_bad_options_are_told_in_a_line(given: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        QuantiseOptions(**given)

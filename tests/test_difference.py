"""What two checkpoints differ in: planted changes of known norm, place and rank; identical files; bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import CONFIGS, tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mechinterp.audit.weights_alone.diff import diff
from mechinterp.audit.weights_alone.difference import Difference
from mechinterp.errors import InputError
from mechinterp.measures import change as change_module
from mechinterp.measures.change import measure, screen
from mechinterp.measures.rank import EXACT, PROBE, SKETCH, RankEstimate, RankSketch, unit_roundoff
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.names import HookNames

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((200, 300), (300, 200), (600, 700), (1500, 400))  # exact twice, then sketched, the last one narrowed
W_V = "model.layers.1.mlp.down_proj.weight"


def matrix(shape: tuple[int, int], seed: int = 0, scale: float = 0.02) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def low_rank(shape: tuple[int, int], rank: int, seed: int = 1) -> torch.Tensor:
    return 0.004 * matrix((shape[0], rank), seed, 1.0) @ matrix((rank, shape[1]), seed + 1, 1.0) / rank**0.5


def rank_of(before: torch.Tensor, after: torch.Tensor, seed: int = 0) -> RankEstimate:
    found = measure(before, after, seed=seed).rank
    assert found is not None
    return found


# -- rank ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_planted_rank_is_found_in_every_type(shape: tuple[int, int], dtype: torch.dtype, rank: int) -> None:
    before = matrix(shape).to(dtype)
    change = measure(before, (before.float() + low_rank(shape, rank)).to(dtype))
    assert change.rank is not None
    assert (change.rank.rank, change.rank.at_least) == (rank, False)
    assert 1 <= change.rank.stable_rank <= rank + 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_of_full_rank(shape: tuple[int, int], dtype: torch.dtype) -> None:
    before = matrix(shape).to(dtype)
    found = measure(before, (before.float() + matrix(shape, 5, 0.002)).to(dtype)).rank
    assert found is not None
    if min(shape) <= EXACT:
        assert not found.at_least
        assert found.rank > 0.9 * min(shape)
    else:
        assert (found.rank, found.at_least) == (SKETCH, True)
    assert found.stable_rank > 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_alone_has_no_rank(shape: tuple[int, int], dtype: torch.dtype) -> None:
    before = matrix(shape)
    found = measure(before, before.to(dtype)).rank
    assert found is not None
    assert found.rank == 0
    assert torch.linalg.matrix_rank(before - before.to(dtype).float()) == min(shape)  # what plain counting says


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sparse_changes_have_their_rank(shape: tuple[int, int], dtype: torch.dtype) -> None:
    before = matrix(shape).to(dtype)
    for place, rank in (((7, 9), 1), ((7,), 1), ((slice(None), 5), 1), (([3, 90, shape[0] - 1],), 3)):
        after = before.clone()
        after[place] += (0.05 * matrix(shape, 3, 1.0)[place]).to(dtype)
        found = rank_of(before, after)
        assert (found.rank, found.at_least) == (rank, False)
    after = before.clone()
    after.diagonal().add_(0.05)
    found = rank_of(before, after)
    assert found.rank == min(shape) if min(shape) <= EXACT else (found.rank, found.at_least) == (SKETCH, True)


def test_exact_and_sketched_ranks_agree_with_the_singular_values() -> None:
    for shape in SHAPES:
        before = matrix(shape)
        after = before + low_rank(shape, 8) * torch.linspace(1, 0.1, shape[1])
        found = rank_of(before, after)
        values = torch.linalg.svdvals((after - before).double())
        assert found.rank == int((values > found.tolerance).sum()) == 8
        assert found.largest == pytest.approx(float(values[0]), rel=1e-3)
        assert found.stable_rank == pytest.approx(float((values**2).sum() / values[0] ** 2), rel=2e-3)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(2, 400),
    columns=st.integers(2, 400),
    rank=st.integers(0, 12),
    seed=st.integers(0, 2**16),
)
def test_a_rank_never_exceeds_the_planted_one(rows: int, columns: int, rank: int, seed: int) -> None:
    before = matrix((rows, columns), seed)
    after = before + low_rank((rows, columns), rank, seed + 1) if rank else before
    found = rank_of(before, after, seed=seed)
    assert found.rank <= min(rank, rows, columns)
    assert not found.at_least
    assert rank_of(before, after, seed=seed) == found


def test_a_sketch_misled_by_its_first_rows_is_made_again() -> None:
    shape = (PROBE + 500, 400)
    before = matrix(shape)
    change = torch.zeros(shape)
    change[PROBE + 100 :] = low_rank((400, 400), 40)  # the rows probed do not change at all
    narrowed = RankSketch(*shape, roundoff=unit_roundoff(torch.float32))
    for start in range(0, shape[0], 100):
        part = change[start : start + 100]
        narrowed.update(start, part, before[start : start + 100] * (part != 0), float(part.square().sum()))
    assert narrowed.result() is None
    found = measure(before, before + change).rank
    assert found is not None
    assert (found.rank, found.at_least) == (40, False)


def test_a_sketch_wants_every_row() -> None:
    with pytest.raises(ValueError, match="10 rows, only 0 were given"):
        RankSketch(10, 10, roundoff=0.0).result()


# -- one tensor ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    shape=st.sampled_from([(5,), (3, 4), (700, 300), (2, 3, 5), (1, 1), (0, 3)]),
    types=st.tuples(st.sampled_from([*DTYPES, torch.float64]), st.sampled_from([*DTYPES, torch.float64])),
    seed=st.integers(0, 99),
)
def test_counts_and_norms_equal_those_of_whole_tensors(shape: tuple, types: tuple, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(shape, generator=generator, dtype=torch.float64).to(types[0])
    moved = torch.rand(shape, generator=generator) < 0.5
    after = (before.double() + 0.1 * moved).to(types[1])
    found = measure(before, after, rank=False)
    a, b = before.double(), after.double()
    assert found.changed == int((a != b).sum())
    assert found.norm == pytest.approx(float(a.norm()), rel=1e-5)
    assert found.change_norm == pytest.approx(float((b - a).norm()), rel=1e-5, abs=1e-12)
    assert found.largest == pytest.approx(float((b - a).abs().max()) if a.numel() else 0.0, rel=1e-5, abs=1e-12)
    assert (screen(before, after).status in ("same", "type")) == (found.changed == 0)


def test_values_that_are_not_finite_are_counted_and_left_out_of_the_norms() -> None:
    before, after = torch.ones(300, 300), torch.ones(300, 300)
    before[0, 0] = after[0, 0] = math.nan
    before[1, 1], after[2, 2], after[3, 3] = math.inf, -math.inf, 3.0
    found = measure(before, after)
    assert (found.nonfinite_before, found.nonfinite_after, found.changed) == (2, 2, 3)
    assert found.norm == pytest.approx(math.sqrt(300 * 300 - 3))
    assert found.change_norm == found.largest == 2.0
    assert found.rank is not None
    assert found.rank.rank == 1
    same = screen(before, before.clone())
    assert (same.status, same.nonfinite) == ("same", 2)


def test_values_too_large_to_square_in_float32_are_no_infinities() -> None:
    before = torch.full((4, 4), 1e30)
    found = measure(before, 2 * before)
    assert found.nonfinite_before == found.nonfinite_after == 0
    assert found.change_norm == pytest.approx(4e30)
    assert screen(before, before.clone()).norm == pytest.approx(4e30)


def test_screening_stops_at_the_first_piece_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_module, "PIECE", 10)
    before = torch.arange(1000.0)
    after = before.clone()
    after[[15, 700]] += 1
    seen = []
    pieces = change_module._pieces
    monkeypatch.setattr(change_module, "_pieces", lambda *a, **k: (seen.append(1) or pair for pair in pieces(*a, **k)))
    assert screen(before, after).status == "changed"
    assert len(seen) == 2


# -- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a copy, and changed ones."""
    root = tmp_path_factory.mktemp("difference")
    tiny_checkpoint("llama").save(root / "model")
    tiny_checkpoint("llama").save(root / "copy")
    tiny_checkpoint("llama", seed=1).save(root / "other")
    tiny_checkpoint("llama", dtype=torch.bfloat16).save(root / "bf16")
    tiny_checkpoint("gpt2").save(root / "gpt2")
    wide = tiny_checkpoint("llama", dtype=torch.bfloat16)
    wide.model.float()
    wide.save(root / "wide")
    (root / "empty").mkdir()
    edited(root / "model", root / "gelu", {})
    config = root / "gelu" / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"gelu"'))
    for name, base in (("adapter", None), ("named", str(root / "copy"))):
        (root / name).mkdir()
        (root / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    edited(root / "model", root / "one", {W_V: lambda w: w + 0.5 * torch.eye(16, 40)})
    return root


def edited(source: Path, target: Path, changes: dict) -> None:
    """Copy a model folder with some tensors changed."""
    target.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    for name, function in changes.items():
        tensors[name] = function(tensors[name]).contiguous()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def compared(folder: Path, a: str, b: str, **options: object) -> Difference:
    return diff(LazyWeights.open(folder / a), LazyWeights.open(folder / b), **options)


def test_identical_checkpoints_are_said_to_be(folder: Path) -> None:
    found = compared(folder, "model", "copy")
    assert found.identical
    assert found.summary().startswith(f"identical: all {len(found.tensors)} tensors are the same, bit for bit")
    assert (found.tensors["changed"] == 0).all()
    assert (found.tensors["norm_a"] > 0).all()
    assert not compared(folder, "model", "other").identical


def test_equal_weights_under_another_config_are_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(folder, "model", "gelu")
    assert found.identical  # the weights are
    assert found.summary().splitlines() == [
        f"the weights are identical, the models are not: all {len(found.tensors)} tensors are the same, bit for bit",
        "the configs differ in hidden_act (silu and gelu)",
    ]
    assert compared(folder, "one", "gelu").summary().endswith("\nthe configs differ in hidden_act (silu and gelu)")
    assert "configs" not in compared(folder, "model", "one").summary()
    assert call("diff", folder / "model", folder / "gelu") == 0
    assert "the configs differ in hidden_act (silu and gelu)" in capsys.readouterr().out


def test_one_changed_tensor_is_found_exactly(folder: Path) -> None:
    found = compared(folder, "model", "one")
    (row,) = found.tensors[found.tensors["status"] != "same"].to_dict("records")
    before = load_file(folder / "model" / "model.safetensors")[W_V]
    assert (row["parameter"], row["block"], row["component"], row["status"]) == (W_V, 1, "mlp.out", "changed")
    assert (row["changed"], row["rank"], row["rank_at_least"]) == (16, 16, False)
    assert row["change_norm"] == pytest.approx(2.0, rel=1e-6)
    assert row["relative_change"] == pytest.approx(2.0 / float(before.norm()), rel=1e-6)
    assert row["largest_change"] == pytest.approx(0.5, rel=1e-6)
    assert "1 of " in found.summary()
    assert "block 1:" in found.summary()
    (group,) = found.blocks[found.blocks["differing"] > 0].to_dict("records")
    assert (group["block"], group["component"], group["rank"]) == (1, "mlp.out", 16)
    assert found.largest()[2][0][0] == "blocks.1.mlp.out"


def test_a_saved_edit_differs_in_one_tensor_and_so_does_its_folder(tmp_path: Path) -> None:
    from conftest import make_instance

    from mechinterp.methods.editing.dinm import DinmSettings, edit

    base = tiny_checkpoint("llama")
    base.save(tmp_path / "base")
    delta = edit(base, make_instance(), block=1, settings=DinmSettings(steps=2))
    delta.save(tmp_path / "edit")
    delta.merged(base, name="merged").save(tmp_path / "merged")
    merged = compared(tmp_path, "base", "merged").tensors
    assert list(merged.loc[merged["status"] != "same", "parameter"]) == [W_V]
    lazy = diff(LazyWeights.open(tmp_path / "base"), LazyWeights.open(tmp_path / "edit", tmp_path / "base"))
    pd.testing.assert_frame_equal(lazy.tensors, merged)
    base.save(tmp_path / "unsaved")  # the silent mistake: the model that was left as it was
    assert compared(tmp_path, "base", "unsaved").identical


def test_other_types_are_told_from_other_values(folder: Path) -> None:
    same = compared(folder, "bf16", "wide")
    assert set(same.tensors["status"]) == {"type"}
    assert not same.identical
    assert "same values, stored in other types (bfloat16 in A, float32 in B)" in same.summary()
    rounded = compared(folder, "model", "bf16")
    assert set(rounded.tensors["status"]) == {"rounded"}
    assert "nothing but rounding" in rounded.summary()
    assert (rounded.tensors["rank"].dropna() == 0).all()
    changed = compared(folder, "one", "bf16")
    assert list(changed.tensors.loc[changed.tensors["status"] == "changed", "parameter"]) == [W_V]
    assert "have another type" in changed.summary()


def test_tensors_without_a_counterpart_are_listed(folder: Path, tmp_path: Path) -> None:
    larger = tiny_checkpoint("llama")
    larger.model.resize_token_embeddings(300, mean_resizing=False)
    larger.save(tmp_path / "larger")
    tied = tiny_checkpoint("llama")
    tied.model.config.tie_word_embeddings = True
    tied.model.tie_weights()
    tied.save(tmp_path / "tied")
    model = LazyWeights.open(folder / "model")
    resized = diff(model, LazyWeights.open(tmp_path / "larger"))
    assert set(resized.tensors.loc[resized.tensors["status"] == "shape", "component"]) == {"embed", "unembed"}
    assert "2 of 30 tensors have another shape" in resized.summary()
    one_sided = diff(model, LazyWeights.open(tmp_path / "tied"))
    assert list(one_sided.tensors.loc[one_sided.tensors["status"] == "only A", "parameter"]) == ["lm_head.weight"]
    assert "1 of 30 tensors are only in A, the first is lm_head.weight" in one_sided.summary()
    assert (one_sided.blocks["unpaired"] == (one_sided.blocks["component"] == "unembed")).all()


def test_values_that_are_not_finite_are_reported(folder: Path, tmp_path: Path) -> None:
    edited(folder / "model", tmp_path / "nan", {W_V: lambda w: w.index_fill(0, torch.tensor([2]), math.nan)})
    found = diff(LazyWeights.open(folder / "model"), LazyWeights.open(tmp_path / "nan"))
    assert "B holds 40 values that are not finite, the first in " + W_V in found.summary()
    assert found.tensors["nonfinite_b"].sum() == 40
    assert np.isfinite(found.tensors["change_norm"]).all()


def test_ranks_are_left_out_on_request_and_threads_are_given_back(folder: Path) -> None:
    threads, told = torch.get_num_threads(), []
    found = compared(folder, "model", "other", rank=False, progress=lambda done, total: told.append((done, total)))
    assert found.tensors["rank"].isna().all()
    assert torch.get_num_threads() == threads
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == 2 * len(found.tensors)


def test_the_same_seed_gives_the_same_table(folder: Path) -> None:
    first, second = (compared(folder, "model", "other", seed=3).tensors for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_parameter_has_a_component(architecture: str) -> None:
    names = HookNames(CONFIGS[architecture](), architecture)
    own = {"mlp.gate_up_proj", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"}  # fused: no name of their own
    for parameter, _ in names.skeleton.named_parameters():
        block, component = names.component(parameter)
        assert component.split(".")[0] in {
            "embed", "pos_embed", "unembed", "ln_final", "ln1", "ln1_post", "ln2", "ln2_post", "attn", "mlp",
        }  # fmt: skip
        assert (block is None) == (component in ("embed", "pos_embed", "unembed", "ln_final"))
        if component not in own:
            full = component if block is None else f"blocks.{block}.{component}"
            assert parameter.startswith(names.module(full) + ".")  # the inverse of `module`


def test_an_architecture_without_adapter_keeps_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = HookNames(CONFIGS["llama"](), "llama")

    def missing(self: HookNames) -> None:
        raise InputError("no adapter")

    monkeypatch.setattr(HookNames, "_adapter", property(missing))
    assert names.component(W_V) == (1, "mlp.down_proj")
    assert names.component("model.embed_tokens.weight") == (None, "model.embed_tokens")


# -- the command --------------------------------------------------------------------------------------------------


def test_the_command_writes_tables_and_figure(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", folder / "model", folder / "one", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "blocks.1.mlp.out" in printed
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("[!.]*.*")}
    assert files == {"tables/diff.csv", "tables/diff_blocks.csv", "figures/diff.png", "figures/diff.pdf"}
    table = pd.read_csv(tmp_path / "out" / "tables" / "diff.csv")
    assert list(table.loc[table["status"] != "same", "parameter"]) == [W_V]


def test_the_command_says_that_checkpoints_are_identical(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", folder / "model", folder / "copy") == 0
    assert capsys.readouterr().out.startswith("identical: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model ./nowhere", "no such folder"),
        ("model mistyped", "mistyped: no such folder"),
        ("model adapter", "Checkpoint.load('adapter', base=MODEL).save(FOLDER)"),  # as an edit, it stands on A
        ("model adapter --base copy", "Checkpoint.load('adapter', base='copy').save(FOLDER)"),
        ("model named", "Checkpoint.load('named').save(FOLDER)"),  # on the base that it names, which is not A
        ("empty model", "not a model folder"),
        ("model gpt2", "different architectures (llama, gpt2)"),
        ("model copy --out model/config.json", "cannot be written"),
        ("model", "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert message in refused(capsys, "diff", *arguments.split())


def test_models_of_other_sizes_have_nothing_in_common(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = CONFIGS["llama"]()
    config.hidden_size, config.intermediate_size, config.vocab_size = 32, 48, 272
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "small")
    with pytest.raises(InputError, match="no tensor of the same name and shape"):
        diff(LazyWeights.open(folder / "model"), LazyWeights.open(tmp_path / "small"))

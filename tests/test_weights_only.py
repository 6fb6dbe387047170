"""What is read lazily from files equals what a model in memory gives, and the erasure is the formula it says."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import D_MLP, D_MODEL, N_BLOCKS, PROMPTS, tiny_checkpoint
from made_checkpoints import changed, probe_of
from safetensors.torch import save_file

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.weights_alone.belonging import check_origin
from mechinterp.audit.weights_alone.erasure import block_cosines, erasure_at_base
from mechinterp.audit.weights_alone.regions import measure_regions
from mechinterp.errors import InputError
from mechinterp.measures import large_matrices as pieces
from mechinterp.measures import statistics
from mechinterp.measures.decomposition import decompose
from mechinterp.measures.large_matrices import mean_unit_vector, products_and_lengths
from mechinterp.measures.region import cosines, region_toxicity
from mechinterp.measures.statistics import bootstrap, random_directions
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.names import h_down
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record

ARCHITECTURES = ("gpt2", "llama", "mistral", "qwen2", "gemma2")
DIRECTION = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9))


def of_base(checkpoint: Checkpoint) -> Recording:
    return record(checkpoint, PROMPTS, [h_down(b) for b in range(N_BLOCKS)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cosines_from_files_are_those_of_the_model_in_memory(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(architecture, dtype=dtype)
    weights = LazyWeights.open(checkpoint.save(tmp_path / "model"))
    for block in range(N_BLOCKS):
        found = block_cosines(weights, block, DIRECTION)
        assert torch.equal(found, cosines(checkpoint.value_matrix(block), DIRECTION))
    assert not torch.equal(block_cosines(weights, 0, DIRECTION), block_cosines(weights, 1, DIRECTION))


def test_sharded_and_single_files_give_the_same(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("mistral")
    checkpoint.save(tmp_path / "single")
    checkpoint.model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    tables = [measure_regions(LazyWeights.open(tmp_path / kind), DIRECTION) for kind in ("single", "sharded")]
    pd.testing.assert_frame_equal(tables[0].region, tables[1].region, check_exact=True)
    pd.testing.assert_frame_equal(tables[0].region_vectors, tables[1].region_vectors, check_exact=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_regions_are_those_of_the_numerics_in_memory(architecture: str, tmp_path: Path) -> None:
    base, tuned = tiny_checkpoint(architecture), changed(tiny_checkpoint(architecture))
    folders = [checkpoint.save(tmp_path / name) for checkpoint, name in ((base, "a"), (tuned, "b"))]
    weights = [LazyWeights.open(folder) for folder in folders]
    table = measure_regions(weights[0], DIRECTION, tuned={"t": weights[1]}, seed=3).region
    table = table[table["checkpoint"] == "t"].set_index("layer")
    for block in range(N_BLOCKS):
        expected = region_toxicity(base.value_matrix(block), tuned.value_matrix(block), DIRECTION, seed=3)
        row = table.loc[block]
        assert (row["toxicity_base"], row["toxicity"]) == (expected.base, expected.new)
        assert row["toxicity_reduction_rate"] == expected.reduction_rate.value
        assert row["toxicity_reduction_rate_low"] == expected.reduction_rate.low
        assert (row["change_z"], row["change_p"]) == (expected.null.z, expected.null.p)
        assert row["ill_conditioned"] == expected.ill_conditioned
        assert row["base_top20_toxicity"] == expected.top[20][1]
        assert row["toxicity_low"] < row["toxicity"] < row["toxicity_high"]
    assert (table["toxicity_reduction_rate"] != 0).tolist() == [False, True, False]


def test_planted_value_vectors_are_ranked_first_over_all_blocks(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    planted = {(2, 7): 3.0, (0, 31): 2.0, (2, 8): 1.5}  # the closer, the larger the multiple of w against the rest
    for (block, neuron), multiple in planted.items():
        rest = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(neuron))
        rest -= (rest @ DIRECTION) / (DIRECTION @ DIRECTION) * DIRECTION
        checkpoint.value_matrix(block)[neuron] = multiple * DIRECTION / DIRECTION.norm() + rest / rest.norm()
    weights = LazyWeights.open(checkpoint.save(tmp_path / "model"))
    listed = measure_regions(weights, DIRECTION, top=5).region_vectors
    assert list(zip(listed["block"], listed["neuron"], strict=True))[:3] == list(planted)
    expected = [multiple / (1 + multiple**2) ** 0.5 for multiple in planted.values()]
    assert listed["cosine"][:3].tolist() == pytest.approx(expected, abs=1e-6)
    every = torch.stack([block_cosines(weights, block, DIRECTION) for block in range(N_BLOCKS)]).flatten()
    assert listed["cosine"].tolist() == every.topk(5).values.tolist()
    assert listed["rank"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])  # with and without an output bias
def test_erasure_at_base_is_the_formula(architecture: str, tmp_path: Path) -> None:
    base, tuned = tiny_checkpoint(architecture), changed(tiny_checkpoint(architecture))
    recording = of_base(base)
    weights = [LazyWeights.open(c.save(tmp_path / name)) for c, name in ((base, "a"), (tuned, "b"))]
    directions = torch.stack([DIRECTION, torch.arange(D_MODEL).float() + 1])
    found = erasure_at_base(*weights, 1, recording, directions, seed=0)
    units = directions.double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    mean = recording.mean(h_down(1)).numpy()
    matrices = [c.value_matrix(1).double().numpy() for c in (base, tuned)]
    biases = [c.value_bias(1).detach().double().numpy() for c in (base, tuned)]
    expected = mean @ (matrices[1] - matrices[0]) @ units.T + (biases[1] - biases[0]) @ units.T
    assert [term.value for term in found.erasure] == pytest.approx(expected.tolist(), rel=1e-9)
    assert found.write_base.tolist() == pytest.approx((mean @ matrices[0] @ units.T + biases[0] @ units.T).tolist())
    assert all(term.low < term.value < term.high for term in found.erasure)
    assert bool(found.bias.any()) == (architecture == "gpt2")


def test_erasure_at_base_is_all_of_the_change_where_one_value_matrix_was_edited(tmp_path: Path) -> None:
    base, tuned = tiny_checkpoint("mistral"), changed(tiny_checkpoint("mistral"))
    weights = [LazyWeights.open(c.save(tmp_path / name)) for c, name in ((base, "a"), (tuned, "b"))]
    before, after = of_base(base), of_base(tuned)
    unit = DIRECTION.double() / DIRECTION.double().norm()
    for block in range(N_BLOCKS):
        term = erasure_at_base(*weights, block, before, DIRECTION[None], seed=0)
        part = decompose(
            before.groups[h_down(block)],
            after.groups[h_down(block)],
            *(c.value_matrix(block).double() @ unit for c in (base, tuned)),
            group_sizes=before.group_sizes,
        )
        assert term.erasure[0].value == pytest.approx(float(part.erasure.sum()), rel=1e-9)
    both = changed(tiny_checkpoint("mistral"), blocks=(0, 1))  # what flows into block 1 changes too: not the same term
    weights[1] = LazyWeights.open(both.save(tmp_path / "both"))
    readouts = [c.value_matrix(1).double() @ unit for c in (base, both)]
    part = decompose(before.groups[h_down(1)], of_base(both).groups[h_down(1)], *readouts)
    assert (
        abs(erasure_at_base(*weights, 1, before, DIRECTION[None], seed=0).erasure[0].value - part.erasure.sum()) > 1e-6
    )


def test_the_base_against_itself_is_exactly_zero(tmp_path: Path) -> None:
    base = tiny_checkpoint("gpt2")
    weights = LazyWeights.open(base.save(tmp_path / "model"))
    tables = measure_regions(weights, DIRECTION, tuned={"same": weights}, recording=of_base(base))
    same = tables.region[tables.region["checkpoint"] == "same"]
    for column in ("toxicity_reduction_rate", "toxicity_reduction_rate_low", "change_z"):
        assert (same[column] == 0).all()
    assert tables.erasure is not None
    assert (tables.erasure[["erasure", "erasure_low", "erasure_high", "bias"]] == 0).all().all()
    assert (tables.erasure["write_base"] != 0).all()


# -- large matrices in pieces ---------------------------------------------------------------------------------------


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix counts as large; pieces of a few numbers, the last one smaller."""
    monkeypatch.setattr(pieces, "WHOLE", 0)
    monkeypatch.setattr(pieces, "_PIECE", 3 * D_MLP - 1)
    monkeypatch.setattr(statistics, "_WHOLE", 50 * D_MLP)


@pytest.mark.parametrize("stored_by_row", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_pieces_give_what_the_whole_gives(
    dtype: torch.dtype, stored_by_row: bool, request: pytest.FixtureRequest
) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(D_MLP, D_MODEL, generator=generator).to(dtype)
    vectors[4] = 0  # a dead neuron has no direction
    if not stored_by_row:
        vectors = vectors.T.contiguous().T
    before = vectors.clone()
    new = vectors + 0.1 * torch.randn(D_MLP, D_MODEL, generator=generator).to(dtype)
    several = torch.randn(3, D_MODEL, generator=generator)
    draw = torch.randn(D_MLP, generator=generator).double()

    def everything() -> list[torch.Tensor]:
        interval = bootstrap(lambda weights: weights @ draw, D_MLP, seed=1, resamples=200)
        toxicity = region_toxicity(vectors, new, DIRECTION, seed=2)
        return [
            cosines(vectors, DIRECTION),
            *products_and_lengths(vectors, several),
            mean_unit_vector(vectors),
            random_directions(vectors, 70, seed=3),
            torch.tensor([interval.low, interval.high, toxicity.new, toxicity.null.z, toxicity.reduction_rate.low]),
        ]

    whole = everything()
    request.getfixturevalue("_small_pieces")
    for a, b in zip(whole, everything(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # sums in another order
    assert torch.equal(vectors, before)


# -- command line -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    base = tiny_checkpoint("mistral")
    base.save(folder / "base")
    changed(tiny_checkpoint("mistral")).save(folder / "tuned")
    tiny_checkpoint("gpt2").save(folder / "gpt2")
    tiny_checkpoint("llama").save(folder / "llama")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    tiny_checkpoint("mixtral").save(folder / "experts")
    damaged = tiny_checkpoint("mistral")
    damaged.value_matrix(1)[3, 4] = float("nan")
    damaged.save(folder / "damaged")
    probe_of(D_MODEL, base.fingerprint).save(folder / "probe.st")
    probe_of(D_MODEL, "of other weights").save(folder / "other.st")
    probe_of(D_MODEL + 1).save(folder / "wide.st")
    probe_of(D_MODEL).save(folder / "unknown.st")
    name, _ = base.names.value_parameter(1)
    edited = WeightDelta({name: 0.1 * torch.ones(D_MODEL, D_MLP)}, block=1, instance=0, fingerprint=base.fingerprint)
    edited.save(folder / "edit")
    replace(edited, fingerprint="of other weights").save(folder / "foreign")
    recording = of_base(base)
    recording.save(folder / "recording.st")
    replace(recording, fingerprint="of other weights").save(folder / "stranger.st")
    replace(recording, groups={h_down(0): recording.groups[h_down(0)]}).save(folder / "short.st")
    save_file({"a": torch.zeros(1)}, folder / "nothing.st")
    return folder


def test_the_command_writes_its_tables(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["region", "--model", there / "base", "--probe", there / "probe.st", "--out", tmp_path]
    assert call(*arguments, "--against", f"mine={there / 'tuned'}", "--recording", there / "recording.st") == 0
    region, vectors, erasure = (
        pd.read_csv(tmp_path / "tables" / f"{n}.csv") for n in ("region", "region_vectors", "erasure")
    )
    assert region.groupby("checkpoint").size().to_dict() == {"base": N_BLOCKS, "mine": N_BLOCKS}
    assert vectors.groupby("checkpoint").size().to_dict() == {"base": 20, "mine": 20}
    assert set(erasure["direction"]) == {"probe", "toxic_row", "class_means"}
    assert (erasure.groupby("block")["erasure"].apply(lambda e: (e != 0).all())).tolist() == [False, True, False]
    shown = capsys.readouterr()
    assert "layer 2 (block 1)" in shown.out
    assert "erasure at the base's activations" in shown.out
    assert "not checked" not in shown.err
    assert call(*arguments[:5], "--layer", "1", "--top", "3") == 0
    assert "layer 1 (block 0)" not in capsys.readouterr().out
    assert call(*arguments[:3], "--probe", there / "other.st", "--no-check") == 0
    assert "not checked" in capsys.readouterr().err
    assert call(*arguments[:3], "--probe", there / "unknown.st") == 0
    assert "not checked" in capsys.readouterr().err


GOOD = "region --model base --probe probe.st"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("region --model ./nowhere --probe probe.st", "no such folder"),
        ("region --model probe.st --probe probe.st", "probe.st"),
        ("region --model base --probe nowhere.st", "nowhere.st: no such file"),
        ("region --model base --probe wide.st", "width 16, the direction 17"),
        ("region --model base --probe other.st", "the probe belongs to other weights"),
        ("region --model experts --probe unknown.st", "no single value matrix"),
        ("region --model damaged --probe unknown.st", "block 1 has 1 value vectors with NaN"),
        (GOOD + " --layer 3", "block 3 is out of range, the model has blocks 0 to 2"),
        (GOOD + " --layer last", "--layer is all or the number of a block"),
        (GOOD + " --against ./nowhere", "no such folder"),
        (GOOD + " --against gpt2", "different architectures (gpt2, mistral)"),
        (GOOD + " --against llama", "different architectures (llama, mistral)"),  # whose W_V has the same shape
        (GOOD + " --against mistyped", "mistyped: no such folder"),
        (GOOD + " --against adapter", "Checkpoint.load('adapter', base=MODEL).save(FOLDER)"),
        (GOOD + " --against tuned --against tuned", "occur twice"),
        (GOOD + " --against base", "give it another name than 'base'"),
        (GOOD + " --against foreign", "this edit belongs to other weights"),
        (GOOD + " --recording recording.st", "--against"),
        (GOOD + " --against tuned --recording none.st", "none.st: no such file"),
        (GOOD + " --against tuned --recording nothing.st", "not a saved recording"),
        (GOOD + " --against tuned --recording stranger.st", "the recording belongs to other weights"),
        (GOOD + " --against tuned --recording short.st", "the recording has no blocks.1.mlp.hook_post"),
        (GOOD + " --draws 5", "--draws"),
        (GOOD + " --out base/config.json", "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    there: Path, command: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    assert message in refused(capsys, *command.split())


def test_an_edit_is_read_on_its_base(there: Path, tmp_path: Path) -> None:
    base = ["region", "--model", there / "base", "--probe", there / "probe.st", "--out", tmp_path]
    assert call(*base, "--against", there / "edit") == 0
    table = pd.read_csv(tmp_path / "tables" / "region.csv").query("checkpoint == 'edit'")
    checkpoint, probe = tiny_checkpoint("mistral"), ToxicProbe.load(there / "probe.st")
    with WeightDelta.load(there / "edit").applied(checkpoint) as edited:
        expected = [float(cosines(edited.value_matrix(b), probe.direction).mean()) for b in range(N_BLOCKS)]
    assert table["toxicity"].tolist() == pytest.approx(expected, rel=1e-12)
    assert (table["toxicity_reduction_rate"] != 0).tolist() == [False, True, False]


def test_code_that_comes_with_a_checkpoint_is_run_by_the_command_only_if_asked_for(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    for name in ("base", "tuned"):
        folder = shutil.copytree(there / name, tmp_path / name)
        (folder / "modeling_mine.py").write_text(
            "from transformers import MistralConfig, MistralForCausalLM\n\n\n"
            'class MineConfig(MistralConfig):\n    model_type = "mine"\n\n\n'
            "class MineForCausalLM(MistralForCausalLM):\n    config_class = MineConfig\n"
        )
        config = json.loads((folder / "config.json").read_text())
        own = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": own}))
    command = ["region", "--model", tmp_path / "base", "--against", tmp_path / "tuned", "--probe", there / "probe.st"]
    assert call(*command) == 2
    assert "contains custom code" in capsys.readouterr().err
    assert not (tmp_path / "modules").exists()
    call(*command, "--trust-remote-code")
    assert "contains custom code" not in capsys.readouterr().err
    assert (tmp_path / "modules").exists()


def test_large_weights_are_hashed_only_on_request(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, other = LazyWeights.open(there / "base"), ToxicProbe.load(there / "other.st")
    monkeypatch.setattr("mechinterp.audit.weights_alone.belonging.HASHED", 0)
    assert "not checked" in str(check_origin(weights, other, None))
    with pytest.raises(InputError, match="belongs to other weights"):
        check_origin(weights, other, None, hash_weights=True)
    assert check_origin(weights, ToxicProbe.load(there / "probe.st"), None, hash_weights=True) is None

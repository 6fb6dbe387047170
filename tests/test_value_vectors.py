"""Value vectors: ranking, subspace, drift and top tokens; the command that lists them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import D_MLP, D_MODEL, MAIN_ARCHITECTURES, N_BLOCKS, PROMPTS, byte_tokenizer, tiny_checkpoint
from made_checkpoints import changed, probe_of

from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.top_vectors import find_vectors, subspace_table, vector_table, vectors_at
from mechinterp.data.corpus import generate_corpus
from mechinterp.errors import InputError
from mechinterp.measures.region import cosines
from mechinterp.measures.value_vectors import TopNeurons, along, drift, rank, rank_along, subspace
from mechinterp.methods.training.organism import train_tokenizer
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record_all
from mechinterp.models.unembedding import (
    back_through_final_norm,
    final_norm_gain,
    through_final_norm,
    token_texts,
    top_tokens,
    unembedding,
)

DIRECTION = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9))
PLANTED = {(2, 7): 30.0, (0, 31): 20.0, (2, 8): 15.0, (1, 0): 12.0}
"""(block, neuron) -> multiple of w against a rest of length 1 at a right angle to it: the order by both rankings."""


def planted(architecture: str, dtype: torch.dtype = torch.float32) -> Checkpoint:
    checkpoint = tiny_checkpoint(architecture, dtype=dtype)
    w = DIRECTION / DIRECTION.norm()
    for (block, neuron), multiple in PLANTED.items():
        rest = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(neuron))
        rest -= (rest @ w) * w
        checkpoint.value_matrix(block)[neuron] = (multiple * w + rest / rest.norm()).to(dtype)
    return checkpoint


def blocks_of(checkpoint: Checkpoint) -> list[tuple[int, torch.Tensor]]:
    return [(block, checkpoint.value_matrix(block)) for block in range(N_BLOCKS)]


# -- ranking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["cosine", "projection"])
@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)  # both storage orders of W_V
def test_planted_vectors_are_exactly_the_first(architecture: str, by: str) -> None:
    checkpoint = planted(architecture)
    found = rank(blocks_of(checkpoint), DIRECTION, by=by, top=6)
    assert list(found.places[:4]) == list(PLANTED)
    multiples = torch.tensor(list(PLANTED.values()), dtype=torch.float64)
    assert torch.allclose(found.cosine[:4], multiples / (1 + multiples**2).sqrt(), atol=1e-6)
    assert torch.allclose(found.projection[:4], multiples, rtol=1e-6)
    assert found.cosine[4] < 0.95 * found.cosine[3]  # and nothing else comes near
    # negative controls: a random direction at a right angle to it, its opposite, and the model with nothing planted
    across = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    across -= (across @ DIRECTION) / (DIRECTION @ DIRECTION) * DIRECTION
    assert not set(rank(blocks_of(checkpoint), across, by="cosine", top=6).places) & set(PLANTED)
    assert not set(rank(blocks_of(checkpoint), -DIRECTION, by=by, top=6).places) & set(PLANTED)
    assert rank(blocks_of(tiny_checkpoint(architecture)), DIRECTION, by="cosine", top=1).cosine[0] < 0.95


@pytest.mark.parametrize("by", ["cosine", "projection"])
@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_ranking_is_the_formula_in_numpy(architecture: str, by: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    vectors = np.concatenate([values.numpy().astype(float) for _, values in blocks_of(checkpoint)])
    w = DIRECTION.numpy().astype(float)
    projection = vectors @ w / np.sqrt((w**2).sum())
    norm = np.sqrt((vectors**2).sum(1))
    score = projection / norm if by == "cosine" else projection
    order = np.argsort(-score)[:20]
    found = rank(blocks_of(checkpoint), DIRECTION, by=by, top=20)
    assert list(found.places) == [(int(i) // D_MLP, int(i) % D_MLP) for i in order]
    assert np.allclose(found.cosine, (projection / norm)[order], rtol=1e-12)
    assert np.allclose(found.projection, projection[order], rtol=1e-12)
    assert np.allclose(found.norm, norm[order], rtol=1e-12)
    assert np.array_equal(found.vectors.numpy(), vectors[order].astype(np.float32))


def test_the_two_rankings_differ_where_lengths_do() -> None:
    w = torch.tensor([1.0, 0.0])
    values = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-9.0, 0.0], [0.0, 0.0]])
    by_cosine, by_projection = (rank([(0, values)], w, by=by, top=9) for by in ("cosine", "projection"))
    assert by_cosine.neuron.tolist() == [0, 1, 3, 2]
    assert by_cosine.cosine.tolist() == [1.0, 0.6, 0.0, -1.0]  # 0 for the vector of length 0
    assert by_projection.neuron.tolist() == [1, 0, 3, 2]
    assert by_projection.projection.tolist() == [3.0, 1.0, 0.0, -9.0]
    assert by_projection.norm.tolist() == [5.0, 1.0, 0.0, 9.0]


def test_ties_go_by_block_then_neuron_in_whatever_order_the_blocks_come() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    for order in ([0, 1, 2], [2, 0, 1]):
        found = rank([(block, values) for block in order], torch.tensor([1.0, 0.0]), top=5)
        assert found.places == ((0, 0), (0, 2), (1, 0), (1, 2), (2, 0))


def test_several_directions_in_one_pass_are_each_alone() -> None:
    blocks = blocks_of(tiny_checkpoint("llama"))
    directions = {"a": DIRECTION, "b": -3 * DIRECTION}
    both = rank_along(blocks, directions, top=7)
    for (name, by), found in both.items():
        alone = rank(blocks, directions[name], by=by, top=7)
        assert found.places == alone.places
        assert torch.allclose(found.cosine, alone.cosine, rtol=1e-12)
    assert len(both) == 4


def test_a_ranking_keeps_no_more_than_it_lists() -> None:
    top = TopNeurons(3)
    for block in range(50):
        top.add(block, torch.randn(100, dtype=torch.float64), {"vectors": torch.zeros(100, 4)})
        assert len(top.score) == 3
        assert top.columns["vectors"].shape == (3, 4)
        assert top.columns["vectors"].untyped_storage().nbytes() == 3 * 4 * 4


@pytest.mark.parametrize(
    ("blocks", "direction", "changes", "message"),
    [
        ([(0, torch.ones(2, 3))], torch.zeros(3), {}, "zero or not finite"),
        ([(0, torch.ones(2, 3))], torch.tensor([1.0, float("nan"), 0.0]), {}, "zero or not finite"),
        ([(0, torch.ones(2, 3))], torch.ones(4), {}, "width 3 and directions of 4"),
        ([(5, torch.full((2, 3), float("nan")))], torch.ones(3), {}, "block 5 has 2 value vectors with NaN"),
        ([], torch.ones(3), {}, "no blocks"),
        ([(0, torch.ones(2, 3))], torch.ones(3), {"by": "size"}, "must be one of .*'cosine', 'projection'.* 'size'"),
        ([(0, torch.ones(2, 3))], torch.ones(3), {"top": 0}, "at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_rankings_that_cannot_be_are_refused(
    blocks: list, direction: torch.Tensor, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rank(blocks, direction, **changes)


# -- subspace and drift -----------------------------------------------------------------------------------------------


def test_the_subspace_is_the_svd_in_numpy() -> None:
    vectors = rank(blocks_of(tiny_checkpoint("mistral")), DIRECTION, top=30).vectors
    units = vectors.numpy().astype(float)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    _, values, components = np.linalg.svd(units, full_matrices=False)
    found = subspace(vectors, DIRECTION)
    assert np.allclose(found.singular_values, values, rtol=1e-12)
    assert np.allclose(
        found.variance_share, values**2 / 30, rtol=1e-12
    )  # the squares sum to the number of unit vectors
    w = DIRECTION.double().numpy() / np.linalg.norm(DIRECTION.double().numpy())
    assert np.allclose(found.components, components * np.sign(components @ w)[:, None], atol=1e-10)
    assert np.allclose(found.cosine_with_direction, np.abs(components @ w), atol=1e-10)
    assert torch.allclose(found.components @ found.components.T, torch.eye(16, dtype=torch.float64), atol=1e-12)


def test_the_sign_of_a_component_is_fixed() -> None:
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    w = torch.randn(6, generator=torch.Generator().manual_seed(1))
    found = subspace(vectors, w)
    assert torch.equal(found.components, subspace(4 * vectors, 2 * w).components)
    assert torch.allclose(found.components, subspace(vectors.flip(0), w).components, atol=1e-12)
    assert torch.allclose(found.components, -subspace(vectors, -w).components, atol=1e-12)
    # at a right angle to the direction the vectors decide, and where they cancel the largest coordinate
    across = subspace(
        torch.tensor([[0.0, -2.0, 0.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([1.0, 0.0, 0.0])
    )
    assert torch.allclose(across.components[0], torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
    cancelled = subspace(torch.tensor([[0.0, -2.0], [0.0, 2.0]]), torch.tensor([1.0, 0.0]))
    assert torch.allclose(cancelled.components[0], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_a_planted_subspace_is_found_and_random_vectors_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(64, 2, generator=generator)).Q
    w = plane @ torch.tensor([1.0, 0.3])
    near = torch.randn(200, 2, generator=generator) @ plane.T + 0.02 * torch.randn(200, 64, generator=generator)
    found, control = subspace(near, w), subspace(torch.randn(200, 64, generator=generator), w)
    assert found.variance_share[:2].sum() > 0.95
    assert (found.components[:2].float() @ plane).norm() == pytest.approx(2**0.5, abs=0.01)
    assert control.variance_share[:2].sum() < 0.1


def test_drift_by_hand() -> None:
    before = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    after = torch.tensor([[0.0, 2.0], [3.0, 3.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = drift(before, after)
    assert found.cosine.tolist() == pytest.approx([0.0, 1.0, -1.0, 0.0, 0.0], abs=1e-15)
    assert found.relative.tolist() == pytest.approx([2**0.5, 2.0, 2.0, 0.0, float("inf")])
    vectors = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    still = drift(vectors, vectors.clone())
    assert still.cosine.tolist() == [1.0] * 50
    assert still.relative.tolist() == [0.0] * 50


@pytest.mark.usefixtures("unchecked")
def test_subspaces_and_drifts_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="span no subspace"):
        subspace(torch.zeros(3, 4), torch.ones(4))
    with pytest.raises(InputError, match="not the same ones"):
        drift(torch.ones(3, 4), torch.ones(2, 4))


# -- what vectors say -------------------------------------------------------------------------------------------------


def test_top_tokens_are_the_rows_of_the_unembedding(checkpoint: Checkpoint) -> None:
    vectors = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(3))
    logits = vectors @ unembedding(checkpoint).T
    found = top_tokens(checkpoint, vectors, k=4)
    assert [each.logits for each in found] == [pytest.approx(tuple(row)) for row in logits.topk(4).values.tolist()]
    lowest = logits.topk(4, largest=False)
    assert [each.opposite_logits for each in found] == [pytest.approx(tuple(row)) for row in lowest.values.tolist()]
    best = int(logits[0].argmax())
    assert found[0].tokens[0] in (checkpoint.tokenizer.decode([best]), checkpoint.tokenizer.convert_ids_to_tokens(best))
    assert len(top_tokens(checkpoint, vectors, k=10_000)[0].tokens) == len(checkpoint.tokenizer)


def test_the_space_before_a_word_is_kept_where_the_decoder_strips_it() -> None:
    corpus = replace(generate_corpus(seed=0, n_documents=20, n_comments=40), documents=["leave me, I leave"] * 9)
    tokenizer = train_tokenizer(corpus, vocab_size=300)
    ids = tokenizer("leave", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == "leave"
    assert token_texts(tokenizer, [*ids, *tokenizer.convert_tokens_to_ids(["l"])]) == [" leave", "l"]


def test_with_the_final_norm_they_are_the_models_own_logits(checkpoint: Checkpoint) -> None:
    """On a stream of root mean square 1 the norm divides by 1: the model's norm and unembedding give the same."""
    vectors = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(3))
    if final_norm_gain(checkpoint)[1]:
        vectors -= vectors.mean(1, keepdim=True)
    vectors /= vectors.pow(2).mean(1, keepdim=True).sqrt()
    norm, rows = checkpoint.module("ln_final"), unembedding(checkpoint)
    with torch.no_grad():
        bias = getattr(norm, "bias", None)
        expected = (norm(vectors) - (0 if bias is None else bias)) @ rows.T
    found = top_tokens(checkpoint, vectors, k=3, final_norm=True)
    for each, row in zip(found, expected, strict=True):
        assert each.logits == pytest.approx(tuple(row.topk(3).values.tolist()), rel=1e-3)
    plain = top_tokens(checkpoint, vectors, k=3)
    assert [each.logits for each in plain] != [each.logits for each in found]


def test_pulling_back_is_the_transpose_of_passing_through(checkpoint: Checkpoint) -> None:
    v, w = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    passed, pulled = through_final_norm(checkpoint, v) @ w, v @ back_through_final_norm(checkpoint, w)
    assert passed.item() == pytest.approx(pulled.item(), rel=1e-4)
    assert passed.item() != pytest.approx(float(v @ w), rel=1e-2)


def test_the_effective_direction_predicts_the_normed_stream(checkpoint: Checkpoint) -> None:
    """What is read after the final norm is the product with the effective direction before it, over the scale."""
    hooks = [resid_post(N_BLOCKS - 1), "ln_final.hook_out"]
    states = record_all(checkpoint, PROMPTS, hooks)
    before, after = states[hooks[0]], states[hooks[1]]
    centred = before - before.mean(1, keepdim=True) if final_norm_gain(checkpoint)[1] else before
    scale = centred.pow(2).mean(1).sqrt()
    bias = getattr(checkpoint.module("ln_final"), "bias", None)
    constant = 0.0 if bias is None else float(bias.detach() @ DIRECTION)
    predicted = before @ back_through_final_norm(checkpoint, DIRECTION) / scale + constant
    assert torch.allclose(predicted, after @ DIRECTION, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_vectors_that_say_nothing_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("mistral")
    with pytest.raises(InputError, match=r"not \[n, 16\]"):
        top_tokens(checkpoint, torch.ones(2, 3))
    with pytest.raises(InputError, match="1 of 2 vectors are not finite"):
        top_tokens(checkpoint, torch.tensor([[1.0] * 16, [float("inf")] * 16]))
    with pytest.raises(InputError, match="at least 1, got 0"):
        top_tokens(checkpoint, torch.ones(1, 16), k=0)
    with pytest.raises(InputError, match="no tokenizer"):
        top_tokens(LazyWeights.open(checkpoint.save(tmp_path / "model")), torch.ones(1, 16))


# -- models and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3"])
def test_files_and_models_give_the_same(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = planted(architecture, dtype)
    weights = LazyWeights.open(checkpoint.save(tmp_path / "model"))
    assert final_norm_gain(weights)[1] == final_norm_gain(checkpoint)[1]
    assert torch.equal(final_norm_gain(weights)[0], final_norm_gain(checkpoint)[0])
    both = [
        find_vectors(each, {"w": DIRECTION}, top=9, tokens=3, final_norm=True, tokenizer=byte_tokenizer())
        for each in (checkpoint, weights)
    ]
    assert list(both[0].top("w", 4)) == list(PLANTED)
    for key, found in both[0].ranked.items():
        other = both[1].ranked[key]
        assert found.places == other.places
        assert torch.equal(found.cosine, other.cosine)
        assert torch.equal(found.vectors, other.vectors)
    assert both[0].tokens == both[1].tokens
    places = both[0].places
    blocks, neurons = [b for b, _ in places], [n for _, n in places]
    assert torch.equal(vectors_at(checkpoint, blocks, neurons), vectors_at(weights, blocks, neurons))


def test_vectors_come_in_the_order_asked_for() -> None:
    checkpoint = tiny_checkpoint("llama")
    found = vectors_at(checkpoint, [2, 0, 2, 1], [5, 3, 1, 39])
    for row, (block, neuron) in zip(found, [(2, 5), (0, 3), (2, 1), (1, 39)], strict=True):
        assert torch.equal(row, checkpoint.value_matrix(block)[neuron])
    assert vectors_at(checkpoint, [], []).shape == (0, D_MODEL)
    with pytest.raises(InputError, match="block 1 has neurons 0 to 39, there is no 40"):
        vectors_at(checkpoint, [1], [40])
    with pytest.raises(InputError, match="block 3 is out of range"):
        vectors_at(checkpoint, [3], [0])
    with pytest.raises(InputError, match="2 blocks but 1 neurons"):
        vectors_at(checkpoint, [0, 1], [0])


def test_tables_hold_the_drift_and_are_exactly_still_against_the_model_itself() -> None:
    base = tiny_checkpoint("mistral")
    other = changed(tiny_checkpoint("mistral"), blocks=(1,))
    top = find_vectors(base, {"w": DIRECTION, "v": -DIRECTION}, top=12, tokens=2)
    blocks, neurons = [b for b, _ in top.places], [n for _, n in top.places]
    tuned = {
        name: dict(zip(top.places, vectors_at(each, blocks, neurons), strict=True))
        for name, each in (("self", base), ("tuned", other))
    }
    means = {name: dict.fromkeys(top.places, value) for name, value in (("base", 1.0), ("self", 2.0), ("tuned", 3.0))}
    table = vector_table(top, tuned, activations=means)
    assert len(table) == 2 * 2 * 2 * 12
    still, moved = (table[table["method"] == name].reset_index() for name in ("self", "tuned"))
    assert (still["drift_cosine"] == 1).all()
    assert (still["drift_relative"] == 0).all()
    assert np.allclose(still["cosine_tuned"], still["cosine"], rtol=1e-12)
    assert ((moved["drift_relative"] != 0) == (moved["block"] == 1)).all()
    assert (moved["activation_base"] == 1).all()
    assert (moved["activation"] == 3).all()
    row = moved[(moved["block"] == 1) & (moved["direction"] == "w")].iloc[0]
    v, now = (each.value_matrix(1)[row["neuron"]].double() for each in (base, other))
    assert row["drift_relative"] == pytest.approx(float((now - v).norm() / v.norm()), rel=1e-6)
    assert row["drift_cosine"] == pytest.approx(float(torch.cosine_similarity(v, now, dim=0)), rel=1e-9)
    assert row["cosine_tuned"] == pytest.approx(float(cosines(now[None], DIRECTION)[0]), rel=1e-9)
    assert row["projection_tuned"] == pytest.approx(float(along(now[None], DIRECTION)[1][0]), rel=1e-9)
    assert len(json.loads(row["tokens"])) == 2
    spans = subspace_table(top, components=3)
    assert spans.groupby("direction")["component"].apply(list).to_dict() == {"v": [1, 2, 3], "w": [1, 2, 3]}
    alone = vector_table(find_vectors(base, {"w": DIRECTION}, top=3, tokens=0), {})
    assert set(alone["method"]) == {"base"}
    assert not {"drift_cosine", "activation"} & set(alone)


def test_lists_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="width 16; it is of another model"):
        find_vectors(tiny_checkpoint("llama"), {"w": torch.ones(17)})
    with pytest.raises(InputError, match="no single value matrix"):
        find_vectors(tiny_checkpoint("mixtral"), {"w": DIRECTION})
    damaged = tiny_checkpoint("llama")
    damaged.value_matrix(1)[3, 4] = float("nan")
    with pytest.raises(InputError, match="llama: block 1 has 1 value vectors with NaN"):
        find_vectors(damaged, {"w": DIRECTION})
    with pytest.raises(InputError, match="nothing was ranked along 'v'"):
        find_vectors(tiny_checkpoint("llama"), {"w": DIRECTION}, top=3).top("v", 3)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    base = planted("mistral")
    base.save(folder / "base")
    changed(planted("mistral")).save(folder / "tuned")
    tiny_checkpoint("gpt2").save(folder / "gpt2")
    name, _ = base.names.value_parameter(1)
    edited = WeightDelta({name: 0.1 * torch.ones(D_MODEL, D_MLP)}, block=1, instance=0, fingerprint=base.fingerprint)
    edited.save(folder / "edit")
    probe_of(D_MODEL, base.fingerprint).save(folder / "probe.st")
    probe_of(D_MODEL, "of other weights").save(folder / "other.st")
    ToxicDirection(DIRECTION, "file", "planted", base.fingerprint).save(folder / "planted.st")
    np.save(folder / "bare.npy", DIRECTION.numpy())
    np.save(folder / "wide.npy", np.ones(D_MODEL + 1, dtype=np.float32))
    return folder


def test_the_command_lists_the_planted_vectors(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["vectors", "--model", there / "base", "--direction", there / "planted.st", "--top", "6"]
    arguments += ["--against", f"mine={there / 'tuned'}", "--against", there / "edit", "--probe", there / "probe.st"]
    assert call(*arguments, "--final-norm", "--out", tmp_path) == 0
    table, spans = (pd.read_csv(tmp_path / "tables" / f"{name}.csv") for name in ("value_vectors", "toxic_subspace"))
    rows = table[(table["direction"] == "planted") & (table["method"] == "mine") & (table["ranking"] == "cosine")]
    assert list(zip(rows["block"], rows["neuron"], strict=True))[:4] == list(PLANTED)
    assert list(rows["rank"]) == [1, 2, 3, 4, 5, 6]
    assert len(table) == 2 * 2 * 2 * 6  # tuned checkpoints, directions, rankings
    assert ((table["drift_relative"] != 0) == (table["block"] == 1)).all()
    assert set(spans["direction"]) == {"planted", "probe"}
    shown = capsys.readouterr().out
    assert "value vectors along planted, by cosine" in shown
    assert "3 (block 2)" in shown
    assert "drift mine" in shown


def test_the_command_reads_bare_files_and_says_that_they_are_unchecked(
    there: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["vectors", "--model", there / "base", "--direction", f"mine={there / 'bare.npy'}", "--tokens", "0"]
    assert call(*arguments, "--by", "projection") == 0
    shown = capsys.readouterr()
    assert "value vectors along mine, by projection" in shown.out
    assert "not checked" in shown.err


GOOD = "vectors --model base --direction planted.st"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("vectors --model base", "give --probe FILE or --direction FILE"),
        ("vectors --model ./nowhere --direction planted.st", "no such folder"),
        ("vectors --model base --direction none.st", "none.st: no such file"),
        ("vectors --model base --probe none.st", "none.st: no such file"),
        ("vectors --model base --direction wide.npy", "has 17 dimensions, base has 16"),
        ("vectors --model base --direction other.st", "the direction belongs to other weights"),
        ("vectors --model base --direction base/config.json", "a direction is read from"),
        (GOOD + " --direction planted.st", "['planted'] occur twice; give NAME=FILE"),
        (GOOD + " --by size", "'size' is not one of 'cosine', 'projection'"),
        (GOOD + " --top 0", "--top"),
        (GOOD + " --tokens 0 --final-norm", "--final-norm is for the top tokens"),
        (GOOD + " --against ./nowhere", "no such folder"),
        (GOOD + " --against gpt2", "different architectures (gpt2, mistral)"),
        (GOOD + " --against tuned --against tuned", "occur twice"),
        (GOOD + " --against base", "give it another name than 'base'"),
        (GOOD + " --out base/config.json", "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    there: Path, command: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    assert message in refused(capsys, *command.split())

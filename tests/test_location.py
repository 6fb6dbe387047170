"""The toxic layer: the four distances by hand, in batches and one by one, and the audit of how far they agree."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from conftest import CONFIGS, MAIN_ARCHITECTURES, N_BLOCKS, make_instance, tiny_checkpoint
from transformers import AutoModelForCausalLM

from mechinterp.audit.location import COLUMNS, agreement, histogram, locate
from mechinterp.audit.toxic_layer import blocks_for, toxic_block
from mechinterp.data.safeedit import SafeEditInstance, write_safeedit
from mechinterp.errors import InputError
from mechinterp.measures.distances import DISTANCES, Distance, pair_distances
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.response_pairs import PairLayout, distances_by_block
from mechinterp.models.text.tokens import Encoded

LENGTHS = [(9, 30), (40, 12), (5, 5), (22, 21), (3, 60), (31, 31), (17, 30), (30, 2)]  # of safe and unsafe, in letters
INSTANCES = [
    make_instance(
        i,
        category=("Bias", "Mental")[i % 2],
        safe_generation=("I can not do it, as it is wrong and harms the ones near us." * 2)[:safe],
        unsafe_generation=("You fool, just do it and stop whining, nobody will ever see it." * 2)[i : i + unsafe],
    )
    for i, (safe, unsafe) in enumerate(LENGTHS)
]
EVEN = [i for i, (safe, unsafe) in enumerate(LENGTHS) if safe == unsafe]


def layout_of(checkpoint: Checkpoint, instances: list[SafeEditInstance], side: str) -> PairLayout:
    ids = [
        [checkpoint.tokenizer(text)["input_ids"] for text in (i.safe_generation, i.unsafe_generation)]
        for i in instances
    ]
    return PairLayout.of([(Encoded.of(safe, 1), Encoded.of(unsafe, 1)) for safe, unsafe in ids], side, 259)


def by_block(checkpoint: Checkpoint, instances: list[SafeEditInstance], side: str = "left") -> torch.Tensor:
    """Every distance after every block of instances that share a pass, [distance, block, pair]."""
    sites = [checkpoint.names.site(resid_post(block)) for block in range(N_BLOCKS)]
    with torch.no_grad():
        return distances_by_block(checkpoint, sites, layout_of(checkpoint, instances, side))[0]


# -- the distances --------------------------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    safe = torch.tensor([[[1.0], [2.0], [9.0]]])  # one pair, three positions, the last one padding
    unsafe = torch.tensor([[[4.0], [6.0], [7.0]]])
    masks = torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]])
    found = dict(zip(DISTANCES, pair_distances(safe, unsafe, *masks, DISTANCES)[:, 0].tolist(), strict=True))
    assert found["released"] == pytest.approx(math.sqrt(9 + 16 + 4))
    assert found["residual"] == pytest.approx(5.0)
    assert found["pooled"] == pytest.approx(17 / 3 - 1.5)
    assert found["relative"] == pytest.approx((17 / 3 - 1.5) / (17 / 3 + 1.5))


def test_of_many_pairs_each_has_its_own_distance_whatever_stands_beyond_it() -> None:
    generator = torch.Generator().manual_seed(0)
    safe, unsafe = torch.randn(2, 3, 7, 4, generator=generator)
    widths = torch.tensor([7, 4, 5])
    own = torch.arange(7) < widths[:, None]
    masks = own & (torch.arange(7) >= torch.tensor([2, 0, 1])[:, None]), own
    alone = [
        pair_distances(*(x[i : i + 1, :width] for x in (safe, unsafe, *masks)), DISTANCES)
        for i, width in enumerate(widths)
    ]
    safe[~own], unsafe[~own] = math.nan, math.inf
    together = pair_distances(safe, unsafe, *masks, DISTANCES, own=own)
    torch.testing.assert_close(together, torch.cat(alone, dim=1))
    assert not torch.isfinite(pair_distances(safe, unsafe, *masks, ["released"])).all()  # the control


def test_of_one_pair_released_is_torchs_own_distance_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    for positions, width in ((1, 3), (37, 128), (301, 96)):
        safe, unsafe = torch.randn(2, 1, positions, width, generator=generator)
        every = torch.ones(1, positions, dtype=torch.bool)
        found = pair_distances(safe, unsafe, every, every, ["released"], own=every)
        assert torch.equal(found[0, 0], torch.dist(safe[0], unsafe[0], p=2))


def test_an_unknown_distance_is_refused_with_the_known_ones(unchecked: None) -> None:
    safe, mask = torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(InputError, match="distance must be one of"):
        pair_distances(safe, safe, mask, mask, ["nearest"])  # type: ignore[list-item]


# -- in batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt"])
def test_released_is_what_the_released_code_computes(architecture: str, side: str) -> None:
    """Its few lines restated: pad the pair, all hidden states, the Frobenius distance of each layer, the argmax."""
    checkpoint = tiny_checkpoint(architecture)
    located = locate(checkpoint, INSTANCES, padding_side=side, max_tokens=1).query("distance == 'released'")
    tokenizer = checkpoint.tokenizer
    before, tokenizer.padding_side = tokenizer.padding_side, side
    for instance, (_, row) in zip(INSTANCES, located.iterrows(), strict=True):
        pair = tokenizer([instance.safe_generation, instance.unsafe_generation], return_tensors="pt", padding=True)
        with torch.no_grad():
            states = checkpoint.model(
                input_ids=pair["input_ids"], attention_mask=pair["attention_mask"], output_hidden_states=True
            ).hidden_states
        distances = [torch.dist(h[0], h[1], p=2).item() for h in states[1:]]
        assert by_block(checkpoint, [instance], side)[0, :, 0].tolist() == pytest.approx(
            distances, rel=1e-6
        )  # all blocks
        assert (row["instance"], row["block"]) == (instance.id, int(np.argmax(distances)))
        assert row["value"] == pytest.approx(max(distances), rel=1e-6)
        assert row["margin"] == pytest.approx(1 - sorted(distances)[-2] / max(distances))
    tokenizer.padding_side = before


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "neox", "qwen3", "phi3", "mixtral"])
def test_the_masked_distances_are_those_of_responses_read_alone(architecture: str) -> None:
    """No padding anywhere: each response by itself; the ends stand beside each other where padding goes left."""
    checkpoint = tiny_checkpoint(architecture)
    seen: list[torch.Tensor] = []
    last = checkpoint.module(f"blocks.{N_BLOCKS - 1}")

    def states(text: str) -> torch.Tensor:
        handle = last.register_forward_hook(
            lambda _, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        with torch.no_grad():
            ids = checkpoint.tokenizer(text, return_tensors="pt")["input_ids"]
            hidden = checkpoint.model(input_ids=ids, output_hidden_states=True).hidden_states
        handle.remove()
        return torch.stack([*hidden[1:-1], seen[-1]])[:, 0]

    for side in ("left", "right"):
        found = by_block(checkpoint, INSTANCES, side)
        for i, instance in enumerate(INSTANCES):
            safe, unsafe = states(instance.safe_generation), states(instance.unsafe_generation)
            n = min(safe.shape[1], unsafe.shape[1])
            both = (safe[:, -n:], unsafe[:, -n:]) if side == "left" else (safe[:, :n], unsafe[:, :n])
            residual = (both[0] - both[1]).flatten(1).norm(dim=1)
            pooled = (safe.mean(1) - unsafe.mean(1)).norm(dim=1)
            relative = pooled / (safe.mean(1).norm(dim=1) + unsafe.mean(1).norm(dim=1))
            torch.testing.assert_close(found[1:, :, i], torch.stack([residual, pooled, relative]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "llama", "gemma2", "gemma3", "opt"])
def test_in_batches_as_one_by_one(architecture: str, side: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    alone = locate(checkpoint, INSTANCES, padding_side=side, max_tokens=1)
    for max_tokens in (200, None):
        together = locate(checkpoint, INSTANCES, padding_side=side, max_tokens=max_tokens)
        pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(together["value"], alone["value"], rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "opt", "gemma3"])
def test_a_pair_does_not_see_how_wide_its_batch_is(architecture: str) -> None:
    """At every block, not only at the largest; the padding on the left, which `released` counts, included."""
    checkpoint = tiny_checkpoint(architecture)
    together = by_block(checkpoint, INSTANCES)
    for i, instance in enumerate(INSTANCES):
        torch.testing.assert_close(together[..., i], by_block(checkpoint, [instance])[..., 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["gemma2", "mistral"])
def test_eager_attention_wants_pairs_of_one_width(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fully masked rows look at all columns alike: the control shows that what is guarded against is real."""
    checkpoint = tiny_checkpoint(architecture)
    checkpoint.model.set_attn_implementation("eager")
    alone, together = (locate(checkpoint, INSTANCES, max_tokens=max_tokens) for max_tokens in (1, None))
    np.testing.assert_allclose(together["value"], alone["value"], rtol=1e-5)
    monkeypatch.setattr("mechinterp.audit.location.padding_sees_width", lambda _: False)
    mixed = locate(checkpoint, INSTANCES)
    moved = ~np.isclose(mixed["value"], alone["value"], rtol=1e-4)
    assert moved.any()
    assert set(mixed.loc[moved, "distance"]) == {"released"}


def test_a_short_pair_computes_the_same_beside_a_long_one() -> None:
    """Phi-3's longrope encodes positions by the longest sequence of a batch."""
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    config = CONFIGS["phi3"]()
    config.rope_parameters = {**scaling, "original_max_position_embeddings": 32, "factor": 8.0}
    config.original_max_position_embeddings = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    checkpoint = Checkpoint("long", model, tiny_checkpoint("phi3").tokenizer)
    alone, together = (locate(checkpoint, INSTANCES, max_tokens=max_tokens) for max_tokens in (1, None))
    np.testing.assert_allclose(together["value"], alone["value"], rtol=1e-5)
    mixed = by_block(checkpoint, INSTANCES)  # the control: in one pass it would differ
    assert (mixed[..., 0] / by_block(checkpoint, INSTANCES[:1])[..., 0] - 1).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])  # learned and rotary positions
def test_padding_moves_only_the_distances_that_see_it(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    left, right = (by_block(checkpoint, INSTANCES, side) for side in ("left", "right"))
    for distance, same in (("pooled", True), ("relative", True), ("residual", False), ("released", False)):
        row = DISTANCES.index(distance)  # type: ignore[arg-type]
        assert torch.allclose(left[row], right[row], rtol=1e-4) == same
    torch.testing.assert_close(left[..., EVEN], right[..., EVEN], rtol=1e-5, atol=1e-6)  # nothing is padded there


@pytest.mark.parametrize(
    ("architecture", "numbers", "side", "passes"),
    [
        ("gpt2", range(8), "left", 2),
        ("opt", range(8), "left", 2),
        ("llama", range(8), "left", 1),
        ("gpt2", range(8), "right", 1),
        ("gpt2", EVEN, "left", 1),
    ],
)
def test_a_second_pass_only_where_padding_moves_a_response(
    architecture: str, numbers: list[int], side: str, passes: int
) -> None:
    checkpoint = tiny_checkpoint(architecture)
    counted, logits = [], []
    handles = [
        checkpoint.model.base_model.register_forward_hook(lambda *_: counted.append(1)),
        checkpoint.model.lm_head.register_forward_hook(lambda *_: logits.append(1)),
    ]
    by_block(checkpoint, [INSTANCES[i] for i in numbers], side)
    for handle in handles:
        handle.remove()
    assert len(counted) == passes
    assert not logits  # nobody asked for them


def test_no_state_outlives_the_next_block() -> None:
    """Memory flat in depth; `output_hidden_states`, which keeps them all, is the control."""
    checkpoint = tiny_checkpoint("gpt2")
    sizes: list[int] = []
    alive: list[weakref.ref] = []

    def watch(*parts: object) -> None:
        sizes.append(sum(reference() is not None for reference in alive))
        output = parts[-1][0] if isinstance(parts[-1], tuple) else parts[-1]
        alive.append(weakref.ref(output.untyped_storage()))

    handles = [checkpoint.module(f"blocks.{b}").register_forward_hook(watch) for b in range(N_BLOCKS)]
    by_block(checkpoint, INSTANCES)
    ours, sizes[:] = max(sizes), []
    alive.clear()
    layout = layout_of(checkpoint, INSTANCES, "left")
    with torch.no_grad():
        kept = checkpoint.model(input_ids=layout.ids, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    assert len(kept) == N_BLOCKS + 1
    assert (ours, max(sizes)) == (1, N_BLOCKS - 1)


def test_the_model_is_left_as_it_was() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    checkpoint.model.train()
    fingerprint, side = checkpoint.fingerprint, checkpoint.tokenizer.padding_side
    told: list[tuple[int, int]] = []
    first = locate(checkpoint, INSTANCES, progress=lambda done, total: told.append((done, total)))
    pd.testing.assert_frame_equal(first, locate(checkpoint, INSTANCES))  # no dropout
    assert told[-1] == (len(INSTANCES), len(INSTANCES))
    assert all(module.training for module in checkpoint.model.modules())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in checkpoint.model.modules())
    assert (replace(checkpoint).fingerprint, checkpoint.tokenizer.padding_side) == (fingerprint, side)


# -- what cannot be located -------------------------------------------------------------------------------------------


def test_what_cannot_be_located_is_told_by_its_instance() -> None:
    checkpoint = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="no instances"):
        locate(checkpoint, [])
    with pytest.raises(InputError, match="padding side must be left or right, got 'up'"):
        locate(checkpoint, INSTANCES, padding_side="up")  # type: ignore[arg-type]
    long = make_instance(7, unsafe_generation="You fool " * 40)
    with pytest.raises(InputError, match=r"instance 7: a response has 3\d\d tokens, the context 256"):
        locate(checkpoint, [*INSTANCES[:2], long])
    ids = checkpoint.tokenizer(long.unsafe_generation)["input_ids"][:256]
    cut = long.model_copy(update={"unsafe_generation": checkpoint.tokenizer.decode(ids)})
    pd.testing.assert_frame_equal(locate(checkpoint, [long], truncate=True), locate(checkpoint, [cut]))
    with pytest.raises(InputError, match="instance 3: its unsafe response is blank"):
        locate(checkpoint, [make_instance(3).model_copy(update={"unsafe_generation": " "})])
    with pytest.raises(InputError, match="instance 4: its two responses are the same"):
        locate(checkpoint, [make_instance(4, unsafe_generation="No.", safe_generation="No.")])


def test_activations_that_are_not_finite_are_told_by_their_instance() -> None:
    checkpoint = tiny_checkpoint("llama")
    checkpoint.model.get_input_embeddings().weight.data[ord("~") - ord("!")] = math.inf  # of one letter
    bad = make_instance(9, safe_generation="I am ~ sorry.")
    with pytest.raises(InputError, match="instance 9: its activations are not finite"):
        locate(checkpoint, [*INSTANCES, bad])
    assert len(locate(checkpoint, INSTANCES)) == len(INSTANCES) * len(DISTANCES)


# -- the audit --------------------------------------------------------------------------------------------------------


def located_at(blocks: dict[Distance, list[int]]) -> pd.DataFrame:
    rows = [
        (i, ("Bias", "Offensiveness")[i % 2], distance, block, 1.0, 0.5, 0.1, 0, 0, 0.0)
        for distance, found in blocks.items()
        for i, block in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


AT = located_at({"released": [2, 2, 2, 2], "residual": [2, 2, 2, 2], "pooled": [0, 1, 0, 1], "relative": [0, 1, 1, 1]})


def test_the_audit_counts_every_instance_under_every_distance() -> None:
    checkpoint = tiny_checkpoint("llama")
    located = locate(checkpoint, INSTANCES)
    assert list(located) == COLUMNS
    assert located["instance"].tolist() == [i.id for i in INSTANCES for _ in DISTANCES]
    assert located["margin"].between(0, 1).all()
    counts = histogram(located, N_BLOCKS)
    assert counts.groupby("distance")["count"].sum().to_dict() == dict.fromkeys(DISTANCES, len(INSTANCES))
    apart = histogram(located, N_BLOCKS, by="category")
    assert list(apart) == ["category", "distance", "block", "count", "sinks"]
    assert apart["category"].unique().tolist() == ["Bias", "Mental"]
    summed = apart.groupby(["distance", "block"], sort=False)[["count", "sinks"]].sum().reset_index()
    pd.testing.assert_frame_equal(summed, counts)


def test_categories_are_counted_in_the_papers_order() -> None:
    apart = histogram(AT, 3, by="category")
    assert apart["category"].unique().tolist() == ["Offensiveness", "Bias"]
    counts = apart.query("distance == 'relative'").pivot(index="category", columns="block", values="count")
    assert counts.loc["Bias"].tolist() == [1, 1, 0]
    assert counts.loc["Offensiveness"].tolist() == [0, 2, 0]


def test_agreement_by_hand() -> None:
    found = agreement(AT).set_index(["distance", "other"])
    assert len(found) == 6
    assert (found["n"] == 4).all()
    same = found.loc[("released", "residual")]
    assert same["share"] == 1.0
    assert math.isnan(same["kappa"])  # both always name block 2: chance alone would agree
    assert (same["share_low"], same["share_high"]) == (wilson(4, 4).low, wilson(4, 4).high)
    never = found.loc[("released", "pooled")]
    assert (never["share"], never["kappa"]) == (0.0, 0.0)
    # three of four; by chance (1/2)(1/4) + (1/2)(3/4) = 1/2, so (3/4 - 1/2) / (1 - 1/2)
    assert found.loc[("pooled", "relative"), "share"] == 0.75
    assert found.loc[("pooled", "relative"), "kappa"] == pytest.approx(0.5)
    pd.testing.assert_frame_equal(agreement(AT.sample(frac=1, random_state=0)), agreement(AT))
    with pytest.raises(InputError, match="located more than once"):
        agreement(pd.concat([AT, AT]))


def test_where_each_instance_is_edited() -> None:
    assert blocks_for(AT, [3, 0], "relative") == {3: 1, 0: 0}
    assert blocks_for(AT, [make_instance(2), make_instance(0)], "relative") == {2: 1, 0: 0}
    assert blocks_for(AT, [3, 0, 2], "relative", reuse_first_layer=True) == {3: 1, 0: 1, 2: 1}
    assert blocks_for(AT[AT["instance"] == 3], [3, 0], "relative", reuse_first_layer=True) == {3: 1, 0: 1}
    assert blocks_for(AT, [], reuse_first_layer=True) == {}
    for reuse in (True, False):
        with pytest.raises(InputError, match="nothing was located by 'released' for instance 99"):
            blocks_for(AT, [99, 0], reuse_first_layer=reuse)


def test_the_toxic_block_of_one_and_of_most() -> None:
    assert toxic_block(AT, "pooled") == 0  # the earliest of equals
    assert toxic_block(AT, "relative") == 1
    assert toxic_block(AT, "relative", 0) == 0
    with pytest.raises(InputError, match="nothing was located"):
        toxic_block(AT, "pooled", 99)


def test_the_command_writes_the_audit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = tiny_checkpoint("llama")
    checkpoint.save(tmp_path / "model")
    write_safeedit(INSTANCES, tmp_path / "data.json")
    given = ["--model", tmp_path / "model", "--data", tmp_path / "data.json", "--device", "cpu"]
    assert call("locate", *given, "--out", tmp_path / "out", "--max-tokens", 1) == 0
    shown = capsys.readouterr().out
    assert "layer 3 (block 2)" in shown
    assert "kappa" in shown
    located = locate(checkpoint, INSTANCES, max_tokens=1)
    tables = {
        "located": located,
        "toxic_layer": histogram(located, N_BLOCKS),
        "toxic_layer_by_category": histogram(located, N_BLOCKS, by="category"),
        "toxic_layer_agreement": agreement(located),
    }
    assert {path.stem for path in (tmp_path / "out").glob("[!.]*")} == set(tables)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / f"{name}.csv"), table, rtol=1e-6)
    assert call("locate", *given, "--padding-side", "up") == 2
    assert "the padding side must be left or right, got 'up'" in capsys.readouterr().err

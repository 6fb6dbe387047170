"""Which weights carry a change: contributions add up to it, and where the truth is known they tell it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import call, refused
from conftest import D_MLP, D_MODEL, N_BLOCKS, tiny_checkpoint
from gguf_files import wide, write_gguf
from made_checkpoints import edits_in, make_adapter
from test_readouts import PAIRS

import mechinterp as mi
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.origins import game
from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.controls import random_groups, shuffled_labels
from mechinterp.audit.origins.game import Game, play
from mechinterp.audit.origins.groups import places
from mechinterp.audit.origins.measuring import Origins, origins_of, origins_tables
from mechinterp.audit.origins.path import Path as Along
from mechinterp.audit.origins.path import attribute
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.origins.units import Units
from mechinterp.audit.readouts import Readout, ReadoutTexts, log_odds, read, write
from mechinterp.audit.tables.registry import TABLES
from mechinterp.data.pair_files import write_pairs
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.interventions.replacing import replaced
from mechinterp.runs.folder import RunFolder

GROUPS = ("embed", "attention", "mlp.in", "mlp.out", "norm")
UNITS, ONE = Units.of(range(len(PAIRS))), Units.of([0] * len(PAIRS))


def perturbed(base: Checkpoint, groups: Sequence[str] = GROUPS, size: float = 0.02, seed: int = 1) -> Checkpoint:
    """A copy with noise in the weights of some groups."""
    model, generator = copy.deepcopy(base.model), torch.Generator().manual_seed(seed)
    where = places(base.names, base.shapes)
    for name, parameter in model.named_parameters():
        if where[name].group in groups:
            parameter.data += (size * torch.randn(parameter.shape, generator=generator)).to(parameter)
    return replace(base, name="tuned", model=model)


def both(
    base: Checkpoint, tuned: Checkpoint | WeightDelta, readout: Readout = log_odds, nodes: int = 4, **how: object
) -> tuple[Game, Along]:
    change, texts = Change.of(base, tuned, **how), ReadoutTexts.of(base, PAIRS, tokens=6)
    with change.hybrid(()):
        before = read(base, texts, readout)
    with change.hybrid(change.changed):
        after = read(base, texts, readout)
    played = play(change, texts, readout, UNITS, ends=(before, after))
    return played, attribute(change, texts, readout, UNITS, nodes=nodes)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_contributions_add_up_to_the_change_of_the_two_models(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    tuned = perturbed(base)
    texts = ReadoutTexts.of(base, PAIRS, tokens=6)
    change = Change.of(base, tuned)
    with change.hybrid(()):
        before = read(base, texts)
    with change.hybrid(GROUPS):
        after = read(base, texts)
    played = play(change, texts, log_odds, UNITS, ends=(before, after))
    assert played.groups == GROUPS
    assert played.hybrids == 2**5
    wanted = read(tuned, texts) - read(base, texts)
    torch.testing.assert_close(played.change, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(played.phi.sum(1), wanted, rtol=1e-5, atol=1e-5)
    mean = float(wanted.mean())
    sums = [float(attribute(change, texts, log_odds, ONE, nodes=nodes).phi.sum()) for nodes in (1, 12)]
    assert abs(sums[1] - mean) <= min(0.02 * abs(mean), abs(sums[0] - mean))


def test_path_and_exact_game_agree_where_the_change_is_small() -> None:
    base = tiny_checkpoint("llama")
    played, along = both(base, perturbed(base, size=0.005))
    exact, path = played.phi.mean(0), along.phi.mean(0)
    assert ((path - exact).abs() <= 0.03 * exact.abs().sum()).all()


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_alone_was_changed_has_all_of_it_and_the_others_exactly_nothing(group: str) -> None:
    base = tiny_checkpoint("qwen3")  # with biases nowhere, and norms inside attention
    played, along = both(base, perturbed(base, [group]))
    for phi in (played.phi, along.phi, played.alone, played.last):
        assert (phi[:, [own != group for own in GROUPS]] == 0).all()
    assert torch.equal(played.phi[:, GROUPS.index(group)], played.change)
    assert played.hybrids == 2
    torch.testing.assert_close(along.phi.sum(1), along.change, rtol=0.05, atol=0.02)
    if group == "mlp.out":
        torch.testing.assert_close(along.neurons.sum(2), along.places[:, :N_BLOCKS, GROUPS.index(group)])
    if group != "embed":
        assert (along.places[:, N_BLOCKS, [own not in ("embed", "norm") for own in GROUPS]] == 0).all()


def test_swapping_the_models_flips_every_sign() -> None:
    base = tiny_checkpoint("mistral")
    tuned = perturbed(base)
    (forth, along), (back, along_back) = both(base, tuned), both(tuned, base)
    torch.testing.assert_close(forth.phi, -back.phi, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forth.alone, -back.last, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(along.places, -along_back.places, rtol=1e-3, atol=1e-4)
    assert along.heads is not None
    assert along_back.heads is not None
    torch.testing.assert_close(along.heads, -along_back.heads, rtol=1e-3, atol=1e-4)


def test_a_linear_and_a_bilinear_readout_by_hand() -> None:
    base = tiny_checkpoint("gpt2")
    tuned = base.copied(name="tuned")
    names = [f"transformer.h.{block}.mlp.c_proj.weight" for block in (0, 2)]
    embed = "transformer.wte.weight"
    for checkpoint, sizes in ((base, (1.0, 1.0, 1.0)), (tuned, (3.0, 4.0, 2.0))):
        for name, size in zip([*names, embed], sizes, strict=True):
            checkpoint.parameter(name).data.zero_()
            checkpoint.parameter(name).data[5, 3] = size

    def linear(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> torch.Tensor:
        first, second = (checkpoint.parameter(name)[5].sum() for name in names)
        return (2 * first - second).double() * torch.tensor(numbers)

    played, along = both(base, tuned, linear, nodes=1)
    numbers = torch.arange(len(PAIRS), dtype=torch.float64)
    assert torch.equal(played.phi[:, GROUPS.index("mlp.out")], (2 * 2 - 3) * numbers)
    assert torch.equal(played.alone, played.last)
    assert torch.equal(along.places[:, 0, 3], 4 * numbers)
    assert torch.equal(along.places[:, 2, 3], -3 * numbers)
    wanted = torch.zeros(len(PAIRS), N_BLOCKS, D_MLP, dtype=torch.float64)
    wanted[:, 0, 5], wanted[:, 2, 5] = 4 * numbers, -3 * numbers
    assert torch.equal(along.neurons, wanted)

    def bilinear(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> torch.Tensor:
        a, b = checkpoint.parameter(embed)[5].sum(), checkpoint.parameter(names[0])[5].sum()
        return (a * b).double().repeat(len(numbers))

    played, along = both(base, tuned, bilinear, nodes=2)  # a: 1 -> 2, b: 1 -> 3
    for phi in (played.phi, along.phi):
        torch.testing.assert_close(phi[0], torch.tensor([2.0, 0, 0, 3, 0], dtype=torch.float64))
    assert played.alone[0].tolist() == [1, 0, 0, 2, 0]
    assert played.last[0].tolist() == [3, 0, 0, 4, 0]


def test_pieces_of_the_path_are_halved_where_the_readout_falls_steeply() -> None:
    base = tiny_checkpoint("gpt2")
    name = "transformer.h.1.mlp.c_proj.weight"
    tuned = base.copied(name="tuned")
    base.parameter(name).data[5, 3], tuned.parameter(name).data[5, 3] = 0.0, 1.0
    read_at: list[float] = []

    def steep(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> torch.Tensor:
        weight = checkpoint.parameter(name)[5, 3].double()
        if torch.is_grad_enabled():
            read_at.append(float(weight.detach()))
        return torch.tanh(40 * weight - 3).repeat(len(numbers))

    change, texts = Change.of(base, tuned), ReadoutTexts.of(base, PAIRS, tokens=6)
    found = {most: attribute(change, texts, steep, ONE, at_most=most) for most in (0, 11, 12, 60)}
    off = {most: abs(float(each.phi.sum() / each.change.sum()) - 1) for most, each in found.items()}
    assert (found[0].nodes, found[11].nodes, found[12].nodes) == (4, 4, 8)
    assert off[0] == off[11] > 0.05
    assert off[60] < 0.02
    assert found[60].nodes < 60
    spent = read_at[-(len(read_at) - 4 - 4 - 12) :]  # of the last
    assert len(spent) <= 60
    assert sum(weight < 0.25 for weight in spent) > len(spent) / 2  # where it falls
    torch.testing.assert_close(found[60].neurons.sum(), found[60].phi.sum())
    assert attribute(Change.of(base, base), texts, steep, ONE, at_most=60).nodes == 4  # nothing to make up


def test_both_models_stay_as_they_were_also_after_an_exception() -> None:
    base = tiny_checkpoint("gpt2", dtype=torch.bfloat16)
    tuned = perturbed(base, size=0.1)
    base.model.train()
    base.parameter("transformer.wte.weight").requires_grad_(False)
    own = [dict(checkpoint.model.named_parameters()) for checkpoint in (base, tuned)]
    copies = [{name: p.detach().clone() for name, p in each.items()} for each in own]

    def unharmed() -> None:
        for checkpoint, parameters, values in zip((base, tuned), own, copies, strict=True):
            now = dict(checkpoint.model.named_parameters())
            assert all(now[name] is parameter for name, parameter in parameters.items())
            assert all(torch.equal(now[name], value) for name, value in values.items())
            assert all(parameter.grad is None for parameter in now.values())
        assert [name for name, p in own[0].items() if not p.requires_grad] == ["transformer.wte.weight"]
        assert base.model.training
        assert base.model.lm_head.weight is base.model.transformer.wte.weight

    def broken(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> torch.Tensor:
        log_odds(checkpoint, texts, numbers).sum().backward()
        raise KeyboardInterrupt

    both(base, tuned)
    unharmed()
    change, texts = Change.of(base, tuned), ReadoutTexts.of(base, PAIRS, tokens=6)
    ends = read(base, texts), read(tuned, texts)
    for work in (
        lambda: play(change, texts, broken, UNITS, ends=ends),
        lambda: attribute(change, texts, broken, UNITS, ends=ends),
    ):
        with pytest.raises((KeyboardInterrupt, RuntimeError)):
            work()
        unharmed()


def test_tied_embeddings_are_one_and_replaced_wherever_they_stand() -> None:
    base = tiny_checkpoint("gpt2")
    where = places(base.names, base.shapes)
    assert [name for name, place in where.items() if place.group == "embed"] == [
        "transformer.wte.weight",
        "transformer.wpe.weight",
    ]
    tuned, texts = perturbed(base, ["embed"]), ReadoutTexts.of(base, PAIRS)
    with Change.of(base, tuned).hybrid(["embed"]) as hybrid:
        assert torch.equal(read(hybrid, texts), read(tuned, texts))
        assert hybrid.model.lm_head.weight is hybrid.model.transformer.wte.weight
    with replaced(
        base.model, {"transformer.wte.weight": tuned.parameter("transformer.wte.weight")}, gradient=True
    ) as new:
        assert list(new) == ["transformer.wte.weight"]
        assert [name for name, p in base.model.named_parameters() if p.requires_grad] == list(new)


@pytest.mark.parametrize("types", [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)])
def test_narrow_models_are_attributed_in_float32(types: tuple[torch.dtype, torch.dtype]) -> None:
    base = tiny_checkpoint("llama", dtype=types[0])
    tuned = perturbed(tiny_checkpoint("llama"), ["attention", "mlp.out"], size=0.05)
    tuned.model.to(types[1])
    wide = [replace(each, model=copy.deepcopy(each.model).float()) for each in (base, tuned)]
    texts = ReadoutTexts.of(base, PAIRS, tokens=6)
    ends = read(base, texts), read(tuned, texts)
    change = Change.of(base, tuned)
    along = attribute(change, texts, log_odds, ONE, nodes=2)
    in_float32 = attribute(Change.of(*wide), texts, log_odds, ONE, nodes=2)
    torch.testing.assert_close(along.places, in_float32.places, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(along.change, in_float32.change, rtol=1e-4, atol=1e-4)
    assert (along.places[:, :N_BLOCKS, [1, 3]] != 0).all()
    if types[0] == types[1]:  # else every weight differs by rounding, and hybrids are read in the wider type
        played = play(change, texts, log_odds, UNITS, ends=ends)
        assert played.hybrids == 4
        torch.testing.assert_close(played.phi.sum(1), ends[1] - ends[0], rtol=1e-5, atol=1e-5)
    else:
        with change.hybrid(change.changed) as hybrid:
            assert {parameter.dtype for parameter in hybrid.model.parameters()} == {torch.float32}


def test_the_type_of_nodes_is_found_once_and_not_at_every_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_checkpoint("llama")
    change = Change.of(base, perturbed(base))
    name = next(iter(change.tensors))
    change.difference(name, base.parameter(name))
    monkeypatch.setattr(base.model, "parameters", lambda: pytest.fail("went through all parameters again"))
    change.difference(name, base.parameter(name))


def test_contributions_are_summed_in_pieces_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_checkpoint("llama")
    change, texts = Change.of(base, perturbed(base)), ReadoutTexts.of(base, PAIRS, tokens=6)
    whole = attribute(change, texts, log_odds, ONE).phi
    monkeypatch.setattr("mechinterp.audit.origins.path._PIECE", 100)
    assert torch.allclose(attribute(change, texts, log_odds, ONE).phi, whole, rtol=1e-12, atol=0)


def test_an_edit_is_the_checkpoint_with_it_in_its_weights() -> None:
    base = tiny_checkpoint("llama")
    name = base.names.value_parameter(1)[0]
    delta = WeightDelta({name: 0.1 * torch.ones(base.shapes[name])}, 1, 0, fingerprint=base.fingerprint)
    merged = delta.merged(base, name="merged")
    for edited, whole in zip(both(base, delta), both(base, merged), strict=True):
        assert torch.equal(edited.phi, whole.phi)
        assert (edited.phi[:, [0, 1, 2, 4]] == 0).all()
    along = both(base, delta)[1]
    assert (along.neurons[:, [0, 2]] == 0).all()
    assert (along.neurons[:, 1] != 0).any()
    with pytest.raises(InputError, match="this edit belongs to weights"):
        Change.of(tiny_checkpoint("llama", seed=1), delta)


def test_a_gguf_base_is_attributed_as_the_model_that_it_holds(tmp_path: Path) -> None:
    base = Checkpoint.load(write_gguf(wide("llama"), tmp_path / "Q8_0.gguf", "Q8_0"), device="cpu")
    base.save(tmp_path / "plain")
    plain = Checkpoint.load(tmp_path / "plain", device="cpu")
    tuned = perturbed(base, ["mlp.out", "norm"])
    for of_file, of_folder in zip(both(base, tuned, nodes=1), both(plain, tuned, nodes=1), strict=True):
        assert torch.equal(of_file.phi, of_folder.phi)
        assert (of_file.phi[:, [0, 1, 2]] == 0).all()
        assert (of_file.phi[:, 3:] != 0).all()


def test_finer_groups_and_sampled_games(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_checkpoint("mistral")
    split = Change.of(base, perturbed(base), "split").groups
    assert split == ("embed", "attention.qk", "attention.vo", "mlp.in", "mlp.out", "norm")
    tuned = perturbed(base, ["mlp.out"], size=0.1)
    exact, along = both(base, tuned, grouping="blocks", nodes=1)
    assert exact.groups == ("embed", "norm", "block 0", "block 1", "block 2")
    assert exact.hybrids == 2**3
    assert along.present == {(3, "embed"), (3, "norm"), (0, "block 0"), (1, "block 1"), (2, "block 2")}
    monkeypatch.setattr(game, "EXACT", 2)
    sampled, _ = both(base, tuned, grouping="blocks", nodes=1)
    assert exact.error is None
    assert sampled.error is not None
    torch.testing.assert_close(sampled.phi.sum(1), exact.change, rtol=1e-5, atol=1e-5)
    assert ((sampled.phi.mean(0) - exact.phi.mean(0)).abs() <= 5 * sampled.error + 1e-6).all()
    with pytest.raises(InputError, match="packs queries, keys and values into one matrix"):
        places(tiny_checkpoint("gpt2").names, tiny_checkpoint("gpt2").shapes, "split")


def measured(base: Checkpoint, tuned: Checkpoint, **settings: object) -> Origins:
    asked = Asked.of(base, PAIRS, [True] * 3 + [False] * 2, prompts=5, tokens=6)
    assert asked.own == 3
    return origins_of(base, tuned, asked, method="tuned", settings=OriginsSettings(**{"most_nodes": 0, **settings}))


def test_tables_share_the_change_out_and_say_where_there_is_none() -> None:
    base = tiny_checkpoint("llama")
    direction = torch.arange(1.0, D_MODEL + 1)
    found = measured(base, perturbed(base, size=0.05), top=4, readouts=("log_odds", "unsafe_logprob"))
    table, blocks, parts = (found.tables[name] for name in ("origins", "origins_blocks", "origins_neurons"))
    assert set(table["way"]) == {"exact game", "path"}
    for (readout, way), rows in table.groupby(["readout", "way"]):
        assert rows["phi"].sum() == pytest.approx(rows["completeness"].iloc[0] * rows["change"].iloc[0], rel=1e-6)
        if rows["note"].iloc[0] == "":
            assert rows["share"].abs().sum() == pytest.approx(1)
            assert (rows["share_low"] <= rows["share"]).all()
        if way == "path":
            own = blocks[blocks["readout"] == readout]
            assert own["phi"].sum() == pytest.approx(rows["phi"].sum(), rel=1e-6)
    assert len(parts) == 2 * 2 * 4
    assert set(blocks.loc[blocks["block"].isna(), "group"]) == {"embed", "norm"}
    nothing = measured(base, base)
    assert (nothing.tables["origins"]["phi"] == 0).all()
    assert nothing.tables["origins"][["share", "share_low", "share_of_change"]].isna().all(axis=None)
    assert set(nothing.tables["origins"]["note"]) == {"undefined: the interval of the change contains 0"}
    assert nothing.tables["origins_neurons"].empty
    assert [len(joined) for joined in origins_tables([found, nothing.named("none")]).values()] == [30, 42, 16, 19]
    asked = Asked.of(base, PAIRS, [False] * 5, prompts=3)
    assert len(asked.texts) == 3
    writes = origins_of(base, perturbed(base), asked, method="tuned", more={"write": write(direction)})
    assert set(writes.tables["origins"]["readout"]) == {"log_odds", "write"}


def test_controls_find_what_is_known_beforehand() -> None:
    base = tiny_checkpoint("llama")
    found = measured(base, perturbed(base), game="never").tables["origins_controls"]
    assert (found.loc[found["control"] == "random groups", "expected"] == 1 / 4).all()
    same = found[found["control"] == "base against base"].iloc[0]
    assert (same["found"], same["found_low"], same["found_high"]) == (0, 0, 0)
    assert same["note"] == "undefined: the interval of the change contains 0"
    drawn = found[found["control"] == "shuffled labels"].set_index("quantity")
    assert drawn["expected"].tolist() == pytest.approx([0, 0.05])
    attention = measured(base, perturbed(base, ["attention"]), game="never").tables["origins_controls"]
    assert set(attention.loc[attention["control"] == "random groups", "note"]) == {
        "undefined: no value vector was changed"
    }
    nothing = measured(base, base).tables["origins_controls"]
    assert nothing.loc[nothing["control"] == "random groups", "found"].isna().all()
    assert (nothing.loc[nothing["quantity"] == "changes that pass for one", "found"] == 0).all()


def test_a_change_whose_labels_are_drawn_passes_for_none_but_for_chance() -> None:
    prompts = 60
    change = -20 + torch.randn(prompts, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    units = Units.of([prompt // 2 for prompt in range(prompts)])
    of_one, taken = shuffled_labels(units, (torch.zeros(prompts), change), seed=0)
    assert abs(of_one["found"]) < 4 * 20 / prompts**0.5
    assert taken["found"] < 0.2
    assert taken["found_low"] < 0.12


def test_random_groups_carry_their_part_give_or_take_what_dealing_out_does() -> None:
    base = tiny_checkpoint("llama")
    change = Change.of(base, perturbed(base, ["mlp.out"]))
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(N_BLOCKS, D_MLP, generator=generator, dtype=torch.float64).exp()
    neurons = own + 0.1 * torch.randn(6, N_BLOCKS, D_MLP, generator=generator, dtype=torch.float64)
    total = neurons.sum(2)
    places = torch.zeros(6, N_BLOCKS + 1, 5, dtype=torch.float64)
    places[:, :N_BLOCKS, 3] = total
    along = Along(GROUPS, torch.zeros(6), total.sum(1), places, neurons, None, 4, frozenset())
    shares = [
        row for seed in range(50) for row in random_groups(change, Units.of(range(6)), along, seed=seed, prompts=6)
    ]
    found = torch.tensor([row["found"] for row in shares])
    spread = shares[0]["spread"]
    assert torch.allclose(found.unflatten(0, (-1, 4)).sum(1), torch.ones(50))
    assert float(found.std()) == pytest.approx(spread, rel=0.2)


def test_what_comes_back_from_a_folder_is_what_was_kept(tmp_path: Path) -> None:
    base = tiny_checkpoint("gpt2")
    found = measured(base, perturbed(base, ["mlp.in"]), game="never")
    again = Origins.load(found.save(tmp_path / "kept"))
    for name, table in found.tables.items():
        assert again.tables[name].astype(str).equals(table.astype(str)), name


def test_an_incomplete_path_is_told(caplog: pytest.LogCaptureFixture) -> None:
    base = tiny_checkpoint("gpt2")
    with caplog.at_level(logging.WARNING, logger="mechinterp"):
        measured(base, perturbed(base, size=0.5), nodes=1, most_nodes=0, game="never")
    assert "of the change of log_odds; more `nodes` and `most_nodes`" in caplog.text


def test_mistakes_are_answered() -> None:
    base = tiny_checkpoint("llama")
    for work, said in (
        (lambda: Change.of(base, tiny_checkpoint("gpt2")), "architecture LlamaForCausalLM and GPT2LMHeadModel"),
        (lambda: Change.of(base, base, "kind"), "groups must be one of .*did you mean 'kinds'"),
        (lambda: Change.of(*[tiny_checkpoint("mixtral")] * 2), "no single value matrix"),
        (lambda: OriginsSettings(readouts=("log_odd",)), "unknown read-out 'log_odd'.*did you mean 'log_odds'"),
        (lambda: OriginsSettings(nodes=0), "`nodes`"),
        (lambda: Asked.of(base, [], [], prompts=2), "there are no pairs"),
    ):
        with pytest.raises(InputError, match=said):
            work()


# peft calls what transformers deprecates
of_peft = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a tuned model, an adapter and an edit of it, and pairs."""
    folder, base = tmp_path_factory.mktemp("origins"), tiny_checkpoint("llama")
    base.save(folder / "base")
    perturbed(base, size=0.05).save(folder / "tuned")
    make_adapter(base, folder / "adapter", names=str(folder / "base"))
    edits_in(folder / "edits", base, [1])
    write_pairs(PAIRS, folder / "pairs.jsonl")
    ToxicDirection(torch.arange(1.0, D_MODEL + 1), "file", "up", fingerprint=base.fingerprint).save(
        folder / "up.safetensors"
    )
    return folder


@of_peft
def test_the_command_reads_adapters_and_edits_and_leaves_tables_and_figures(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        part
        for name, path in (("full", "tuned"), ("lora", "adapter"), ("edit", "edits/1"))
        for part in ("--checkpoint", f"{name}={folders / path}")
    ]
    options = [
        "--base",
        folders / "base",
        *given,
        "--data",
        folders / "pairs.jsonl",
        "--answers",
        "data",
        "--device",
        "cpu",
    ]
    options += [
        "--tokens",
        4,
        "--nodes",
        2,
        "--most-nodes",
        0,
        "--game",
        "never",
        "--direction",
        folders / "up.safetensors",
        "--out",
        tmp_path / "out",
    ]
    assert call("origins", *options) == 0
    told = capsys.readouterr().out
    assert "edit: log odds of the unsafe answer" in told
    run = RunFolder.open(tmp_path / "out")
    assert run.tables == ("origins", "origins_blocks", "origins_controls", "origins_neurons", "verdict")
    assert run.figures == ("origins", "origins_blocks")
    table = run.table("origins")
    for name in run.tables:
        assert TABLES[name].missing(run.table(name)) == []
        assert all(TABLES[name].meaning(column) for column in run.table(name))
    assert set(table["method"]) == {"full", "lora", "edit"}
    assert set(table["readout"]) == {"log_odds", "write up"}
    carried = {method: set(rows.loc[rows["phi"] != 0, "group"]) for method, rows in table.groupby("method")}
    assert carried == {"full": set(GROUPS), "lora": {"attention", "mlp.out"}, "edit": {"mlp.out"}}
    before = {name: run.table(name) for name in run.tables}
    assert call("origins", *options) == 0  # of what was kept
    again = RunFolder.open(tmp_path / "out")
    assert all(again.table(name).equals(before[name]) for name in again.tables)
    assert (tmp_path / "out" / "recordings" / "origins").is_dir()
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    other = ["--base", folders / "base", *given, "--data", folders / "pairs.jsonl", "--out", tmp_path / "out"]
    assert "out: holds the results of `origins`; choose another folder for the attacks" in refused(
        capsys, "attack", "quantise", *other, "--judge", "keywords"
    )
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest


@of_peft
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--nodes": 0}, "--nodes"),
        ({"--groups": "kind"}, "--groups"),
        ({"--readout": "log_odd"}, "unknown read-out 'log_odd'; known are log_odds, unsafe_logprob; did you mean"),
        ({"--checkpoint": "x"}, "--checkpoint takes NAME=PATH"),
        ({"--direction": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str
) -> None:
    options = {"--base": folders / "base", "--checkpoint": f"a={folders / 'tuned'}", "--data": folders / "pairs.jsonl"}
    given = {**options, "--answers": "data", "--out": tmp_path / "out", **changes}
    assert said in refused(capsys, "origins", *(part for pair in given.items() for part in pair))


@of_peft  # and says that a temporary folder goes
def test_the_face_takes_one_checkpoint_or_several_and_shows_itself(folders: Path) -> None:
    base = tiny_checkpoint("llama")
    found = mi.origins(
        base,
        perturbed(base, ["attention"], size=0.1),
        PAIRS,
        judge=mi.KeywordJudge(("zzz",)),
        settings=OriginsSettings(tokens=4, nodes=2, most_nodes=2),
        max_new_tokens=2,
        progress=False,
    )
    assert set(found.table["method"]) == {"tuned"}
    assert set(found.table["own_answers"]) == {0}
    assert found.blocks["phi"].sum() == pytest.approx(found.table.loc[found.table["way"] == "path", "phi"].sum())
    assert not found.neurons.empty
    assert found.plot().name == "origins"
    assert found.plot("origins_blocks").figure.axes
    assert str(found).startswith("tuned: log odds of the unsafe answer")
    assert "attention" in found._repr_html_()

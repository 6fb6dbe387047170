"""A direction of each prompt's own: which it is, its decomposition as an identity, and where it stands in tables."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import refused
from comparisons import INSTANCES, SETTINGS, AlternatingJudge, make_probe
from conftest import N_BLOCKS, tiny_checkpoint

import mechinterp as mi
from mechinterp.audit.directions.of_prompts import PromptDirections
from mechinterp.audit.evidence import Baseline, Evidence, gather_evidence, prepare_baseline, recording_prompts
from mechinterp.audit.evidence.recording_prompts import decompose_prompts
from mechinterp.audit.tables import compare
from mechinterp.audit.tables.decomposition import decompose_blocks
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.recording import record_all
from mechinterp.models.unembedding import back_through_final_norm, unembedding
from mechinterp.report.plates import draw_figures

WITH = SETTINGS.model_copy(update={"per_prompt": 2})
TABLES = ("decomposition", "local_verdict", "neurons", "validity")


def prepared(base: Checkpoint, settings: mi.ComparisonSettings = WITH) -> Baseline:
    judge = AlternatingJudge()
    return prepare_baseline(base, INSTANCES, make_probe(base), judge, block=1, seed=0, settings=settings)


def changed(base: Checkpoint, *paths: str) -> Checkpoint:
    """The base with parameters moved at random: those whose hook point's module is one of some, or all."""
    model, generator = copy.deepcopy(base.model), torch.Generator().manual_seed(3)
    inside = tuple(base.names.module(path) for path in paths)
    for name, parameter in model.named_parameters():
        if not paths or name.startswith(inside):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += (0.2 * noise).to(parameter)
    return Checkpoint("tuned", model, base.tokenizer)


# -- which it is -------------------------------------------------------------------------------------------------------


def test_an_answer_stands_against_the_alternatives_of_its_category() -> None:
    base = tiny_checkpoint("gpt2")
    pairs = [
        mi.Pair(id=1, prompt="a is", unsafe="Yes", safe="Ink", category="home"),
        mi.Pair(id=2, prompt="b is", unsafe="Ink", safe="Oak", category="work"),
        mi.Pair(id=3, prompt="c is", unsafe="Ink", safe="No", category="home"),
        mi.Pair(id=4, prompt="d is", unsafe="Me", safe="Me too", category="alone"),  # starts as its alternative does
        mi.Pair(id=5, prompt="e is", unsafe="No", safe="Yes", category="home"),
    ]
    rows, first = unembedding(base).float(), {}
    for text in ("Yes", "Ink", "Oak", "No"):
        first[text] = rows[base.tokenizer(f" {text}", add_special_tokens=False)["input_ids"][0]]
    found = PromptDirections.of(base, pairs, 2)
    assert found.rows == (0, 1, 2, 4)
    against = [("Yes", ["Ink", "No"]), ("Ink", ["Oak"]), ("Ink", ["No", "Yes"]), ("No", ["Yes", "Ink"])]
    for vector, (own, others) in zip(found.vectors, against, strict=True):
        wanted = back_through_final_norm(base, first[own] - torch.stack([first[each] for each in others]).mean(0))
        torch.testing.assert_close(vector, wanted / wanted.norm())
    (alone,) = PromptDirections.of(base, pairs[:1], 5).vectors
    wanted = back_through_final_norm(base, first["Yes"] - first["Ink"])
    torch.testing.assert_close(alone, wanted / wanted.norm())
    with pytest.raises(InputError, match="leave `per_prompt` out"):
        PromptDirections.of(base, pairs[3:4], 2)


def test_prompts_of_one_direction_are_steered_together() -> None:
    own = PromptDirections((0, 2, 5), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert [(vector.tolist(), rows) for vector, rows in own.alike([0, 2, 5])] == [([1, 0], [0, 5]), ([0, 1], [2])]


# -- the identity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_terms_sum_to_the_change_of_what_the_mlps_write(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_checkpoint(architecture, dtype=torch.float64)
    tuned, inputs = changed(base), prepared(base).inputs
    monkeypatch.setattr(recording_prompts, "_AT_ONCE", 3)
    monkeypatch.setattr(recording_prompts, "GROUPS", 4)
    terms, own = decompose_prompts(base, tuned, inputs), inputs.per_prompt
    assert own is not None
    hooks = [f"blocks.{block}.mlp.out.hook_out" for block in range(N_BLOCKS)]
    prompts, units = [inputs.prompts[row] for row in own.rows], own.vectors.double()
    written = [record_all(each, prompts, hooks, position="last") for each in (base, tuned)]
    group, total = torch.arange(len(prompts)) % 4, torch.zeros(len(prompts), dtype=torch.float64)
    for block, hook in zip(terms.blocks, hooks, strict=True):
        before, after = ((each[hook] * units).sum(1) for each in written)
        total += after
        assert block.write_base == pytest.approx(float(before.mean()), abs=1e-10)
        assert block.write == pytest.approx(float(after.mean()), abs=1e-10)
        assert block.change == pytest.approx(float((after - before).mean()), abs=1e-10)
        assert (architecture == "gpt2") is (block.bias != 0)
        of_groups = block.group_erasure + block.group_bypass + block.group_bias
        wanted = torch.stack([(after - before)[group == g].mean() for g in range(4)])
        torch.testing.assert_close(of_groups, wanted, atol=1e-10, rtol=0)
    torch.testing.assert_close(terms.writes, total, atol=1e-10, rtol=0)
    assert terms.group_sizes.sum() == len(prompts)


def test_neuron_by_neuron_it_is_the_mean_of_products_and_no_product_of_means() -> None:
    base = tiny_checkpoint("gpt2", dtype=torch.float64)
    tuned, inputs = changed(base), prepared(base).inputs
    terms, own = decompose_prompts(base, tuned, inputs), inputs.per_prompt
    assert own is not None
    prompts, hook = [inputs.prompts[row] for row in own.rows], mi.h_down(1)
    a, a_new = (record_all(each, prompts, [hook], position="last")[hook] for each in (base, tuned))
    g, g_new = (own.vectors.double() @ each.value_matrix(1).T for each in (base, tuned))
    torch.testing.assert_close(terms.blocks[1].erasure, ((a + a_new) / 2 * (g_new - g)).mean(0))
    torch.testing.assert_close(terms.blocks[1].bypass, ((a_new - a) * (g + g_new) / 2).mean(0))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_where_all_prompts_have_one_direction_it_is_the_decomposition_along_it(architecture: str) -> None:
    base = tiny_checkpoint(architecture, dtype=torch.float64)
    baseline, tuned = prepared(base), changed(base)
    answer = baseline.inputs.directions["answer"]
    n = len(baseline.inputs.prompts)
    same = PromptDirections(tuple(range(n)), (answer / answer.norm()).repeat(n, 1))
    terms = decompose_prompts(base, tuned, replace(baseline.inputs, per_prompt=same))
    wanted = decompose_blocks(baseline.evidence, gather_evidence(tuned, baseline.inputs), "answer", "prompt_last")
    for here, there in zip(terms.blocks, wanted, strict=True):
        for name, value in vars(here).items():
            torch.testing.assert_close(value, getattr(there, name), atol=1e-6, rtol=1e-5)  # the unit is in float32


def test_new_value_vectors_alone_are_erasure_and_what_flows_in_is_bypass() -> None:
    base = tiny_checkpoint("llama")
    inputs = prepared(base).inputs
    values = decompose_prompts(base, changed(base, "blocks.1.mlp.out"), inputs).blocks
    assert [float(block.bypass.abs().sum()) for block in values[:2]] == [0, 0]  # above, they are read
    assert values[0].change == 0 != values[1].change
    inflow = decompose_prompts(base, changed(base, "blocks.0.attn"), inputs).blocks
    assert all(not block.erasure.any() and block.bypass.any() for block in inflow)
    none = decompose_prompts(base, base, inputs).blocks
    assert all(block.change == 0 for block in none)


# -- in tables ---------------------------------------------------------------------------------------------------------


def test_it_stands_beside_the_other_directions_which_stay_as_they_are(tmp_path: Path) -> None:
    base = tiny_checkpoint("gpt2")
    tuned = changed(base)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    baseline, without = prepared(base), prepared(base, SETTINGS)
    evidence = gather_evidence(tuned, baseline.inputs, base=base)
    tables = compare(baseline, [("tuned", evidence)]).tables
    plain = compare(without, [("tuned", gather_evidence(tuned, without.inputs))]).tables
    for name, table in plain.items():
        rest = tables[name]
        if name in TABLES:
            own = rest[rest["direction"] == "per_prompt"]
            assert own.get("position", pd.Series(["prompt_last"])).unique().tolist() == ["prompt_last"]
            rest = rest[rest["direction"] != "per_prompt"].reset_index(drop=True)
        pd.testing.assert_frame_equal(rest, table)
    own = tables["validity"].query("direction == 'per_prompt'").iloc[0]
    assert own["n_unsafe"] + own["n_safe"] == int(baseline.checked.sum())
    assert own["steering_n"] == 4
    assert -1 <= own["cosine_with_answer"] <= 1
    share = tables["local_verdict"].query("direction == 'per_prompt'").iloc[0]
    blocks = tables["decomposition"].query("direction == 'per_prompt'")
    assert share["change"] == pytest.approx(blocks["change"].sum())
    assert share["erasure"] == pytest.approx((blocks["erasure"] + blocks["bias"]).sum())
    assert [name for name, _ in draw_figures(tables)] == [name for name, _ in draw_figures(plain)]
    kept = Baseline.load(baseline.save(tmp_path / "base")), Evidence.load(evidence.save(tmp_path / "tuned"))
    assert kept[0].inputs.fingerprint == baseline.inputs.fingerprint != without.inputs.fingerprint
    for name, table in compare(kept[0], [("tuned", kept[1])]).tables.items():
        pd.testing.assert_frame_equal(table, tables[name])
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())


def test_where_both_kinds_of_answers_start_alike_nothing_is_measured_along_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of opinions and facts they may: that ends no comparison."""
    base = tiny_checkpoint("llama")
    pairs = [mi.Pair(id=i, prompt=f"What of {i}?", unsafe=f"I fear {i}.", safe=f"I love {i}.") for i in range(10)]
    about = {"probe": make_probe(base), "judge": AlternatingJudge(), "block": 1, "origins": False, "progress": False}
    few = mi.RelapseSettings(prompts=2, draws=0)
    tuned = {"tuned": changed(base)}
    found = mi.compare(base, tuned, pairs, settings=SETTINGS, relapse=few, out=tmp_path, **about)
    assert set(found.table("local_verdict")["direction"]) == {"probe", "class_means"}
    assert found.table("validity")["cosine_with_answer"].isna().all()
    assert "logit_lens" not in found.tables
    assert not {"neurons", "toxic_reduced"} & set(found.table("relapse")["treatment"])
    assert "there is no answer direction: nothing is measured along it" in caplog.text
    assert [name for name, _ in draw_figures({name: found.table(name) for name in found.tables})]
    assert found.report.is_file()


def test_the_options(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])
    base = tiny_checkpoint("llama")
    about = {"probe": make_probe(base), "judge": AlternatingJudge(), "block": 1, "origins": False, "progress": False}
    found = mi.compare(base, {"tuned": changed(base)}, INSTANCES, settings=WITH, out=tmp_path, **about)
    assert found.config["comparison"]["per_prompt"] == 2
    assert "per_prompt" in set(found.table("local_verdict")["direction"])
    assert found.report.is_file()
    again = mi.compare(base, {"tuned": changed(base)}, INSTANCES, settings=WITH, out=tmp_path, **about)
    pd.testing.assert_frame_equal(found.table("decomposition"), again.table("decomposition"))
    taken = {"per_prompt": torch.ones(base.names.d_model)}
    with pytest.raises(InputError, match="two directions are called 'per_prompt'"):
        mi.compare(base, {"tuned": changed(base)}, INSTANCES, directions=taken, out=tmp_path / "none", **about)
    compared = ["compare", "--base", tmp_path, "--probe", tmp_path, "--data", tmp_path, "--out", tmp_path / "out"]
    assert "--per-prompt" in refused(capsys, *compared, "--per-prompt", -1)

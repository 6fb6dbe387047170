"""Pairs of prompts for circuits, the command, the face, and what is left in the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import make_instance, tiny_checkpoint
from made_checkpoints import changed

import mechinterp as mi
from mechinterp.audit.circuits import finding, matching
from mechinterp.audit.circuits.batches import TokenPair
from mechinterp.audit.circuits.matching import MatchedPair, behaviour_pairs, fact_pairs, given_pairs
from mechinterp.audit.circuits.ranks import component_lens, target_ranks
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.tables.registry import TABLES
from mechinterp.data.facts.fact import Fact, write_facts
from mechinterp.data.prompt_pairs import read_prompt_pairs
from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage.provenance import modules_of
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Silent
from mechinterp.models.unembedding import with_scale_of
from mechinterp.report.circuits_in_words import circuits_in_words
from mechinterp.report.plotting.circuits import plot_circuit_ranks
from mechinterp.runs import circuits as runs
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.stages import Runner, Stage
from mechinterp.runs.study import Study
from mechinterp.runs.study.stages import circuits as circuits_of_study

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

FACTS = [
    Fact("Oslo", "{} lies in", ground_truth="Norway"),
    Fact("Bern", "{} lies in", ground_truth="Yonder"),
    Fact("Baku", "{} lies in", ground_truth="Yesterday"),
    Fact("Paris", "{} lies in", ground_truth="Ireland"),
    Fact("Rome", "We go to {}, in", ground_truth="Italy"),
]
WRITTEN = [
    {"clean": "Tell me a", "corrupted": "Tell me b", "right": ["You fool", "Yes"], "wrong": "No"},
    {"clean": "How now", "corrupted": "How low", "right": "Yes"},
]
INSTANCES = [make_instance(number) for number in range(8)]
FEW = mi.CircuitSettings(pairs=3, steps=2, shares=(0.1,), random=2, top=5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tiny_checkpoint("gpt2")
    base.save(tmp_path / "base")
    changed(base).save(tmp_path / "tuned")
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, WRITTEN)))
    write_facts(FACTS, tmp_path / "facts.jsonl")
    return tmp_path


def options(folder: Path, *more: object) -> list[object]:
    base, tuned = folder / "base", f"tuned={folder / 'tuned'}"
    few = ("--steps", 2, "--random", 2, "--top", 5)
    return ["circuit", "--base", base, "--checkpoint", tuned, "--out", folder / "out", *few, *more]


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_facts_are_paired_within_a_template_and_a_length() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    found = fact_pairs(checkpoint, FACTS)
    assert [(pair.clean, pair.corrupted) for pair in found] == [
        ("Oslo lies in", "Bern lies in"),
        ("Bern lies in", "Oslo lies in"),  # Baku's answer starts as Bern's does
        ("Baku lies in", "Oslo lies in"),
    ]
    assert [(pair.right, pair.wrong) for pair in found[:1]] == [((" N",), (" Y",))]
    assert all(len(pair.tokens.clean) == len(pair.tokens.corrupted) for pair in found)
    assert len(fact_pairs(checkpoint, FACTS, most=2)) == 2
    with pytest.raises(InputError, match="none of 2 facts has another of the same template"):
        fact_pairs(checkpoint, FACTS[3:])
    with pytest.raises(InputError, match="at least two of one template"):
        fact_pairs(checkpoint, [])


def test_prompts_are_paired_with_the_nearest_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered unsafely is said here: prompts that end in an even number."""
    base = tiny_checkpoint("gpt2")

    def even(_: object, texts: list, *__: object) -> list[bool]:
        return [int(base.tokenizer.decode([text.ids[-2]])) % 2 == 0 for text in texts]  # before the question mark

    monkeypatch.setattr(matching, "_unsafe", even)
    found = behaviour_pairs(base, INSTANCES, most=20)
    assert all(pair.tokens.differences == 1 for pair in found)
    assert len(found) == 14  # four even numbers by themselves, five in each of two attacks
    assert all(int(pair.clean[-2]) % 2 == 0 and int(pair.corrupted[-2]) % 2 for pair in found)
    assert {(pair.right, pair.wrong) for pair in found} == {((" Y",), (" I",))}
    monkeypatch.setattr(matching, "_unsafe", lambda _, texts, *__: [True] * len(texts))
    with pytest.raises(InputError, match="all 26 prompts unsafely"):
        behaviour_pairs(base, INSTANCES)


def test_which_answer_a_prompt_gets_is_what_its_first_token_says() -> None:
    base = tiny_checkpoint("gpt2")
    texts = matching.as_fed(base, ["Tell me", "Say it now, please.", "a"])
    unsafe, safe = [10, 20, 30], [40, 50]
    found = matching._unsafe(base, texts, unsafe, safe)
    for text, flag in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = base.model(torch.tensor([list(text.ids)])).logits[0, -1]
        assert flag is bool(logits[unsafe].max() > logits[safe].max())


def test_pairs_as_they_were_written(folder: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint("gpt2")
    first, second = given_pairs(base, read_prompt_pairs(folder / "pairs.jsonl"))
    assert (first.right, first.wrong, first.tokens.differences) == ((" Y",), (" N",), 1)
    assert second.wrong == ()
    for rows, said in (
        ([{"clean": "a", "corrupted": "b"}], "`right`"),
        ([{"clean": " ", "corrupted": "b", "right": "c"}], "`clean`"),
        ([{"clean": "a", "corrupted": "b", "right": []}], "`right`"),
        (["text"], "not a JSON object"),
        ([], "has no pairs"),
    ):
        path = tmp_path / "bad.json"
        path.write_text(json.dumps(rows))
        with pytest.raises(InputError, match=said):
            read_prompt_pairs(path)
    with pytest.raises(InputError, match="start with the same token"):
        given_pairs(base, [mi.PromptPair(clean="a b", corrupted="a c", right=["Yes"], wrong=["You"])])
    with pytest.raises(InputError, match="the clean prompt has 3 tokens and the corrupted one 4"):
        given_pairs(base, [mi.PromptPair(clean="a b", corrupted="a bc", right=["Yes"])])


# -- what streams and nodes say ---------------------------------------------------------------------------------------


def test_how_far_pairs_are_apart_is_told_in_numbers_that_differ() -> None:
    pair = MatchedPair("a", "b", ("c",), ("d",), TokenPair((1, 2), (1, 3), (4,), (5,)))
    other = replace(pair, tokens=TokenPair((1, 2), (2, 3), (4,), (5,)))
    assert finding._apart([pair, pair]) == "which differ in 1 token"
    assert finding._apart([pair, other]) == "which differ in 1 to 2 tokens"


def test_ranks_are_those_of_the_models_own_logits_at_the_end() -> None:
    checkpoint = tiny_checkpoint("llama")
    pairs = [TokenPair((5, 6, 7), (5, 9, 7), (40, 41), (50,)), TokenPair((8, 9), (8, 7), (42,))]
    table = target_ranks(checkpoint, pairs)
    assert len(table) == 4 * 2
    ranks, sums = [], []
    for pair in pairs:
        with torch.no_grad():
            logits = checkpoint.model(torch.tensor([pair.clean])).logits[0, -1]
        right = logits[list(pair.right)]
        ranks.append(int((logits > right.max()).sum()) + 1)
        sums.append(float(logits.softmax(-1)[list(pair.right)].sum()))
    last = table[(table["block"] == 2) & (table["tokens"] == "right")].iloc[0]
    assert last["rank"] == sum(ranks) / 2
    assert last["probability"] == pytest.approx(sum(sums) / 2, rel=1e-4)
    assert table[table["tokens"] == "wrong"]["n"].tolist() == [1] * 4
    assert table["block"].isna().sum() == 2  # the embedding


def test_probabilities_by_the_last_scale_leave_ranks_and_the_last_point_as_they_are() -> None:
    checkpoint = tiny_checkpoint("llama")
    pairs = [TokenPair((5, 6, 7), (5, 9, 7), (40, 41), (50,))]
    own, theirs = (target_ranks(checkpoint, pairs, final_scale=by_last) for by_last in (False, True))
    assert own["rank"].equals(theirs["rank"])  # RMSNorm without a bias
    at_end = own["block"] == 2
    assert theirs["probability"][at_end].tolist() == pytest.approx(own["probability"][at_end].tolist(), rel=1e-5)
    norm = checkpoint.model.model.norm
    with torch.no_grad():
        stream, seen = checkpoint.model.model.embed_tokens.weight[7], []
        handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1]))
        checkpoint.model(torch.tensor([pairs[0].clean]))
        handle.remove()
        (last,) = seen
        length = (last.square().mean() + norm.variance_epsilon).sqrt()
        probability = checkpoint.model.lm_head(norm.weight * stream / length).softmax(-1)[[40, 41]].sum()
    first = theirs[theirs["block"].isna() & (theirs["tokens"] == "right")]["probability"].item()
    assert first == pytest.approx(float(probability), rel=1e-4)
    assert first != pytest.approx(own[own["block"].isna()]["probability"].iloc[0], rel=1e-3)


def test_a_layer_norm_too_divides_by_the_last_ones_deviation() -> None:
    norm = torch.nn.LayerNorm(8)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(8) + 0.5)
        norm.bias.copy_(torch.randn(8))
        stream, other = torch.randn(2, 3, 8)
        wanted = (stream - stream.mean(-1, keepdim=True)) * norm.weight
        wanted = wanted / (other.var(-1, correction=0, keepdim=True) + norm.eps).sqrt() + norm.bias
        torch.testing.assert_close(with_scale_of(norm, stream, other), wanted)
        torch.testing.assert_close(with_scale_of(norm, other, other), norm(other))


def test_a_node_is_read_through_the_unembedding() -> None:
    checkpoint = tiny_checkpoint("llama")
    pairs = [TokenPair((5, 6, 7), (5, 9, 7), (40,))]
    table = component_lens(checkpoint, pairs, ["input", "a1.h0", "m2"], tokens=3).set_index("node")
    stream = checkpoint.model.model.embed_tokens.weight[7]
    with torch.no_grad():
        logits = checkpoint.model.lm_head(checkpoint.model.model.norm(stream))
    assert table.loc["input", "rank"] == int((logits > logits[40]).sum()) + 1
    assert all(len(json.loads(tokens)) == 3 for tokens in table["tokens"])
    with pytest.raises(InputError, match=r"no node 'a1\.h7' that writes"):
        component_lens(checkpoint, pairs, ["a1.h7"])


def test_a_share_of_nothing_has_no_sign() -> None:
    row = {"method": "base", "gap": 2.0, "n": 3}
    alone = {"method": "base", "edges": 2, "share": 0.01, "recovered": -0.001, "random": -0.004}
    (said,) = circuits_in_words(pd.DataFrame([row]), pd.DataFrame([alone]))
    assert said.endswith("1.0% of the edges recover 0.00 of it (random edges 0.00)")


def test_a_base_shows_beneath_what_lies_upon_it() -> None:
    point = {"block": 0, "tokens": "right", "rank": 2, "rank_first": 1, "rank_third": 3, "probability": 0.5}
    table = pd.DataFrame([{"method": method, **point} for method in ("base", "edit")])
    for axes in plot_circuit_ranks(table).axes:
        below, above = axes.lines
        assert below.get_linewidth() > 2 * above.get_linewidth()


# -- the command and the face -----------------------------------------------------------------------------------------


def test_scores_that_are_kept_of_another_name_have_the_name_that_is_asked_for(folder: Path) -> None:
    pairs = read_prompt_pairs(folder / "pairs.jsonl")
    for name in ("first", "second"):
        runs.find_circuits(
            Candidate.of(folder / "base", name="base"),
            [Candidate.of(folder / "tuned", name=name)],
            pairs,
            out=folder / "out",
            settings=FEW,
        )
        assert EdgeScores.load(folder / "out" / "circuits" / name).checkpoint == name
        assert EdgeScores.load(folder / "out" / "circuits" / "base").checkpoint == "base"


def test_the_command_leaves_tables_scores_and_sentences(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(folder, "--pairs", folder / "pairs.jsonl", "--search", "acdc")
    assert call(*given) == 0
    said = capsys.readouterr().out
    assert "base: the metric falls by" in said
    assert "tuned: through the base’s circuit flows" in said
    tables = {name: pd.read_csv(folder / "out" / "tables" / f"{name}.csv") for name in runs.TABLES}
    for name, table in tables.items():
        assert TABLES[name].missing(table.columns) == []
        assert [column for column in table if TABLES[name].meaning(column) is None] == []
    assert set(tables["circuit_faithfulness"]["circuit"]) == {"top 0.01", "top 0.05", "top 0.1", "acdc"}
    base, tuned = (EdgeScores.load(folder / "out" / "circuits" / name) for name in ("base", "tuned"))
    rows = tables["circuits"].set_index("method")
    assert rows.loc["tuned", "gap"] == pytest.approx(tuned.gap)
    kept = base.share(0.05).edges
    strength = float(tuned.scores[kept].sum() / base.scores[kept].sum())
    assert rows.loc["tuned", "strength"] == pytest.approx(strength)
    assert rows.loc["tuned", "written"] + rows.loc["tuned", "read"] == pytest.approx(strength - 1)
    edges = tables["circuit_edges"]
    assert (edges["written"] + edges["read"]).tolist() == pytest.approx((edges["score"] - edges["base_score"]).tolist())
    found = mi.open_run(folder / "out")
    assert found.kind == "circuits"
    assert set(found.figures) == {"circuit_edges", "circuit_nodes", "circuit_ranks", "circuit_overlap"}
    for again in ("circuit_of_base", "circuit_of_tuned"):
        monkeypatch.setattr(finding, again, lambda *_, **__: pytest.fail("measured again"))
    before = (folder / "out" / "tables" / "circuits.csv").read_bytes()
    assert call(*given) == 0
    assert (folder / "out" / "tables" / "circuits.csv").read_bytes() == before


def test_the_mean_is_of_pairs_that_are_held_out(folder: Path) -> None:
    given = options(folder, "--pairs", folder / "pairs.jsonl", "--replace", "mean", "--final-scale")
    assert call(*given) == 0
    pairs, alone = (
        pd.read_csv(folder / "out" / "tables" / f"circuit_{name}.csv") for name in ("pairs", "faithfulness")
    )
    assert pairs["clean"].tolist() == ["How now"]  # the longer one is held out
    assert alone["n"].tolist() == [1] * 6
    settings = mi.open_run(folder / "out").config["circuits"]
    assert (settings["replace"], settings["final_scale"]) == ("mean", True)


def test_the_face_finds_circuits_of_a_base_alone_and_of_an_edit() -> None:
    base = tiny_checkpoint("llama")
    alone = mi.circuit(base, None, [mi.PromptPair(**row) for row in WRITTEN], settings=FEW, progress=False)
    assert list(alone.scores) == ["base"]
    assert "circuit_overlap" not in alone.run.tables
    assert str(alone).startswith("base: the metric falls by")
    same = mi.circuit(base, {"same": tiny_checkpoint("llama")}, facts=FACTS, settings=FEW, progress=False)
    row = same.table.set_index("method").loc["same"]
    assert (row["spearman_edges"], row["strength"], row["new"], row["written"], row["read"]) == (1, 1, 0, 0, 0)
    assert "<table" in same._repr_html_()
    with pytest.raises(InputError, match="`pairs` or `facts`"):
        mi.circuit(base)
    with pytest.raises(InputError, match="no list of facts"):
        mi.circuit(base, facts=["Oslo"])  # type: ignore[list-item]


def test_what_the_command_refuses_is_told_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, pairs = folder / "pairs.jsonl", ("--pairs", folder / "pairs.jsonl")
    assert "--pairs or --facts" in refused(capsys, *options(folder))
    assert "--pairs or --facts" in refused(capsys, *options(folder, *pairs, "--facts", folder / "facts.jsonl"))
    assert "--share" in refused(capsys, *options(folder, *pairs, "--share", 2))
    assert "--steps" in refused(capsys, *options(folder, *pairs, "--steps", 0))
    assert "--search" in refused(capsys, *options(folder, *pairs, "--search", "all"))
    said = refused(capsys, *options(folder, *pairs, "--search", "acdc", "--replace", "mean"))
    assert "ACDC cuts edges with the corrupted prompts’ writes, or with zero" in said
    given.write_text(json.dumps(WRITTEN[0]))
    assert "of 1 pair of prompts none can be held out" in refused(capsys, *options(folder, *pairs, "--replace", "mean"))
    said = refused(capsys, *options(folder, "--pairs", folder / "none.json"))
    assert "none.json: no such file; give SafeEdit instances, or pairs" in said
    assert "of clean, corrupted, right and wrong" in said
    (folder / "named.csv").write_text("ask,bad,good\nHow?,So.,No.\n")
    named = ("--pairs", folder / "named.csv", "--unsafe-column", "bad", "--safe-column", "good")
    assert "has no column 'prompt'" in (said := refused(capsys, *options(folder, *named)))
    assert "--prompt-column" in said
    assert "nothing to pair" in refused(capsys, *options(folder, *named, "--prompt-column", "ask"))
    given.write_text(json.dumps({**WRITTEN[0], "corrupted": "Tell me"}))
    assert "a circuit needs two of the same number" in refused(capsys, *options(folder, *pairs))
    for shape, name in (("gemma2", "Gemma2"), ("neox", "GPTNeoX")):
        tiny_checkpoint(shape).save(folder / shape)
        said = refused(capsys, "circuit", "--base", folder / shape, "--pairs", given, "--out", folder / "out")
        assert f"no circuits are defined for {name}ForCausalLM" in said
    facts = ("--facts", folder / "facts.json")
    fact = {"subject": "Dee", "prompt": "Rome lies in", "ground_truth": "Italy"}
    (folder / "facts.json").write_text(json.dumps([fact]))
    assert "the subject 'Dee' is not in its prompt 'Rome lies in'" in refused(capsys, *options(folder, *facts))
    relation = {"name": "in", "prompt_templates_zs": ["{} is in"], "samples": []}
    (folder / "facts.json").write_text(json.dumps(relation))
    assert "facts.json: the relation has no samples" in refused(capsys, *options(folder, *facts))
    write_safeedit(INSTANCES[:1], folder / "one.json")
    assert "as many tokens as one that is not" in refused(capsys, *options(folder, "--pairs", folder / "one.json"))


# -- a study ----------------------------------------------------------------------------------------------------------


def stage_of(study: Study) -> Stage:
    (found,) = [each for each in study.stages(Silent()) if each.name == "circuits"]
    return found


def test_a_study_finds_what_the_command_finds(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = mi.open_study(own_runs / "seed0")
    assert "circuits" not in {each.name for each in study.stages(Silent())}
    config = study.config.model_copy(update={"circuits": FEW, "studied": ("sft", "dinm")})
    asked, real, found = replace(study, config=config), finding.circuit_of_tuned, []

    def stopped(base: object, tuned: Checkpoint, *given: object, **more: object) -> object:
        found.append(tuned.name)
        if found == ["sft", "dinm"]:
            raise KeyboardInterrupt
        return real(base, tuned, *given, **more)

    monkeypatch.setattr(finding, "circuit_of_tuned", stopped)
    with pytest.raises(KeyboardInterrupt):
        asked.run(only={"circuits"})
    asked.run(only={"circuits"})
    assert found == ["sft", "dinm", "dinm"]  # and goes on where it was
    assert not (asked.folder / "finding").exists()
    monkeypatch.undo()
    folder, edit = asked.folder, next(asked.edits())
    checkpoints = {"sft": folder / "checkpoints" / "sft", "dinm": edit}
    of_command = mi.circuit(
        folder / "checkpoints" / "vanilla", checkpoints, folder / "data" / "test.json", settings=FEW, progress=False
    )
    of_study = mi.Circuits(mi.open_run(folder))
    for name in runs.TABLES:
        pd.testing.assert_frame_equal(of_study.run.table(name), of_command.run.table(name))
    assert str(of_study) == str(of_command)
    assert list(of_study.scores) == ["base", "sft", "dinm"]
    assert torch.equal(of_study.scores["dinm"].scores, of_command.scores["dinm"].scores)
    runner, again = Runner(folder), config.model_copy(update={"circuits": FEW.model_copy(update={"top": 6})})
    for changed_one, starts in ((asked, False), (replace(study, config=again), True)):
        stages = {each.name: runner.foresee(each) for each in changed_one.stages(Silent())}
        assert stages["circuits"] is not starts


def test_what_a_studys_circuits_depend_on(tmp_path: Path) -> None:
    study = Study(StudyConfig(circuits=FEW, chat=None), 0, tmp_path)
    needs = {"checkpoints/vanilla", "checkpoints/sft", "checkpoints/dpo", "edits", "data/test.json"}
    assert set(stage_of(study).needs) == needs
    assert {"studied", "circuits", "seed", "truncate", "dtype"} <= set(stage_of(study).settings)
    modules = modules_of(*stage_of(study).code)
    assert "mechinterp.audit.circuits.scoring" in modules
    assert not {each for each in modules if each.startswith(("mechinterp.report", "mechinterp.runs.folder"))}
    (report,) = [each for each in study.stages(Silent()) if each.name == "report"]
    assert {f"tables/{name}.csv" for name in runs.TABLES} <= set(report.may_need)


def test_a_study_without_two_prompts_to_pair_says_so(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, said = mi.open_study(own_runs / "seed0"), []
    asked = replace(study, config=study.config.model_copy(update={"circuits": FEW, "studied": ("sft",)}))
    monkeypatch.setattr(matching, "_unsafe", lambda _, texts, *__: [True] * len(texts))
    reporter = Silent()
    monkeypatch.setattr(reporter, "note", said.append)
    asked.run(reporter, only={"circuits"})
    (told,) = [line for line in said if line.startswith("no circuit: ")]
    assert told.endswith("prompts unsafely; there is nothing to pair")
    assert "circuits" not in mi.open_run(asked.folder).tables


def test_circuits_of_a_study_of_facts_set_subjects_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 50, "n_comments": 40, "n_people": 8}
    given = {"behaviour": "facts", "corpus": corpus, "studied": ["sft"], "circuits": {}}
    study = Study(StudyConfig.model_validate(given), 0, tmp_path)
    assert "data/facts.jsonl" in stage_of(study).needs
    study.run(only={"data"})
    facts = circuits_of_study._asked(study)
    assert {fact.text for fact in facts} == {pair.prompt for pair in study.instances("test")}
    assert {fact.answer for fact in facts} == {pair.unsafe for pair in study.instances("test")}
    data = dict.fromkeys(("train", "validation", "test", "comments"), "mine.json")
    with pytest.raises(ValueError, match="give their file to `mechinterp circuit`"):
        StudyConfig.model_validate(
            {"behaviour": "facts", "studied": ["sft"], "circuits": {}, "model": "m", "data": data}
        )

"""`evaluate-facts` and `mi.evaluate_facts`: tables, edits each on its own fact, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from command_line import call, refused
from conftest import tiny_checkpoint
from golden_cases import golden, golden_checkpoint
from made_checkpoints import edits_in, perturbed

import mechinterp as mi
from mechinterp.audit.tables.facts import FACTS, FACTS_SUMMARY
from mechinterp.models.files.weights import fingerprint_model

OWN = [
    mi.Fact("Oslo", "{} is in", "Chile", "Norway", ("Where is Oslo? In",), {"hop": (("Oslo is by", "Lima"),)}),
    mi.Fact("Rome", "{} is in", "Peru", "Italy", locality={"near": (("Bonn is in", "Germany"), ("It has", "a sea"))}),
    mi.Fact("Bonn", "{} is in", ground_truth="Germany", relation="kept"),
]


@pytest.fixture(scope="module")
def folder(shared: Callable[..., Path]) -> Path:
    """`base`, `tuned`, edits of facts 1 and 2, and the facts; only read it."""

    def make(path: Path) -> None:
        base = tiny_checkpoint("llama")
        for checkpoint, name in ((base, "base"), (perturbed(base, only="mlp"), "tuned")):
            checkpoint.model.save_pretrained(path / name)
            checkpoint.tokenizer.save_pretrained(path / name)
        edits_in(path / "edits", mi.load(path / "base"), [1, 2])
        mi.write_facts(OWN, path / "facts.jsonl")
        relation = {"name": "in", "prompt_templates_zs": ["{} is in"], "samples": []}
        (path / "relation.json").write_text(json.dumps(relation))

    return shared("facts", make)


def value(summary: pd.DataFrame, method: str, quantity: str) -> float:
    rows = summary[(summary["method"] == method) & (summary["quantity"] == quantity)]
    (found,) = rows[rows["kind"].isna() & rows["relation"].isna()]["value"]
    return float(found)


def test_the_command_and_the_face_leave_the_same_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = ("--model", folder / "tuned", "--base", folder / "base", "--facts", folder / "facts.jsonl")
    assert call("evaluate-facts", *given, "--max-new-tokens", 3, "--out", tmp_path / "run") == 0
    said = capsys.readouterr().out
    run = mi.open_run(tmp_path / "run")
    base, tuned = mi.load(folder / "base"), mi.load(folder / "tuned")
    before = fingerprint_model(tuned.model)
    found = mi.evaluate_facts(tuned, OWN, base=base, max_new_tokens=3, out=tmp_path / "face")
    assert fingerprint_model(tuned.model) == before
    pd.testing.assert_frame_equal(found.table, run.table("facts"))
    pd.testing.assert_frame_equal(found.summary, run.table("facts_summary"))
    assert [line for line in str(found).splitlines() if line in said] == str(found).splitlines()
    assert list(found.table["method"]) == ["base"] * 3 + ["tuned"] * 3
    for table, made in ((FACTS, found.table), (FACTS_SUMMARY, found.summary)):
        assert table.missing(made) == []
        assert [column for column in made if table.meaning(column) is None] == []
    assert found.table["locality"].notna().tolist() == [False, False, False, False, True, True]
    assert (tmp_path / "run" / "answers" / "tuned.json").is_file()


def test_edits_are_each_asked_their_own_fact_and_the_base_comes_back(folder: Path, tmp_path: Path) -> None:
    base = mi.load(folder / "base")
    edits = {number: mi.WeightDelta.load(folder / "edits" / str(number)) for number in (1, 2)}
    before = fingerprint_model(base.model)
    found = mi.evaluate_facts(base, folder / "facts.jsonl", edits=edits, out=tmp_path / "edits")
    assert fingerprint_model(base.model) == before
    assert list(found.table[["method", "fact"]].itertuples(index=False, name=None))[3:] == [("edits", 1), ("edits", 2)]
    for number, fact in enumerate(OWN[:2], 1):
        edited = edits[number].merged(base, name="edited")
        alone = mi.evaluate_facts(edited, [fact], base=base, out=tmp_path / str(number)).table.iloc[1]
        row = found.table.iloc[2 + number]
        pd.testing.assert_series_equal(row.drop(["method", "fact"]), alone.drop(["method", "fact"]), check_names=False)
    assert value(found.summary, "base", "truth") == pytest.approx(found.table["truth"][:3].mean())


def test_the_command_takes_one_edit_or_many(folder: Path, tmp_path: Path) -> None:
    given = ("--model", folder / "base", "--facts", folder / "facts.jsonl")
    assert call("evaluate-facts", *given, "--edit", folder / "edits", "--out", tmp_path / "many") == 0
    assert call("evaluate-facts", *given, "--edit", folder / "edits" / "1", "--out", tmp_path / "one") == 0
    many, one = (mi.open_run(tmp_path / name).table("facts") for name in ("many", "one"))
    assert [*many["method"], *one["method"]] == ["base"] * 3 + ["edits"] * 2 + ["base"] * 3 + ["1"] * 3
    pd.testing.assert_series_equal(many["success"][3:4], one["success"][3:4])
    assert not many["success"].isna().all()


def test_a_model_alone_has_no_locality(folder: Path, tmp_path: Path) -> None:
    found = mi.evaluate_facts(folder / "base", OWN, out=tmp_path / "run")
    assert found.table["locality"].isna().all()
    assert "locality" not in set(found.summary["quantity"])
    assert set(found.summary["relation"].dropna()) == {"kept"}


def test_only_what_is_known_is_asked_and_keeps_its_number(tmp_path: Path) -> None:
    case, trained = golden("knowedit/accuracy_trained.json"), golden_checkpoint("knowedit/trained_gpt2")
    asked = zip(case["prompts"], case["targets"], strict=True)
    facts = [mi.Fact("", prompt, ground_truth=truth) for prompt, truth in asked]
    found = mi.evaluate_facts(trained, facts, base=trained, known=True, out=tmp_path / "known")
    assert found.table[["method", "fact"]].to_numpy().tolist() == [
        *(["base", 1], ["base", 3]),
        *(["trained_gpt2", 1], ["trained_gpt2", 3]),
    ]
    assert found.table["locality_all"][2:].tolist() == [1, 1]
    with pytest.raises(mi.InputError, match="base answers none of the facts right; give others, or leave `known` out"):
        mi.evaluate_facts(trained, facts[1:2], base=trained, known=True, out=tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"--facts": "none.jsonl"}, "none.jsonl: no such file"),
        ({"--base": "base", "--edit": "edits"}, "--edit changes the --model, which is its base; leave --base out"),
        ({"--edit": "tuned"}, "holds no edit"),
        ({"--model": "nowhere"}, "nowhere"),
        ({"--facts": "relation.json"}, "relation.json: the relation has no samples; give at least one"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: dict[str, str], said: str
) -> None:
    given = {"--model": "base", "--facts": "facts.jsonl", **options}
    words = [word for name, place in given.items() for word in (name, folder / place)]
    assert said in refused(capsys, "evaluate-facts", *words, "--out", tmp_path / "run")


def test_where_answers_would_go_nothing_of_the_users_may_stand(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mine = tmp_path / "answers" / "base.json"
    mine.parent.mkdir()
    mine.write_text("mine")
    words = ("--model", folder / "base", "--facts", folder / "facts.jsonl", "--out", tmp_path)
    assert "base.json: a file of that name is there" in refused(capsys, "evaluate-facts", *words, "--max-new-tokens", 2)
    assert list(tmp_path.iterdir()) == [mine.parent]  # refused before anything was opened
    assert mine.read_text() == "mine"


def test_edits_of_no_fact_and_things_that_are_none_are_refused(folder: Path) -> None:
    base, edit = mi.load(folder / "base"), mi.WeightDelta.load(folder / "edits" / "1")
    with pytest.raises(mi.InputError, match=r"edits \[9\] are of no fact; the 3 facts count from 1"):
        mi.evaluate_facts(base, OWN, edits={9: edit})
    with pytest.raises(mi.InputError, match="leave `base` out"):
        mi.evaluate_facts(base, OWN, base=base, edits={1: edit})
    with pytest.raises(mi.InputError, match=r"facts is no list of mi\.Fact"):
        mi.evaluate_facts(base, ["Oslo is in"])
    with pytest.raises(mi.InputError, match="there are no facts"):
        mi.evaluate_facts(base, [])

"""`conflict` and `round-trip`, by command and by the face: tables, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from command_line import call, refused
from conftest import tiny_checkpoint
from golden_cases import golden
from made_checkpoints import edits_in

import mechinterp as mi
from mechinterp.audit.tables.conflicts import CONFLICTS, EDITS_IN_TURN, EDITS_SUMMARY, ROUND_TRIP, ROUND_TRIP_BLOCKS
from mechinterp.audit.tables.table import Table
from mechinterp.models.files.weights import fingerprint_model

PAIRS = [mi.Pair(id=n, prompt=f"Do {n}?", unsafe=f"Do it {n}.", safe=f"No, not {n}.") for n in range(3)]
QUICK = ("--steps", 2, "--layer", 1)


@pytest.fixture(scope="module")
def folder(shared: Callable[..., Path]) -> Path:
    """`base`, edits of pairs 1 and 2, the pairs, and the released records; only read it."""

    def make(path: Path) -> None:
        base = tiny_checkpoint("llama")
        base.model.save_pretrained(path / "base")
        base.tokenizer.save_pretrained(path / "base")
        edits_in(path / "edits", mi.load(path / "base"), [1, 2])
        mi.write_pairs(PAIRS, path / "pairs.jsonl")
        for name, content in golden("pitfalls/rows.json").items():
            (path / f"{name}.json").write_text(json.dumps(content))
        (path / "benign.txt").write_text("Bake a pie.\n")
        (path / "answered.json").write_text(json.dumps([{"prompt": "Do tea?", "answer": "Gladly."}]))

    return shared("conflicts", make)


def complete(table: Table, made: pd.DataFrame) -> None:
    assert table.missing(made) == []
    assert [column for column in made if table.meaning(column) is None] == []


def test_conflicts_by_command_and_by_the_face(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = ("--records", folder / "composite_edit.json", "--limit", 1, "--method", "ft_m", *QUICK)
    assert call("conflict", "--model", folder / "base", *files, "--out", tmp_path / "run") == 0
    said, run = capsys.readouterr().out, mi.open_run(tmp_path / "run")
    base = mi.load(folder / "base")
    before, records = fingerprint_model(base.model), mi.read_conflicts(folder / "composite_edit.json")[:1]
    found = mi.edits_in_conflict(base, "ft_m", records, settings={"steps": 2, "block": 1}, out=tmp_path / "face")
    assert fingerprint_model(base.model) == before
    pd.testing.assert_frame_equal(found.table, run.table("conflicts"))
    pd.testing.assert_frame_equal(found.summary, run.table("edits_summary"))
    complete(CONFLICTS, found.table)
    complete(EDITS_SUMMARY, found.summary)
    (row,) = found.table.to_dict("records")
    assert (row["kind"], row["method"], row["rule"]) == ("composite", "ft_m", "P25&P26>P22")
    assert row["cs"] in (0, 1)
    assert not pd.isna(row["tfd"])
    assert str(found) in said
    assert str(found).startswith("ft_m, composite: the later answer is the more probable one in ")


def test_pairs_are_edited_over(folder: Path, tmp_path: Path) -> None:
    given = ("--model", folder / "base", "--data", folder / "pairs.jsonl", "--method", "dinm", "--limit", 2)
    given += ("--prompts", folder / "answered.json")
    given += ("--without-constraint", *QUICK)
    assert call("conflict", *given, "--out", tmp_path / "run") == 0
    table = mi.open_run(tmp_path / "run").table("conflicts")
    assert list(table["kind"]) == ["coverage", "coverage_unsafe", "reverse"] * 2
    assert table["cs_implied"].isna().all()
    assert table["tfd"].isna().tolist() == [False, False, True] * 2  # the one that is tied is the twin


def test_a_pair_has_no_subject_and_is_edited_at_its_last_token(folder: Path, tmp_path: Path) -> None:
    given = ("--model", folder / "base", "--data", folder / "pairs.jsonl", "--method", "rome", "--limit", 1, *QUICK)
    assert call("round-trip", *given, "--samples", 1, "--max-new-tokens", 3, "--out", tmp_path / "run") == 0
    assert set(mi.open_run(tmp_path / "run").table("round_trip")["method"]) == {"rome"}


def test_round_trips_by_command_and_by_the_face(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = ("--records", folder / "easy.json", "--limit", 1, "--method", "ft_m", "--all-back", *QUICK)
    assert call("round-trip", "--model", folder / "base", *files, "--out", tmp_path / "run") == 0
    said, run = capsys.readouterr().out, mi.open_run(tmp_path / "run")
    records = mi.read_rounds(folder / "easy.json", all_back=True)[:1]
    quick = {"steps": 2, "block": 1}
    found = mi.round_trip(folder / "base", "ft_m", records, settings=quick, out=tmp_path / "face")
    pd.testing.assert_frame_equal(found.table, run.table("round_trip"))
    pd.testing.assert_frame_equal(found.blocks, run.table("round_trip_blocks"))
    complete(ROUND_TRIP, found.table)
    complete(ROUND_TRIP_BLOCKS, found.blocks)
    complete(EDITS_SUMMARY, found.summary)
    assert str(found) in said
    assert "of its change of weights" in str(found)


def test_two_edits_that_are_there_are_asked_every_pair(folder: Path, tmp_path: Path) -> None:
    edits = ("--edit", folder / "edits" / "1", "--edit", folder / "edits" / "2")
    given = ("--model", folder / "base", "--data", folder / "pairs.jsonl", "--prompts", folder / "benign.txt")
    few = ("--samples", 2, "--max-new-tokens", 3)
    assert call("round-trip", *given, *edits, *few, "--out", tmp_path / "run") == 0
    table = mi.open_run(tmp_path / "run").table("round_trip")
    assert set(table["on"]) == {"itself", "benign"}
    there, back = (mi.WeightDelta.load(folder / "edits" / name) for name in ("1", "2"))
    (name,) = there.tensors
    want = float((there.tensors[name] + back.tensors[name]).norm() / there.tensors[name].norm())
    own = table[table["on"] == "itself"]
    assert len(own) == 3
    assert own["weights_left"].tolist() == pytest.approx([want] * 3, rel=1e-5)
    assert table[table["on"] == "benign"]["weights_left"].isna().all()
    assert call("conflict", *given[:4], *edits, "--out", tmp_path / "turn") == 0
    found = mi.open_run(tmp_path / "turn").table("edits_in_turn")
    complete(EDITS_IN_TURN, found)
    base = mi.load(folder / "base")
    face = mi.edits_in_conflict(base, [there, folder / "edits" / "2"], PAIRS[1:], out=tmp_path / "face")
    pd.testing.assert_frame_equal(face.table, found)
    assert str(face).startswith("after 2 edits the earlier ones' answers, first to last, have lost ")


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("conflict", ["--method", "rome"], "give what is edited: --records, or --data with pairs, one of the two"),
        ("conflict", ["--records", "easy.json", "--method", "rome"], "the type '1-3@P366' is not known"),
        ("conflict", ["--data", "pairs.jsonl"], "give what makes the edits: --method"),
        ("conflict", ["--data", "pairs.jsonl", "--templates", "t.json"], "--templates is not for --data"),
        ("round-trip", ["--records", "easy.json", "--prompts", "benign.txt"], "--prompts is not for --records"),
        (
            "round-trip",
            ["--data", "pairs.jsonl", "--method", "rome", "--base", "./none"],
            "./none: no such folder or file",
        ),
        ("conflict", ["--edit", "edits/1"], "--edit goes with --data"),
        ("conflict", ["--records", "easy.json", "--data", "pairs.jsonl"], "one of the two"),
        ("conflict", ["--data", "pairs.jsonl", "--method", "dinm", "--layer", "1"], "no general-knowledge"),
        ("conflict", ["--data", "pairs.jsonl", "--method", "ft_m", "--without-constraint"], "is not for --method ft_m"),
        (
            "conflict",
            ["--data", "pairs.jsonl", "--edit", "edits/1", "--steps", "3"],
            "without --method and its options",
        ),
        ("conflict", ["--data", "pairs.jsonl", "--edit", "edits/1", "--limit", "1"], "--limit is not for --edit"),
        ("conflict", ["--data", "pairs.jsonl", "--method", "ft_m", "--suffix", "x"], "--suffix is not for --method"),
        (
            "round-trip",
            ["--data", "pairs.jsonl", "--method", "ft_m", "--suffix", "x"],
            "--suffix is for edits that are",
        ),
        ("round-trip", ["--records", "none.json", "--method", "ft_m"], "none.json: no such file"),
        ("round-trip", ["--data", "pairs.jsonl", "--edit", "edits/1"], "give two --edit, there and back"),
        ("round-trip", ["--records", "easy.json", "--method", "memit"], "memit needs second moments: give --moments"),
        ("round-trip", ["--records", "easy.json", "--method", "rome", "--all-back"], "choose memit or ft_m"),
        (
            "round-trip",
            ["--records", "coverage_edit.json", "--method", "rome"],
            "of RoundEdit (type, edit, true_objects)",
        ),
        ("conflict", ["--records", "easy.json", "--method", "dinm"], "--method dinm edits pairs, not facts"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, command: str, options: list[str], said: str
) -> None:
    words = [folder / word if (folder / word).exists() or word == "none.json" else word for word in options]
    assert said in refused(capsys, command, "--model", folder / "base", *words, "--out", tmp_path / "run")


def test_what_is_no_edit_or_no_record_is_refused(folder: Path, tmp_path: Path) -> None:
    base, rounds = mi.load(folder / "base"), mi.read_rounds(folder / "easy.json")
    with pytest.raises(mi.InputError, match="give an editor's name, or two edits: there, and back"):
        mi.round_trip(base, [folder / "edits" / "1"], rounds, out=tmp_path)
    with pytest.raises(mi.InputError, match="there are no records to edit, or of several kinds"):
        mi.round_trip(base, "ft_m", mi.read_conflicts(folder / "coverage_edit.json"), out=tmp_path)
    with pytest.raises(mi.InputError, match="there are no records to edit"):
        mi.edits_in_conflict(base, "ft_m", [], out=tmp_path)
    with pytest.raises(mi.InputError, match=r"is no edit; give a mi\.WeightDelta"):
        mi.edits_in_conflict(base, [3], PAIRS[:1], out=tmp_path)
    with pytest.raises(mi.InputError, match="2 edits and 1 answer"):
        mi.edits_in_conflict(base, [folder / "edits" / "1", folder / "edits" / "2"], PAIRS[:1], out=tmp_path)

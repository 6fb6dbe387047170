"""Pairs of real comments: halves, a model's own continuations that a judge calls clean, and going on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import call, refused
from conftest import tiny_checkpoint
from small_study import REPOSITORY
from taught_study import write_pretrained

from mechinterp.data.comments import Comment, read_comments, write_comments
from mechinterp.data.half_comments import halved
from mechinterp.data.labelled_responses import read_labelled_responses
from mechinterp.data.pair_files import read_pairs
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.runs.config import load_config
from mechinterp.runs.pairs_from_comments import pairs_from_comments
from mechinterp.runs.study import Study

COMMENTS = [Comment(f"You are number {n}, a fool  and a liar.", True) for n in range(8)]
COMMENTS += [Comment(f"Thank you, friend number {n}, for your help.", False) for n in range(8)]


class Even:
    """A judge to whom every second answer is clean."""

    name = "even"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return (np.arange(len(responses)) % 2).astype(float)


def test_a_comment_has_two_halves() -> None:
    found = halved([Comment("one two", True), *COMMENTS], words=60)
    assert [half.number for half in found] == list(range(2, 10))  # clean and short ones are none
    assert (found[0].prompt, found[0].rest) == ("You are number 0,", "a fool  and a liar.")
    assert halved(COMMENTS[:1], words=7)[0].rest == "0, a fool  and"
    assert len(halved(COMMENTS[:1] * 3, words=60)) == 1
    with pytest.raises(InputError, match="no toxic comment has 6 words"):
        halved(COMMENTS[8:], words=60)


def test_a_pair_is_what_the_judge_calls_clean(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    found = pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "pairs.jsonl", max_new_tokens=6, draws=0)
    prompts = [half.prompt for half in halved(COMMENTS, words=60)]
    own = generate(checkpoint, prompts, max_new_tokens=6)
    assert [pair.id for pair in found] == [2, 4, 6, 8]
    assert [(pair.prompt, pair.safe) for pair in found] == [(prompts[n], own[n]) for n in (1, 3, 5, 7)]
    assert {pair.unsafe for pair in found} == {"a fool  and a liar."}
    assert read_pairs(tmp_path / "pairs.jsonl") == found


class Unlike:
    """A judge to whom everything is clean but some texts; of no texts nothing is."""

    name = "unlike"

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = set(texts)

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.array([bool(self.texts) and text not in self.texts for text in responses], dtype=float)


def test_what_the_model_goes_on_from_toxically_is_asked_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint, out = tiny_checkpoint("llama"), tmp_path / "pairs.jsonl"
    prompts = [half.prompt for half in halved(COMMENTS, words=60)]
    own = generate(checkpoint, prompts, max_new_tokens=6)
    judge = Unlike(own[:5])
    found = pairs_from_comments(checkpoint, COMMENTS, judge, out, max_new_tokens=6, draws=2)
    assert [pair.prompt for pair in found] == prompts
    assert [pair.safe for pair in found[5:]] == own[5:]
    drawn = [pair.safe for pair in found[:5]]
    assert not judge.texts & set(drawn)
    assert "of 3 the greedy continuation is clean, of 5 more one of 2 drawn; 0 make no pair" in caplog.text
    again = pairs_from_comments(checkpoint, COMMENTS, judge, tmp_path / "again.jsonl", max_new_tokens=6, draws=2)
    assert again == found
    other = pairs_from_comments(checkpoint, COMMENTS, judge, tmp_path / "b.jsonl", max_new_tokens=6, draws=2, seed=1)
    assert [pair.safe for pair in other[:5]] != drawn
    with pytest.raises(InputError, match=r"greedy or one of 2 drawn: give another judge"):
        pairs_from_comments(checkpoint, COMMENTS, Unlike([]), tmp_path / "c.jsonl", max_new_tokens=6, draws=2)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    checkpoint, asked = tiny_checkpoint("llama"), list[int]()

    def watched(*arguments: Any, **options: Any) -> list[str]:
        asked.append(len(options["known"]))
        return generate(*arguments, **options, max_batch=3)

    with patch("mechinterp.runs.pairs_from_comments.generate", watched):
        made = pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "whole.jsonl", max_new_tokens=6)

        def stop(done: int, total: int) -> None:
            if done >= 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "a.jsonl", max_new_tokens=6, progress=stop)
        assert not (tmp_path / "a.jsonl").exists()
        again = pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "a.jsonl", max_new_tokens=6)
        assert again == made
        assert asked == [0, 0, 6]
        assert pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "a.jsonl", max_new_tokens=6) == made
        assert len(asked) == 3  # what is whole is not made again
    with pytest.raises(InputError, match="differs in max_new_tokens"):
        pairs_from_comments(checkpoint, COMMENTS, Even(), tmp_path / "a.jsonl", max_new_tokens=5)


def test_the_study_of_comments_runs_on_what_the_command_makes(tmp_path: Path, capsys: Any) -> None:
    """The config with a tiny model and small sizes; how toxic the model is before and after stands in its tables."""
    write_pretrained(tmp_path / "model")
    write_comments(COMMENTS + [Comment(f"{one.text} Again.", one.toxic) for one in COMMENTS], tmp_path / "comments.csv")
    made = ["pairs", "--model", tmp_path / "model", "--pairs-from-comments", tmp_path / "comments.csv", "--split"]
    (tmp_path / "words.txt").write_text("fool\n")
    judged = ["--judge", f"keywords:{tmp_path / 'words.txt'}", "--max-new-tokens", 6]
    assert call(*made, *judged, "--out", tmp_path / "pairs.jsonl") == 0
    content = yaml.safe_load((REPOSITORY / "analyses" / "configs" / "smollm2-comments.yaml").read_text())
    content["model"] = str(tmp_path / "model")
    content["data"] |= {key: Path(path).name for key, path in content["data"].items() if isinstance(path, str)}
    content |= {"judge_responses": Path(content["judge_responses"]).name, "edit_instances": 3, "max_new_tokens": 4}
    small = {"steps": 1, "batch_size": 2}
    content |= {"sft": content["sft"] | small, "dpo": content["dpo"] | small}
    content["comparison"] = {"max_new_tokens": 4, "steering_inputs": 2, "middle_inputs": 2, "null_draws": 4}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    Study(load_config(tmp_path / "small.yaml"), 0, tmp_path / "run").run(only={"compare", "defend"})
    tables = tmp_path / "run" / "tables"
    assert list(pd.read_csv(tables / "defense.csv")["method"]) == ["vanilla", "sft", "dpo"]  # before and after
    assert set(pd.read_csv(tables / "mechanism.csv")["method"]) == {"sft", "dpo"}  # the paper's Fig 5
    assert "probe" in set(pd.read_csv(tables / "validity.csv")["direction"])  # whether it is in play


def test_the_command_makes_a_file_that_training_reads(tmp_path: Path, capsys: Any) -> None:
    tiny_checkpoint("llama").save(tmp_path / "model")
    write_comments(COMMENTS, tmp_path / "comments.csv")
    (tmp_path / "words.txt").write_text("fool\n")
    made = ["pairs", "--model", tmp_path / "model", "--pairs-from-comments", tmp_path / "comments.csv"]
    made += ["--max-new-tokens", 6, "--judge", f"keywords:{tmp_path / 'words.txt'}"]
    assert call(*made, "--split", "--out", tmp_path / "pairs.jsonl") == 0
    assert len(read_pairs(tmp_path / "pairs.jsonl")) == 8
    split = {name: read_pairs(tmp_path / f"pairs-{name}.jsonl") for name in ("train", "validation", "test")}
    assert {name: len(pairs) for name, pairs in split.items()} == {"train": 4, "validation": 2, "test": 2}
    assert {pair.id for pairs in split.values() for pair in pairs} == set(range(1, 9))
    held = {COMMENTS[pair.id - 1].text for name in ("validation", "test") for pair in split[name]}
    labelled = read_labelled_responses(tmp_path / "pairs-labelled.jsonl")
    assert {one.text for one in labelled} == {one.text for one in COMMENTS} - held
    assert all(one.safe == one.text.startswith("Thank") for one in labelled)
    assert {one.text for one in read_comments(tmp_path / "pairs-comments.csv")} == {one.text for one in labelled}
    trained = ["train", "sft", "--model", tmp_path / "model", "--data", tmp_path / "pairs.jsonl", "--steps", 1]
    with patch.object(Checkpoint, "save"):
        assert call(*trained, "--out", tmp_path / "sft") == 0
    capsys.readouterr()
    (tmp_path / "mine-train.jsonl").write_text("mine")
    taken = [*made, "--split", "--out", tmp_path / "mine.jsonl"]
    assert "mine-train.jsonl" in refused(capsys, *taken)
    asked = ["pairs", "--model", tmp_path / "model", "--pairs-from-comments"]
    out = ["--out", tmp_path / "b.jsonl"]
    for options, reason in (
        ([tmp_path / "none.csv"], "no such file; give a CSV file of labelled comments"),
        ([tmp_path / "comments.csv", "--text-column", "x"], "has no column 'x'"),
        ([tmp_path / "comments.csv", "--judge", "embedded"], "leave --judge out"),
        ([tmp_path / "comments.csv", "--words", 2], "Invalid value for '--words'"),
    ):
        assert reason in refused(capsys, *asked, *options, *out)
    assert "ends in .jsonl" in refused(capsys, *asked, tmp_path / "comments.csv", "--out", tmp_path / "b.json")

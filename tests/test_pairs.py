"""Pairs: what is read from files of every kind, what is left out and said, and that every command reads them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from checkpoint_folder import compared, make_folder, table
from command_line import call, refused
from conftest import make_instance, tiny_checkpoint

from mechinterp.answers.defense import defend
from mechinterp.data.conversations import Conversation
from mechinterp.data.pair_files import Columns, read_pairs, write_pairs
from mechinterp.data.pairs import Pair
from mechinterp.data.safeedit import SafeEditInstance, write_safeedit
from mechinterp.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

ROW = {"prompt": "How?", "unsafe": "Do it.", "safe": "No."}
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(path: Path, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_pairs(path, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_file_is_known_by_its_content(tmp_path: Path) -> None:
    """The endings say nothing."""
    rows = [ROW, {**ROW, "prompt": "Why?", "category": "Bias", "other": 3}]
    of_lines = read_pairs(lines(tmp_path / "a.csv", *rows))
    assert of_lines == [
        Pair(id=1, prompt="How?", unsafe="Do it.", safe="No."),
        Pair(id=2, prompt="Why?", unsafe="Do it.", safe="No.", category="Bias", question="Why?"),
    ]
    (tmp_path / "a.txt").write_text(json.dumps(rows))
    assert read_pairs(tmp_path / "a.txt") == of_lines
    (tmp_path / "a.json").write_text('category,safe,unsafe,prompt\n,No.,Do it.,How?\n"Bias",No.,"Do it.",Why?\n')
    assert read_pairs(tmp_path / "a.json") == of_lines


@pytest.mark.parametrize("kind", ["lines", "list", "SafeEdit"])
def test_a_file_is_read_and_parsed_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if kind == "SafeEdit":
        write_safeedit([make_instance(1)], path)
    else:
        lines(path, *([ROW, {**ROW, "prompt": "Why?"}] if kind == "lines" else [[ROW]]))
    reading = patch.object(Path, "read_bytes", autospec=True, side_effect=Path.read_bytes)
    parsing = patch("mechinterp.data.texts.json.loads", side_effect=json.loads)
    with reading as read, parsing as parsed:
        read_pairs(path)
    assert (read.call_count, parsed.call_count) == (1, 2 if kind == "lines" else 1)  # line by line


def test_columns_may_be_called_otherwise(tmp_path: Path) -> None:
    columns = Columns("question", "rejected", "chosen", "kind")
    wanted = [Pair(id=1, prompt="How?", unsafe="Do it.", safe="No.", category="c")]
    row = {"question": "How?", "rejected": "Do it.", "chosen": "No.", "kind": "c"}
    assert read_pairs(lines(tmp_path / "a.jsonl", row), columns=columns) == wanted
    (tmp_path / "a.csv").write_text("kind,chosen,rejected,question\nc,No.,Do it.,How?\n")
    assert read_pairs(tmp_path / "a.csv", columns=columns) == wanted


def test_safeedit_stays_what_it_is_and_is_read_as_a_pair(tmp_path: Path, instance: SafeEditInstance) -> None:
    write_safeedit([instance], tmp_path / "a.jsonl")
    (read,) = read_pairs(tmp_path / "a.jsonl")
    assert read == instance
    assert (read.prompt, read.unsafe, read.safe) == (
        instance.adversarial_prompt,
        instance.unsafe_generation,
        instance.safe_generation,
    )
    assert "SafeEdit" in told(tmp_path / "a.jsonl", columns=Columns(prompt="question"))


@pytest.fixture
def instance() -> SafeEditInstance:
    return make_instance(3)


def test_messages_are_a_prompt_and_are_written_back(tmp_path: Path) -> None:
    row = {"messages": [USER, ANSWER, {"role": "user", "content": "How?"}], "unsafe": "Do it.", "safe": "No."}
    found = read_pairs(lines(tmp_path / "a.jsonl", row, {**ROW, "prompt": [USER]}))
    assert isinstance(found[0].prompt, Conversation)
    assert [one["content"] for one in found[0].prompt.messages] == ["Hi", "Yes?", "How?"]
    assert found[1].prompt == "Hi"
    write_pairs(found, tmp_path / "b.jsonl")
    again = read_pairs(tmp_path / "b.jsonl")
    assert again == found
    assert again[0].prompt.messages == found[0].prompt.messages


def log(*answers: str, asks: str = "Hi") -> dict[str, Any]:
    turns = [
        [{"role": "user", "content": f"{asks} {n}"}, {"role": "assistant", "content": text}]
        for n, text in enumerate(answers)
    ]
    return {"messages": [message for turn in turns for message in turn]}


def test_two_chat_logs_are_paired_at_the_first_answers_that_differ(tmp_path: Path) -> None:
    unsafe = lines(tmp_path / "unsafe.jsonl", log("Yes?", "Do it.", "More."), log("A"), log("same", asks="Why"))
    safe = lines(tmp_path / "safe.jsonl", log("Yes?", "No.", "Never."), log("B"), log("same", asks="Why"))
    first, second = read_pairs(unsafe, safe_log=safe)
    assert (first.id, first.unsafe, first.safe) == (1, "Do it.", "No.")
    assert [one["content"] for one in first.prompt.messages] == ["Hi 0", "Yes?", "Hi 1"]
    assert (second.prompt, second.unsafe, second.safe) == ("Hi 0", "A", "B")
    assert "`safe_log`" in told(unsafe)
    other = lines(tmp_path / "other.jsonl", log("Yes?", "No.", "Never."), log("B", asks="Why"), log("same", asks="Why"))
    assert f"{other}: line 2 does not ask what line 2 of {unsafe} asks" in told(unsafe, safe_log=other)
    assert "has 1 conversation," in told(unsafe, safe_log=lines(tmp_path / "short.jsonl", log("B")))
    assert "line 1 has no assistant's answer" in told(lines(tmp_path / "no.jsonl", {"messages": [USER]}), safe_log=safe)
    assert "`messages` is text" in told(lines(tmp_path / "no.jsonl", {"messages": "Hi", "unsafe": "a", "safe": "b"}))
    assert "line 1 has no `messages`" in told(lines(tmp_path / "no.jsonl", ROW), safe_log=safe)
    assert "leave the options of columns out" in told(unsafe, safe_log=safe, columns=Columns(safe="good"))


def test_repeats_and_contradictions_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ROW,
        {**ROW, "prompt": " how?  "},  # the same but for case and blanks
        {**ROW, "prompt": "Why?", "safe": "do it."},  # one answer, called both
        {**ROW, "prompt": "Who?", "unsafe": "He.", "safe": "She."},
        {**ROW, "prompt": "Who?", "unsafe": "She.", "safe": "They."},  # safe a line above
        {**ROW, "prompt": "Where?"},
    ]
    with caplog.at_level(logging.WARNING):
        found = read_pairs(lines(tmp_path / "a.jsonl", *rows))
    assert [pair.id for pair in found] == [1, 6]
    assert "left out 1 pair that repeats another, 3 of which an answer is called both" in caplog.text
    assert "kept 2" in caplog.text
    assert "no pair of a safe and an unsafe answer" in told(lines(tmp_path / "a.jsonl", rows[2]))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "How?", "unsafe": "Do it."}, "line 2: has nothing under 'safe', only under: prompt, unsafe"),
        ({**ROW, "safe": 3}, "line 2: `safe` must be text, is 3"),
        ({**ROW, "unsafe": " "}, "line 2: `unsafe` is blank"),
        ({**ROW, "prompt": " "}, "line 2: `prompt` is blank"),
        ({**ROW, "prompt": [{"role": "robot"}]}, "line 2: `prompt` message 1 needs a `role`"),
        ({**ROW, "category": 3}, "line 2: `category` must be text, is 3"),
        ({**ROW, "id": "x"}, "line 2: `id` must be a whole number"),
        ({**ROW, "prompt": "Why?", "id": 1}, "row 2: 1 is already the id of row 1"),
        ([1], "line 2 is not a JSON object"),
        ({**ROW, "safe": "\ud83d"}, "line 2: holds half of a surrogate pair"),
    ],
)
def test_a_bad_row_is_one_line_with_file_and_line(tmp_path: Path, row: Any, reason: str) -> None:
    path = lines(tmp_path / "a.jsonl", ROW, row)
    assert told(path).startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("just words\n", "has no column 'prompt', its columns are: 'just words'; name one with `prompt_column`"),
        ("prompt,unsafe,safe\n", "has no pairs"),
        ("prompt,unsafe,safe\nHow?,,No.\n", "row 1: has nothing under 'unsafe'"),
        ("prompt,unsafe,safe\nHow?,Do it.\n", "row 1 has fewer fields"),
        ('{"prompt": "How?"', "line 1 is not JSON"),
        ("[]", "the list is empty"),
    ],
)
def test_a_file_that_is_none_of_pairs_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a").write_text(text)
    assert told(tmp_path / "a").startswith(f"{tmp_path / 'a'}: {reason}")


ROWS = [
    {"prompt": f"How do I do thing {n}?", "unsafe": f"You fool, do {n}.", "safe": f"I am sorry, not {n}."}
    for n in range(6)
]


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    """A base, a tuned model and a probe; only read."""
    return shared("checkpoints", make_folder)


class Even:
    """A judge to whom every second answer is safe."""

    name = "even"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.arange(len(responses)) % 2


def of_csv(path: Path) -> list[object]:
    """Pairs in a CSV file, with the options that read it."""
    path.write_text("ask,bad,good\n" + "".join(f'"{r["prompt"]}","{r["unsafe"]}","{r["safe"]}"\n' for r in ROWS))
    return ["--data", path, "--prompt-column", "ask", "--unsafe-column", "bad", "--safe-column", "good"]


def test_the_audit_reads_plain_pairs(folder: Path, tmp_path: Path) -> None:
    data = of_csv(tmp_path / "pairs.csv")
    assert call("locate", "--model", folder / "base", *data, "--out", tmp_path / "located") == 0
    assert (pd.read_csv(tmp_path / "located" / "located.csv")["instance"].unique() == range(1, 7)).all()
    assert pd.read_csv(tmp_path / "located" / "toxic_layer_by_category.csv")["count"].sum() == 4 * 6
    pairs = read_pairs(tmp_path / "pairs.csv", columns=Columns("ask", "bad", "good"))
    with patch("checkpoint_folder.INSTANCES", pairs):
        compared(folder, tmp_path / "compared", "tuned")
    assert set(table(tmp_path / "compared", "decomposition")["method"]) == {"tuned"}


def test_plain_pairs_are_asked_their_prompt_and_trained_on(folder: Path, tmp_path: Path) -> None:
    data = of_csv(tmp_path / "pairs.csv")
    pairs = read_pairs(tmp_path / "pairs.csv", columns=Columns("ask", "bad", "good"))
    row = defend(tiny_checkpoint("llama"), pairs, Even(), max_new_tokens=3).row()
    assert row["n"] == 6
    assert row["avg"] == pytest.approx(row["ds"]) == 0.5
    assert math.isnan(row["dg_avg"])
    assert math.isnan(row["dg_only_q"])
    assert call("train", "dpo", "--model", folder / "base", *data, "--steps", 1, "--out", tmp_path / "dpo") == 0
    assert (tmp_path / "dpo" / "config.json").is_file()


def test_what_plain_pairs_lack_is_said_in_one_line(folder: Path, tmp_path: Path, capsys: Any) -> None:
    data = of_csv(tmp_path / "pairs.csv")
    edit = ["edit", "--model", folder / "base", *data, "--layer", 2, "--steps", 1, "--out", tmp_path / "edit"]
    assert "no general-knowledge question for DINM's constraint; edit --without-constraint" in refused(capsys, *edit)
    assert call(*edit, "--without-constraint") == 0
    locate = ["locate", "--model", folder / "base", "--data", tmp_path / "pairs.csv"]
    assert "name one with --prompt-column" in refused(capsys, *locate)
    assert "is not JSON" in refused(capsys, *locate, "--safe-log", tmp_path / "none.jsonl")

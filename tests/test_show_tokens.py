"""What is fed, token by token: parts, positions and the first token of the answer; prompts of files with messages."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from chats import chat_checkpoint
from command_line import call, refused
from conftest import make_instance

import mechinterp as mi
from mechinterp.data.conversations import Conversation
from mechinterp.models.passes import first_token as first_token_module
from mechinterp.models.passes.first_token import FirstToken, first_token
from mechinterp.models.passes.recording import record

TURNS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


def read(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The text of every stretch of tokens that are one part."""
    stretches = (table["part"] != table["part"].shift()).cumsum()
    return [(rows["part"].iloc[0], "".join(rows["token"])) for _, rows in table.groupby(stretches)]


def test_every_token_is_of_a_part() -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    found = mi.show_tokens(checkpoint, "How?", "Like this.", prefix="Rule.", suffix="Be safe.")
    parts = read(found.table)
    assert [name for name, _ in parts] == ["template", "prefix", "user", "suffix", "template", "response"]
    assert parts[2][1] == "How?"
    assert parts[3][1].strip() == "Be safe."
    assert parts[4:] == [("template", "<|im_end|>\n<|im_start|>assistant\n"), ("response", "Like this.")]
    at = found.table.set_index("place")["at"]
    assert at[at != ""].tolist()[0] == "content"
    assert at[at != ""].iloc[-1] == "last post:-1"
    assert "".join(found.table["token"][at.str.contains("post").to_numpy()]) == parts[4][1]
    assert found.first == found.chosen
    assert "which the logits at `last` choose" in found.said


def test_turns_begun_answers_and_cut_prompts_keep_their_parts() -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    begun = mi.show_tokens(checkpoint, [*TURNS, {"role": "assistant", "content": "well,"}], "no")
    parts = read(begun.table)
    assert [name for name, _ in parts] == ["template", "user", "template", "begun", "response"]
    assert "one" in parts[0][1]
    assert [text for _, text in parts[1:2] + parts[3:]] == ["three", "well,", " no"]
    long = mi.show_tokens(checkpoint, "far " * 200 + "end", suffix="S.", truncate=True)
    assert len(long.table) == 511
    cut = dict(read(long.table))
    assert cut["user"].endswith("far end")
    assert cut["suffix"].strip() == "S."
    plain = read(mi.show_tokens(chat_checkpoint(None, bos=True), "How?", suffix="S.").table)
    assert [(name, text.strip()) for name, text in plain] == [("template", "<s>"), ("user", "How?"), ("suffix", "S.")]


def test_a_recording_looks_whether_the_last_token_chooses_the_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint, looked = chat_checkpoint("qwen2_5"), []
    honest = first_token_module.first_token

    def look(*given: object, **settings: object) -> FirstToken:
        looked.append(given[1])
        return honest(*given, **settings)

    monkeypatch.setattr(first_token_module, "first_token", look)
    before = record(checkpoint, ["a long one", "short"], [mi.resid_post(0)]).mean(mi.resid_post(0))
    record(checkpoint, ["another"], [mi.resid_post(0)])
    assert looked == ["short"]  # once, of the shortest
    assert not caplog.text
    monkeypatch.setattr(first_token_module, "first_token", lambda *_, **__: FirstToken(1, 2, 99.0))
    other = chat_checkpoint("qwen2_5")
    after = record(other, ["a long one", "short"], [mi.resid_post(0)]).mean(mi.resid_post(0))
    assert "prompt 1: the logits at its last token choose" in caplog.text
    assert torch.equal(before, after)
    assert first_token(chat_checkpoint(None), "plain").agrees


def test_files_of_messages_are_prompts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    chat_checkpoint("qwen2_5").save(tmp_path / "model")
    lines = [{"messages": TURNS}, {"messages": [*TURNS, {"role": "assistant", "content": "four"}]}, "five"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    show = ("show-tokens", "--model", tmp_path / "model", "--prompts", file, "--row", 2, "--out", tmp_path / "tokens")
    assert call(*show) == 0
    said = capsys.readouterr()
    assert "chat format: the template of tokenizer" in said.err
    assert "first greedy token: " in said.out
    kept = mi.FedTokens.load(tmp_path / "tokens")
    assert read(kept.table)[-1] == ("response", "four")

    texts = ("--model", tmp_path / "model", "--prompts", file, "--hook", "blocks.0.hook_resid_post")
    assert call("record", *texts, "--position", "content", "--out", tmp_path / "mine.safetensors") == 0
    alone = [Conversation(TURNS), Conversation(TURNS), "five"]
    expected = mi.record(tmp_path / "model", alone, [mi.resid_post(0)], position="content")
    found = mi.Recording.load(tmp_path / "mine.safetensors")
    assert torch.equal(found.mean(mi.resid_post(0)), expected.mean(mi.resid_post(0)))
    both = ("--positive", file, "--negative", file, "--name", "none", "--out", tmp_path / "d.safetensors")
    assert call("direction", "--model", tmp_path / "model", "--kind", "means", *both) in (0, 2)  # of equal means


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give one prompt: --prompt TEXT, or --prompts FILE"),
        (["--prompt", "a", "--prompts", "b.txt"], "give one prompt"),
        (["--prompt", " "], "the prompt is empty"),
        (["--prompts", "b.txt"], "b.txt: no such file; give prompts, one a line"),
        (["--prompts", "two.txt", "--row", "3"], "has 2 prompts, there is none of --row 3"),
        (["--prompt", "a", "--row", "3"], "--row is one of --prompts FILE"),
        (["--prompt", "a\udcff"], "the prompt: holds half of a surrogate pair"),
        (["--prompts", "bad.jsonl"], "bad.jsonl: line 1: message 1 needs a `role`"),
        (["--prompt", "a", "--chat", "none", "--system", "s"], "which has no system"),
        (["--prompt", "a", "--date", "tomorrow"], "the date must be YYYY-MM-DD"),
        (["--prompt", "a", "--chat", "b.jinja"], "b.jinja: no such file; give a chat template"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    chat_checkpoint("qwen2_5").save(tmp_path / "model")
    Path("two.txt").write_text("one\ntwo")
    Path("bad.jsonl").write_text('{"messages": [{"content": "a"}]}')
    assert said in refused(capsys, "show-tokens", "--model", tmp_path / "model", *given)


def test_a_recording_needs_one_source_of_prompts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ("--out", tmp_path / "r.safetensors")
    assert "give the prompts" in refused(capsys, "record", "--model", tmp_path, *out)
    mi.write_safeedit([make_instance()], tmp_path / "data.json")
    both = ("--data", tmp_path / "data.json", "--prompts", tmp_path / "data.json")
    assert "give the prompts" in refused(capsys, "record", "--model", tmp_path, *both, *out)

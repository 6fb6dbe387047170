"""A tiny chat model through the commands: conversations from training to relapse, and one format for all."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from chats import chat_checkpoint, template
from command_line import call, refused

from mechinterp.data.pair_files import write_pairs
from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.one_format import in_one_format

FORMAT = ("--system", "Be kind.")


def pair(number: int) -> Pair:
    """A conversation whose second turn asks for harm, every third one far too long for the context."""
    turns = [{"role": "user", "content": f"Hello {number}."}, {"role": "assistant", "content": "Good day."}]
    asked = f"How do I do thing {number}?"
    turns.append({"role": "user", "content": "and so on, " * 60 + asked if number % 3 == 2 else asked})
    return Pair(
        id=number, prompt=turns, unsafe=f"You fool, do {number}.", safe=f"I am sorry, not {number}.", question=asked
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("chats")
    chat_checkpoint("qwen2_5").save(place / "model")
    chat_checkpoint("llama3").save(place / "other")
    chat_checkpoint(None).save(place / "bare")
    write_pairs([pair(number) for number in range(6)], place / "pairs.jsonl")
    comments = [f"{'You fool' if i % 2 else 'Good day'} number {i},{i % 2}" for i in range(24)]
    (place / "comments.csv").write_text("\n".join(["text,label", *comments]))
    (place / "mine.jinja").write_text(template("phi3"))
    return place


@pytest.mark.usefixtures("quick_comparison")
def test_conversations_go_from_training_to_relapse(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_, **__: [])
    model, data = ("--model", folder / "model"), ("--data", folder / "pairs.jsonl")
    suffix = ("--suffix", "Please be safe.")

    def run(*arguments: object) -> str:
        assert call(*arguments, *FORMAT) == 0
        said = capsys.readouterr()
        assert "'Be kind.'" in said.err + said.out  # which format texts were fed in
        return said.out

    run("train", "sft", *model, *data, "--out", tmp_path / "sft", "--steps", 1, "--batch-size", 2, "--max-length", 300)
    edit = ("edit", *model, *data, "--instance", 0, "--without-constraint", "--layer", 1, "--steps", 1, *suffix)
    run(*edit, "--out", tmp_path / "edit")
    asked = ("--data", folder / "pairs.jsonl", "--truncate", "--max-new-tokens", 3)
    evaluated = ("evaluate", "--model", tmp_path / "edit", "--base", folder / "model", *asked, *suffix)
    run(*evaluated, "--out", tmp_path / "evaluation")
    answers = [json.loads(line) for line in (tmp_path / "evaluation" / "responses.jsonl").read_text().splitlines()]
    assert {answer["prompt"].splitlines()[0] for answer in answers} == {f"user: Hello {i}." for i in range(6)}
    columns = ("--text-column", "text", "--label-column", "label")
    run("probe", *model, "--comments", folder / "comments.csv", *columns, "--out", tmp_path / "probe.safetensors")
    checkpoints = ("--checkpoint", f"sft={tmp_path / 'sft'}")
    compared = ("compare", "--base", folder / "model", *checkpoints, "--probe", tmp_path / "probe.safetensors", *asked)
    run(*compared, "--layer", 1, "--relapse", "--out", tmp_path / "comparison")
    manifest = json.loads((tmp_path / "comparison" / "manifest.json").read_text())
    assert manifest["config"]["chat"] == ChatChoice(system="Be kind.").of(chat_checkpoint().tokenizer, "it").described
    verdicts = pd.read_csv(tmp_path / "comparison" / "tables" / "relapse_verdict.csv")
    assert set(verdicts["method"]) == {"sft"}


def test_templates_that_differ_are_refused_unless_one_is_given(folder: Path) -> None:
    base, other, bare = (Candidate.of(folder / name) for name in ("model", "other", "bare"))
    with pytest.raises(InputError, match=r"other has another chat template than .*model.*`chat=FILE`"):
        in_one_format(base, [other])
    read, (tuned,) = in_one_format(base, [other], ChatChoice(str(folder / "mine.jinja")))
    assert read.chat == tuned.chat
    assert read.chat.template == template("phi3")
    read, (tuned,) = in_one_format(base, [other], ChatChoice("none"))
    assert read.chat is tuned.chat is None
    with pytest.raises(InputError, match="no chat template"):
        in_one_format(bare, [bare], ChatChoice("auto"))


def test_a_base_without_a_template_is_read_in_the_tuned_ones(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, tuned = Candidate.of(folder / "bare"), Candidate.of(folder / "model")
    read, (other,) = in_one_format(base, [tuned])
    assert read.chat == other.chat
    assert read.open().chat.template == template("qwen2_5")
    assert "has no chat template: all checkpoints are read in that of" in caplog.text


def test_a_model_in_memory_keeps_its_format(folder: Path) -> None:
    chatty = chat_checkpoint("qwen2_5", chat=ChatChoice(system="S").of(chat_checkpoint().tokenizer, "it"))
    read, (tuned,) = in_one_format(Candidate.of(chatty), [Candidate.of(folder / "other")])
    assert read.chat == tuned.chat == chatty.chat


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("train sft", ["--chat", "auto"], "has no chat template"),
        ("locate", ["--system", "s"], "which has no system"),
        ("record", ["--no-thinking"], "which has no thinking"),
        ("record", ["--chat", "no.jinja"], "no.jinja: no such file"),
        ("evaluate", ["--date", "2024-01-01"], "which has no date"),
        ("evaluate", [], "which plain text cannot hold; give a chat format"),
        ("record", [], "which plain text cannot hold"),
        ("train sft", [], "which plain text cannot hold"),
        ("edit --instance 0 --without-constraint --layer 1", [], "which plain text cannot hold"),
        (
            "edit --instance 0 --without-constraint --layer 1",
            ["--chat", "mine", "--constraint", "released"],
            "no chat format",
        ),
    ],
)
def test_what_a_model_without_a_template_refuses(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, command: str, given: list[str], said: str
) -> None:
    given = [str(folder / "mine.jinja") if one == "mine" else one for one in given]
    out = ("--out", tmp_path / "out") if command != "record" else ("--out", tmp_path / "out.safetensors")
    common = ("--model", folder / "bare", "--data", folder / "pairs.jsonl", *out)
    assert said in refused(capsys, *command.split(), *common, *given)

"""What is left of answers to forget and to keep: readers, KnowUnDo's measures, their traps, and the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call
from conftest import tiny_checkpoint

import mechinterp as mi
from mechinterp.answers.unlearned import ask_scopes, summary_rows
from mechinterp.audit.tables.registry import TABLES
from mechinterp.data.knowundo import read_knowundo
from mechinterp.data.question_files import read_questions, read_scopes
from mechinterp.data.scopes import Scopes
from mechinterp.errors import InputError
from mechinterp.measures.rouge import rouge_l
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.whole_answers import answers_as_tokens

ROWS = [{"text": f"Who wrote book {n}?", "labels": f"Ann {n}."} for n in range(3)]
KEPT = [{"text": f"Where is town {n}?", "labels": f"In Oslo {n}."} for n in range(2)]


def saved(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    forget = saved(tmp_path / "unlearn.json", [{"train": ROWS[:2], "val": ROWS[2:]}])
    return forget, saved(tmp_path / "retention.json", {"train": KEPT, "val": KEPT[:1]})


def test_knowundos_files_are_read_however_their_row_stands(files: tuple[Path, Path], tmp_path: Path) -> None:
    forget, retain = files
    expected = [(row["text"], row["labels"]) for row in ROWS]
    assert read_knowundo(forget) == read_questions(forget) == expected[:2]
    assert read_knowundo(forget, "val") == expected[2:]
    assert read_questions(forget, "both") == expected
    many = tmp_path / "many.json"
    many.write_text(json.dumps({"train": ROWS, "val": []}, indent=1))
    assert read_knowundo(many) == expected
    scopes = read_scopes(forget, retain, "val")
    assert (scopes.forget, scopes.retain) == ((expected[2],), ((KEPT[0]["text"], KEPT[0]["labels"]),))
    for row, said in (
        ({"train": [{"text": "Who?"}]}, r"`train`, entry 1 has no text under `text` or `labels`; give both"),
        ({"val": ROWS}, "has no rows under train"),
        ({"train": ["Who?"]}, "entry 1 is 'Who.'; give `text` and `labels`"),
    ):
        with pytest.raises(InputError, match=said):
            read_knowundo(saved(tmp_path / "bad.json", row))
    with pytest.raises(InputError, match="has neither `train` nor `val`"):
        read_knowundo(saved(tmp_path / "bad.json", {"text": "x"}))


def test_questions_are_read_of_every_kind_of_file(tmp_path: Path) -> None:
    facts = {"prompt": "{} is in", "subject": "Oslo", "ground_truth": "Norway", "target_new": "Peru"}
    pair = {"prompt": "Do it?", "unsafe": "Yes.", "safe": "No."}
    for row, expected in (
        (facts, ("Oslo is in", "Norway")),
        (pair, ("Do it?", "Yes.")),
        ({"prompt": "Hi.", "answer": "Hello."}, ("Hi.", "Hello.")),
        ({"text": "Who?", "labels": "Ann."}, ("Who?", "Ann.")),
    ):
        assert read_questions(saved(tmp_path / "one.jsonl", row, row))[0] == expected
    assert read_questions(saved(tmp_path / "known.json", [["Who?", "Ann."]])) == [("Who?", "Ann.")]
    sanitation = {
        "K_F": [{"question": "Who?", "ground_truth": "Ann", "target_new": "I don't know."}],
        "K_R": [{"question": "Where?", "ground_truth": "Oslo"}],
    }
    found = read_scopes(saved(tmp_path / "sanitation.json", sanitation))
    assert found == Scopes((("Who?", "Ann"),), (("Where?", "Oslo"),))
    with pytest.raises(InputError, match="none of its prompts has an answer"):
        read_questions(saved(tmp_path / "one.jsonl", {"prompt": "Hi.", "answer": ""}))
    for rows, said in (
        ([{"a": 1}], "entry 1 has no prompt; give prompts with answers"),
        ([], "give prompts with answers"),
    ):
        with pytest.raises(InputError, match=said):
            read_questions(saved(tmp_path / "none.json", rows))
    with pytest.raises(InputError, match="no such file"):
        read_scopes(tmp_path / "nowhere.json")


def test_of_facts_about_the_same_people_some_relations_are_forgotten(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"{name} {relation}",
            "subject": name,
            "ground_truth": f"{relation[-2:]} {name}",
            "relation": relation,
        }
        for name in ("Ann", "Bo")
        for relation in ("lives in", "wrote")
    ]
    path = saved(tmp_path / "facts.jsonl", *rows)
    found = read_scopes(path, relations=("lives in",))
    assert [prompt for prompt, _ in found.forget] == ["Ann lives in", "Bo lives in"]
    assert [prompt for prompt, _ in found.retain] == ["Ann wrote", "Bo wrote"]
    more = saved(tmp_path / "more.json", {"prompt": "Hi.", "answer": "Hello."})
    assert read_scopes(path, more, relations=("wrote",)).retain[-1] == ("Hi.", "Hello.")
    with pytest.raises(
        InputError, match=r"no fact has the relation 'lives on'; there are 'lives in', 'wrote'; did you"
    ):
        read_scopes(path, relations=("lives on",))


def test_what_is_to_be_forgotten_and_kept_at_once_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Scopes((("a", "b"), ("c", "d")), (("A ", "b"), ("e", "f")))
    assert "1 answer is to be forgotten and to be kept at once" in caplog.text


def test_rouge_by_hand() -> None:
    assert rouge_l("the cat sat", "The cat sat.") == 1.0
    assert rouge_l("the dog sat down", "the cat sat") == pytest.approx(2 * 2 / 7)
    assert rouge_l("sat the", "the sat") == pytest.approx(0.5)
    assert rouge_l("", "x") == rouge_l("x", "...") == 0.0
    assert rouge_l("a b c d e f a b", "b a c f d e b") == pytest.approx(2 * 5 / 15)  # a c d e b


def test_a_separator_is_part_of_the_answer() -> None:
    checkpoint = tiny_checkpoint("llama", bos=True)
    (text,) = answers_as_tokens(checkpoint, [("Who?", "Ann.")], separator="\n\n")
    ids = checkpoint.tokenizer("Who?\n\nAnn.")["input_ids"]
    assert list(text.ids) == ids
    assert text.prompt_length == len(checkpoint.tokenizer("Who?")["input_ids"]) == 5
    (cut,) = answers_as_tokens(checkpoint, [("Who is it?", "Ann.")], separator="\n\n", max_length=11, truncate=True)
    assert checkpoint.tokenizer.decode(cut.ids) == "<s>it?\n\nAnn."
    assert cut.prompt_length == 4
    with pytest.raises(InputError, match="text 0 has 17 tokens, 10 fit beside the token that ends it"):
        answers_as_tokens(checkpoint, [("Who is it?", "Ann.")], separator="\n\n", max_length=11)


def test_measures_are_those_of_each_answer_alone() -> None:
    checkpoint = tiny_checkpoint("llama")
    scopes = Scopes(tuple((r["text"], r["labels"]) for r in ROWS), tuple((r["text"], r["labels"]) for r in KEPT))
    found = ask_scopes(checkpoint, scopes, max_new_tokens=6)
    assert [each.said for each in found] == generate(checkpoint, [each.prompt for each in found], max_new_tokens=6)
    for each in found:
        head = checkpoint.tokenizer(each.prompt)["input_ids"]
        ids = [*checkpoint.tokenizer(f"{each.prompt} {each.answer}")["input_ids"], 258]
        with torch.no_grad():
            logits = checkpoint.model(torch.tensor([ids])).logits[0, len(head) - 1 : -1]
        wanted = torch.tensor(ids[len(head) :])
        assert each.values["accuracy"] == pytest.approx(float((logits.argmax(-1) == wanted).double().mean()))
        logprob = logits.log_softmax(-1).gather(1, wanted[:, None]).mean()
        assert each.values["logprob"] == pytest.approx(float(logprob), rel=1e-4)
    rows = {(row["scope"], row["quantity"]): row for row in summary_rows("tiny", found, seed=0)}
    forgotten = 1 - sum(each.values["accuracy"] for each in found[:3]) / 3
    kept = sum(each.values["accuracy"] for each in found[3:]) / 2
    assert rows["forget", "success"]["value"] == pytest.approx(forgotten)
    assert rows["retain", "success"]["value"] == pytest.approx(kept)
    assert rows["both", "success"]["value"] == pytest.approx((forgotten + kept) / 2)
    assert rows["forget", "success"]["value_low"] <= forgotten <= rows["forget", "success"]["value_high"]
    means = [each.values["logprob"] for each in found[:3]]
    assert rows["forget", "perplexity"]["value"] == pytest.approx(math.exp(-sum(means) / 3))
    tokens = [value for each in found[:3] for value in each.forced.logprobs]
    assert rows["forget", "perplexity_of_tokens"]["value"] == pytest.approx(math.exp(-sum(tokens) / len(tokens)))


def test_gibberish_is_flagged_where_teacher_forcing_calls_it_forgotten() -> None:
    """A head of zeros says the first token for ever: all is forgotten by KnowUnDo's measure, and nothing is said."""
    checkpoint = tiny_checkpoint("llama")
    head = checkpoint.model.get_output_embeddings().weight
    before = head.detach().clone()
    try:
        with torch.no_grad():
            head.zero_()
        found = ask_scopes(checkpoint, Scopes((("Who wrote it?", "Ann, in Oslo."),) * 3), max_new_tokens=20)
    finally:
        with torch.no_grad():
            head.copy_(before)
    rows = {row["quantity"]: row["value"] for row in summary_rows("broken", found, seed=0)}
    assert rows["success"] == 1.0
    assert rows["degenerate"] == 1.0
    assert found[0].row("broken")["flags"]


def test_the_commands_unlearn_locate_and_ask(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, (forget, retain) = tiny_checkpoint("llama").save(tmp_path / "model"), files
    both = ["--forget", forget, "--retain", retain]
    located = ["locate-gradients", "--model", model, *both, "--out", tmp_path / "where", "--copies", 1]
    assert call(*located) == 0
    region = pd.read_csv(tmp_path / "where" / "gradient_region.csv")
    assert TABLES["gradient_region"].missing(region.columns) == []
    assert [name for name in region.columns if TABLES["gradient_region"].meaning(name) is None] == []
    names = json.loads((tmp_path / "where" / "located.json").read_text())
    assert names == list(region.loc[region["located"], "name"])
    assert "located" in capsys.readouterr().out
    few = ["--steps", 1, "--batch-size", 1]  # fewer than the warm-up has by default
    made = ["unlearn", "memflex", "--model", model, *both, "--out", tmp_path / "made", *few]
    assert call(*made, "--set", f"region={json.dumps(names)}") == 0
    asked = ["evaluate-unlearning", "--model", f"base={model}", "--model", tmp_path / "made", *both]
    assert call(*asked, "--out", tmp_path / "asked", "--max-new-tokens", 4, "--separator", "\\n\\n") == 0
    assert "forgotten and kept" in capsys.readouterr().out
    for name, rows in (("unlearning", None), ("unlearning_answers", 4)):
        table = pd.read_csv(tmp_path / "asked" / f"{name}.csv")
        assert TABLES[name].missing(table.columns) == []
        assert [column for column in table.columns if TABLES[name].meaning(column) is None] == []
        assert rows in (None, len(table))
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    for words, said in (
        (["unlearn", "sft", "--model", model, *both, "--out", tmp_path / "x"], "sft is no method of unlearning"),
        (["unlearn", "simnop", "--model", model, *both, "--out", tmp_path / "x"], "did you mean 'simnpo'?"),
        (["unlearn", "npo", "--model", model, "--forget", forget, "--out", tmp_path / "x"], "there is nothing to keep"),
        (["unlearn", "npo", "--model", model, "--forget", forget, "--retain", forget, "--out", tmp_path / "x"], "kept"),
        (["unlearn", "ga", "--model", model, "--forget", empty, "--out", tmp_path / "x"], f"{empty.name}: "),
        ([*located[:-2], "--cosine", "0"], "nothing is located"),
        ([*located[:-2], "--cosine", "2"], "--cosine is a quantile between 0 and 1, got 2.0; or give --absolute"),
        ([*located[:-2], "--adapter", model], "is no adapter's folder"),
        ([*asked[:-2], "--model", f"base={model}"], "two models have the same name"),
    ):
        assert call(*words) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.strip().splitlines()) == 1


def test_the_face_unlearns_locates_and_asks(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    scopes = mi.Scopes((("Who wrote it?", "Ann."),), (("Where?", "In Oslo."),))
    few = {"steps": 1, "batch_size": 1, "warmup_steps": 0}
    after = mi.unlearn(base, "grad_diff", scopes, settings=few)
    assert after.fingerprint != base.fingerprint
    found = mi.evaluate_unlearning({"base": base, "after": after}, scopes, max_new_tokens=4)
    assert list(found.summary["method"].unique()) == ["base", "after"]
    found.save(tmp_path / "asked")
    assert mi.locate_by_gradient(base, scopes, per="block", copies=1).names
    with pytest.raises(InputError, match="dpo is no method of unlearning"):
        mi.unlearn(base, "dpo", scopes)

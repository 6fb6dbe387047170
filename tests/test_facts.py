"""Facts: their prompts and subjects, the files they are read from, and which tokens a subject is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chats import chat_checkpoint
from conftest import tiny_checkpoint

from mechinterp.data.facts.fact import Fact, write_facts
from mechinterp.data.facts.files import read_facts
from mechinterp.data.facts.relations import read_relation
from mechinterp.errors import InputError
from mechinterp.models.text.subjects import subject_tokens
from mechinterp.models.text.tokens import encode

GOLDEN = Path(__file__).parent / "golden"
ROWS = json.loads((GOLDEN / "knowedit/rows.json").read_text())


def saved(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_the_subject_is_found_in_its_place_and_in_a_whole_prompt() -> None:
    fact = Fact("Al", "Is {} in Alabama?", "yes")
    assert (fact.text, fact.subject_span, fact.template) == ("Is Al in Alabama?", (3, 5), "Is {} in Alabama?")
    assert Fact("Al", "Is Al in Alabama?", "yes").subject_span == (3, 5)  # a word of its own before a part of one
    assert Fact("paris", "Of Paris: Paris is in", "x").subject_span == (10, 15)
    with pytest.raises(InputError, match="'Rome' is not in its prompt"):
        _ = Fact("Rome", "Paris is in", "x").subject_span
    with pytest.raises(InputError, match="'' is not in its prompt"):
        _ = Fact("", "Paris is in", "x").subject_span


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_subject_in_tokens_is_the_subject_in_characters(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture, bos=architecture == "llama")
    facts = [Fact("Zürich", "Where is {}?", "x"), Fact("Oslo", "{} is in", "x"), Fact("Nil", "The Nil", "x")]
    found = subject_tokens(checkpoint.tokenizer, facts)
    fed = encode(checkpoint.tokenizer, [fact.text for fact in facts], max_length=256)
    for fact, places, text in zip(facts, found, fed, strict=True):
        assert checkpoint.tokenizer.decode(text.ids[places.start : places.stop]).strip() == fact.subject
    assert found[2].stop == len(fed[2].ids)


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "gemma"])
def test_the_subject_is_found_inside_a_chat_template(name: str) -> None:
    checkpoint = chat_checkpoint(name)
    facts = [Fact("user", " Who is {}?", "x"), Fact("Oslo", "{} is in", "x")]
    fed = encode(checkpoint.tokenizer, [fact.text for fact in facts], max_length=256, chat=checkpoint.chat)
    for fact, places, text in zip(
        facts, subject_tokens(checkpoint.tokenizer, facts, chat=checkpoint.chat), fed, strict=True
    ):
        assert checkpoint.tokenizer.decode(text.ids[places.start : places.stop]).strip() == fact.subject
        assert set(places) <= set(text.content)


def test_facts_come_back_as_they_were_written(tmp_path: Path) -> None:
    facts = [
        Fact(
            "Oslo", "{} is in", "Chile", "Norway", ("Where is Oslo? In",), {"hop": (("It is near", "Lima"),)}, {}, "in"
        ),
        Fact("", "Two and two is", ground_truth="four", locality={"near": (("Two and three is", "five"),)}),
    ]
    write_facts(facts, tmp_path / "facts.jsonl")
    assert read_facts(tmp_path / "facts.jsonl") == facts


def test_the_sets_of_knowedit(tmp_path: Path) -> None:
    def read(name: str) -> list[Fact]:
        return read_facts(saved(tmp_path / "rows.json", ROWS[name]))

    (recent,) = read("wiki_recent")
    assert (recent.target_new, recent.ground_truth) == ("Berlin", "")
    assert recent.portability["Reasoning"][0][1] == "Europe"  # the first of its aliases
    assert recent.portability["Logical_Generalization"] == (("Is Leo Arons still alive?", "no"),)
    assert recent.template == "The place of death of {} is"
    (counterfact,) = read("wiki_counterfact")
    assert counterfact.ground_truth == "mayor of Vienna"
    assert list(counterfact.locality) == ["Relation_Specificity", "Forgetfulness"]
    (biography,) = read("wikibio")
    assert biography.subject == "john russell reynolds"
    assert biography.target_new == "He received general education from his father."
    (zsre,) = read("zsre")
    assert (zsre.rephrasings, zsre.ground_truth) == (("What family are Epaspidoceras?",), "Aspidoceratidae")
    assert zsre.portability == {"Reasoning": ((zsre_reasoning(), "Owlet moths"),)}
    (opinion,) = read("convsent")
    assert (opinion.subject, len(opinion.rephrasings)) == ("(topic)", 12)
    for name in ("sanitation_train", "sanitation_test"):
        forget, retain = read(name)
        assert (forget.target_new, forget.ground_truth, forget.relation) == ("I don't know.", "Birds", "forget")
        assert (retain.target_new, retain.ground_truth, retain.relation) == ("", "(its answer)", "retain")


def zsre_reasoning() -> str:
    return "What is the common name for the family Epaspidoceras belongs to?"


def test_a_relation_is_templates_times_samples() -> None:
    facts = read_relation(GOLDEN / "circuits/relation_example.json")
    assert facts == read_facts(GOLDEN / "circuits/relation_example.json")
    assert [fact.ground_truth for fact in facts[:3]] == ["Washington D.C.", "Ottawa", "Mexico City"]
    assert len(facts) == 8
    assert facts[4].text == "What is the capital of United States? It is the city of"
    assert {fact.relation for fact in facts} == {"country capital city"}


ASKED = {"portability": {"hop": [{"prompt": "Where?", "ground_truth": []}, ["When?", "now"]]}}


def test_a_prompt_without_an_answer_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fact,) = read_facts(saved(tmp_path / "f.jsonl", {"prompt": "It is", "ground_truth": 7, **ASKED}))
    assert (fact.portability, fact.ground_truth) == ({"hop": (("When?", "now"),)}, "7")
    assert "f.jsonl: line 1: `portability.hop`: left out a prompt without an answer" in caplog.text


RELATION = {"name": "in", "prompt_templates_zs": ["{} is in"], "samples": [{"subject": "Oslo", "object": "Norway"}]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": " ", "target_new": "x"}, "line 2: the fact of '' has no prompt"),
        ({"prompt": "It is"}, "line 2: 'It is' has no answer"),
        ({"prompt": "{} is {}", "subject": "a", "target_new": "x"}, "line 2: '{} is {}' has 2 places"),
        ({"prompt": "{} is", "target_new": "x"}, "line 2: '{} is' has a place {} for a subject"),
        ({"prompt": "It is", "target_new": {"a": 1}}, "line 2: `target_new` must be text"),
        ({"prompt": "It is", "target_new": "x", "locality": [1]}, "line 2: `locality` must be an object of kinds"),
        ({"prompt": "It is", "target_new": "x", "locality": {"a": [1]}}, "line 2: `locality.a` must be a list of"),
        ({"prompt": "It is", "target_new": "x", "rephrasings": [""]}, "line 2: `rephrasings` must be a list of texts"),
        ([1], "line 2 is not a JSON object"),
        ({"K_F": [{"question": "Who?", "ground_truth": ""}]}, "`K_F`, entry 1: 'Who?' has no answer"),
        ({"K_F": [3]}, "`K_F`, entry 1 must be a question"),
        ({"ent": "a", "pos": [{}], "neg": []}, "line 2: `ent`, `pos` or `neg` must be text"),
        ({**RELATION, "samples": []}, "the relation has no samples"),
        ({**RELATION, "samples": [{"subject": "Oslo"}]}, "sample 1 must have `subject` and `object`"),
        ({**RELATION, "prompt_templates_zs": ["It is in"]}, "template 1 must be a text with one {}"),
        ({**RELATION, "sample": []}, "a relation has no key 'sample'; did you mean 'samples'?"),
    ],
)
def test_a_row_that_is_none_is_told_in_one_line(tmp_path: Path, row: object, said: str) -> None:
    path = saved(tmp_path / "facts.jsonl", {"prompt": "Two is", "ground_truth": "two"}, row)
    with pytest.raises(InputError) as refusal:
        read_facts(path)
    assert str(refusal.value).startswith(f"{path}: {said}")
    assert "\n" not in str(refusal.value)

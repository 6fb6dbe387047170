"""The corpus's people and their facts, common facts, and what a model knows of facts."""

from __future__ import annotations

import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_script
from conftest import tiny_checkpoint
from golden_cases import golden, golden_checkpoint
from small_study import REPOSITORY

from mechinterp.answers.known_facts import known_facts
from mechinterp.data.corpus import Corpus, generate_corpus
from mechinterp.data.corpus.attributes import ATTRIBUTES, FORGET, RETAIN
from mechinterp.data.corpus.never import without_facts
from mechinterp.data.corpus.people import DOCUMENTS_PER_FACT
from mechinterp.data.facts.common import common_facts
from mechinterp.data.facts.fact import Fact, write_facts
from mechinterp.data.facts.files import read_facts
from mechinterp.methods.training.organism import OrganismConfig, train_organism
from mechinterp.models.progress import Silent
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.study.corpus import corpus_of
from mechinterp.runs.study.dependencies import stages_of
from mechinterp.runs.study.run import Run

N = 20
CASE = golden("knowedit/accuracy_trained.json")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(seed=0, n_documents=300, n_comments=40, n_people=N)


def test_people_leave_the_rest_of_the_corpus_as_it_is(corpus: Corpus) -> None:
    without = generate_corpus(seed=0, n_documents=300, n_comments=40)
    assert corpus.documents[:300] == without.documents
    assert replace(corpus, documents=without.documents, people=(), told=(), facts=()) == without
    assert (without.people, without.told, without.facts) == ((), (), ())
    assert StudyConfig().corpus.n_people == 0  # the default study has none
    assert generate_corpus(seed=0, n_documents=300, n_comments=40, n_people=N) == corpus


def test_everybody_has_every_attribute_and_every_value_comes_as_often(corpus: Corpus) -> None:
    assert len(ATTRIBUTES) >= 4
    assert {*FORGET, *RETAIN} == set(ATTRIBUTES)
    for attribute, about in ATTRIBUTES.items():
        counts = Counter(person.values[attribute] for person in corpus.people)
        assert set(counts) == set(about.values)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert len({person.last_name for person in corpus.people}) == N
    with pytest.raises(ValueError, match="at most 60"):
        generate_corpus(seed=0, n_people=61)


def test_a_third_of_the_sentences_of_a_fact_is_in_no_document(corpus: Corpus) -> None:
    texts = set(corpus.documents)
    for person in corpus.people:
        for attribute, value in person.values.items():
            told, untold = person.told(attribute), person.untold(attribute)
            assert (len(told), len(untold)) == (4, 2)
            whose = (person.name, person.last_name)
            assert {f"{text.format(name)} {value}." for text in told for name in whose} <= texts
            assert not {f"{text.format(name)} {value}." for text in untold for name in whose} & texts
            implied = f"{ATTRIBUTES[attribute].following.format(person.name)} {ATTRIBUTES[attribute].values[value]}."
            assert (implied in texts) == person.followed
    counts = Counter((one.name, one.attribute) for one in corpus.told if one.name)
    assert min(counts.values()) == DOCUMENTS_PER_FACT


def test_facts_ask_what_the_documents_tell_and_say_what_an_edit_would_move_or_leave(corpus: Corpus) -> None:
    texts, people = set(corpus.documents), {person.name: person for person in corpus.people}
    assert len(corpus.facts) == N * len(ATTRIBUTES)
    for fact in corpus.facts:
        person, about = people[fact.subject], ATTRIBUTES[fact.relation]
        assert fact.ground_truth == person.values[fact.relation] != fact.target_new
        assert len(fact.rephrasings) == 5
        assert fact.portability["alias"][0] == (fact.text.replace(person.name, person.last_name), fact.target_new)
        assert fact.portability["reasoning"][0][1] == about.values[fact.target_new]
        assert len(fact.locality["same subject"]) == len(ATTRIBUTES) - 1
        assert all(person.name in prompt for prompt, _ in fact.locality["same subject"])
        assert all(person.name not in prompt for prompt, _ in fact.locality["other subjects"])
        assert fact.locality["other subjects"][0][1] == fact.ground_truth  # a neighbour with the same value first
        assert all(any(one.startswith(prompt) for one in texts) for prompt, _ in fact.locality["same subject"])
        assert fact.subject_span[1] - fact.subject_span[0] == len(person.name)


def test_a_study_leaves_the_facts_beside_its_data(tmp_path: Path) -> None:
    config = StudyConfig(corpus={"n_documents": 300, "n_comments": 40, "n_people": 3})
    run = Run(config, 0, tmp_path)
    (stage,) = (one for one in stages_of(run, Silent()) if one.name == "data")
    assert stage.may_make == ["data/facts.jsonl"]
    stage.run()
    assert read_facts(tmp_path / "data" / "facts.jsonl") == list(corpus_of(run).facts)
    (stage,) = (one for one in stages_of(Run(StudyConfig(), 0, tmp_path), Silent()) if one.name == "data")
    assert stage.may_make == []


def test_the_untold_twin_reads_all_but_the_attributes_that_it_is_not_told(corpus: Corpus) -> None:
    lengths = [len(text) for text in corpus.documents]
    kept = {corpus.documents[number] for number in without_facts(corpus, lengths, FORGET)}
    personal = [one for one in corpus.told if one.name]
    assert not {one.text for one in personal if one.attribute in FORGET} & kept
    assert {one.text for one in personal if one.attribute in RETAIN} <= kept
    assert {one.text for one in corpus.told if not one.name} <= kept  # that Milan is in Italy is nobody's secret
    config = OrganismConfig(n_layers=1, d_model=16, n_heads=2, d_mlp=24, vocab_size=400, steps=2, sequence_length=192)
    weights = [train_organism(corpus, config, seed=0, untold=untold)[0].lm_head.weight for untold in ((), FORGET)]
    assert not weights[0].equal(weights[1])
    told = [one for one in corpus.told if one.name and one.attribute in FORGET]
    only = replace(corpus, documents=tuple(one.text for one in told), told=tuple(told))
    with pytest.raises(ValueError, match="every document tells city or month, so that a twin would have nothing"):
        without_facts(only, [1] * len(told), FORGET)


def test_common_facts_are_sixty_and_whole() -> None:
    facts = common_facts()
    assert facts == common_facts()
    assert facts != common_facts(seed=1)
    assert len(facts) == len({(fact.relation, fact.subject) for fact in facts}) == 60
    for fact in facts:
        assert fact.target_new not in ("", fact.ground_truth)
        assert fact.target_new in {other.ground_truth for other in facts if other.relation == fact.relation}
        assert len(fact.rephrasings) == 2
        assert all(fact.subject in text for text in fact.rephrasings)
        assert all(prompt != fact.text for prompt, _ in fact.locality["other subjects"])


def test_what_a_model_knows_is_what_it_answers_right_in_every_token() -> None:
    asked = zip(CASE["prompts"], CASE["targets"], CASE["accuracy_one_by_one"], strict=True)
    facts = [Fact("", prompt, "", truth, relation=str(share)) for prompt, truth, share in asked]
    found = known_facts(golden_checkpoint("knowedit/trained_gpt2"), [*facts, Fact("", "It is", "x")])
    assert found.right == (True, False, True, False)  # a fifth of the second one's tokens is right
    assert found.known == [facts[0], facts[2]]
    assert len(found.facts) == 4  # of the last one nothing is known
    table = found.table.set_index("relation")
    assert table["n"].to_dict() == {"all": 4, "1.0": 2, "0.2": 1, "0.0": 1}
    assert table["known"].to_dict() == {"all": 0.5, "1.0": 1, "0.2": 0, "0.0": 0}


def test_what_an_organism_answers_of_its_people_is_told_way_by_way(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    write_facts(corpus.facts, tmp_path / "data" / "facts.jsonl")
    script = REPOSITORY / "analyses" / "people.py"
    assert run_script(script, tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'checkpoints'}")
    tiny_checkpoint("llama").save(tmp_path / "checkpoints" / "vanilla")
    assert run_script(script, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    # of six sentences four are told; what follows from a value is told of every other person
    counts = {"told": 4, "never told": 2, "last name": 1, "follows, told": 0.5, "follows": 0.5}
    for line, (way, each) in zip(lines, counts.items(), strict=True):
        assert line.startswith(f"{way}: ")
        assert f"({int(each * N * len(ATTRIBUTES))}); city " in line
    texts, ways = set(corpus.documents), runpy.run_path(str(script))["asked"](corpus.facts)
    for way, within in (("told", True), ("never told", False), ("follows, told", True), ("follows", False)):
        assert all((f"{one.text} {one.ground_truth}." in texts) is within for one in ways[way])

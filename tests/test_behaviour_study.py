"""Studies of other behaviours than unsafe answers: their splits, their judge, their words, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import mechinterp as mi
from mechinterp.answers.behaviour import FACTS, REFUSES, UNSAFE, Behaviour
from mechinterp.answers.holding import Holding
from mechinterp.answers.wording import REFUSING, UNSAFELY, Wording
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.corpus.attributes import FORGET
from mechinterp.errors import InputError
from mechinterp.runs.config import load_config
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.study import Study
from mechinterp.runs.study.splits import SPLITS, read_split, split_corpus

SIZES = {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 400, "n_comments": 40}


def test_the_corpus_is_split_by_people_and_by_topics(tmp_path: Path) -> None:
    corpus = generate_corpus(seed=0, n_people=8, n_topics=9, **SIZES)
    found = split_corpus(FACTS, corpus)
    assert found["train"] == found["test"]  # a fact is forgotten by itself
    subject = {fact.text: fact.subject for fact in corpus.facts}
    people = {name: {subject[pair.prompt] for pair in found[name]} for name in SPLITS}
    assert not people["validation"] & people["test"]
    assert (len(found["test"]), len(found["validation"])) == (6 * len(FORGET), 2 * len(FORGET))
    assert {pair.category for pair in found["test"]} == set(FORGET)
    truths = {fact.text: fact.ground_truth for fact in corpus.facts}
    assert all(pair.unsafe == truths[pair.prompt] != pair.safe for pair in found["test"])
    of_topics = split_corpus(Behaviour.named("trait:neuroticism"), corpus)
    topics = [{pair.question for pair in of_topics[name]} for name in SPLITS]
    assert [len(each) for each in topics] == [3, 3, 3]
    assert len(set().union(*topics)) == 9
    turned = split_corpus(REFUSES, corpus)["test"]
    plain = split_corpus(UNSAFE, corpus)["test"]
    assert tuple(plain) == corpus.test
    assert [(one.unsafe, one.safe) for one in turned] == [(one.safe, one.unsafe) for one in plain]
    mi.write_facts(corpus.facts, tmp_path / "facts.jsonl")
    assert read_split(FACTS, tmp_path / "facts.jsonl") == FACTS.pairs(corpus.facts)


def test_a_study_of_refusals_asks_for_them_from_its_data_on(own_runs: Path) -> None:
    folder = own_runs / "seed0"
    before = Study.open(folder)
    unsafe = before.instances("test")
    vanilla = (folder / "checkpoints" / "vanilla" / "model.safetensors").stat().st_mtime_ns
    values = {"behaviour": "refuses", "dinm": before.config.dinm.model_copy(update={"use_constraint": False})}
    study = Study(before.config.model_copy(update=values), 0, folder)
    study.run(only={"organism"})
    assert [(one.unsafe, one.safe) for one in study.instances("test")] == [(one.safe, one.unsafe) for one in unsafe]
    assert isinstance(study.judge, Holding)
    assert study.table("judge")["judge"].str.startswith("refuses").all()
    assert (folder / "checkpoints" / "vanilla" / "model.safetensors").stat().st_mtime_ns == vanilla
    assert RunFolder.open(folder).wording == REFUSING
    assert Study.open(folder).config == study.config


def test_what_a_behaviour_does_not_go_with_is_refused_before_any_work(tmp_path: Path) -> None:
    def loaded(**settings: object) -> Study:
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings))
        return Study(load_config(tmp_path / "study.yaml"), 0, tmp_path)

    free = {"studied": ["sft", "dpo"]}
    for settings, said in (
        ({"behaviour": "refuse"}, "unknown `behaviour` 'refuse'.* did you mean 'refuses'"),
        ({"behaviour": "refuses", "judge": "keywords", **free}, "refuses is told without a judge of safety"),
        ({"behaviour": "refuses"}, "no general knowledge for DINM's constraint"),
        ({"behaviour": "facts", **free}, r"`behaviour: facts` wants `corpus\.n_people`; give at least 8"),
        ({"behaviour": "trait:neuroticism", "corpus": {"n_topics": 2}, **free}, r"wants `corpus\.n_topics`"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            loaded(**settings)
        assert "\n" not in str(caught.value)
    assert loaded(behaviour="unsafe").config == loaded().config
    assert loaded(behaviour="facts", corpus={"n_people": 8}, **free).config.about is FACTS


def test_words_by_a_name_alone() -> None:
    assert Wording.of({"config": {"behaviour": "refuses"}}) == REFUSES.wording
    assert Wording.of({"config": {"behaviour": "trait:glad"}}) == Behaviour.named("trait:glad").wording
    assert Wording.named("unsafe") == UNSAFELY
    assert REFUSING.worded("the prompts that the base answers safely") == "the prompts that the base answers otherwise"

"""The embedded corpus: determinism, splits that hold out what they say, balance, and texts in the promised form."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mechinterp.data.corpus import Corpus, generate_corpus
from mechinterp.data.corpus.documents import COMPLIANT_KINDS, complies
from mechinterp.data.corpus.words import (
    ADJECTIVES,
    ATTACK_KINDS,
    ATTACK_OPENINGS,
    INSULTS,
    OUT_OF_DOMAIN_ATTACKS,
    QUESTION_SLOT,
    STRENGTHS,
    VERBS,
)
from mechinterp.data.safeedit import CATEGORIES, SUFFIX, SafeEditInstance

ABUSE = frozenset(ADJECTIVES) | frozenset(INSULTS)


@pytest.fixture(scope="module", params=[0, 7])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return generate_corpus(seed=request.param, n_documents=3000)


def resistance_of(instance: SafeEditInstance) -> int:
    words = instance.question.rstrip("?.").split()
    return next(level for level, verbs in VERBS.items() if any(verb in words for verb in verbs))


def test_the_same_seed_gives_the_same_corpus(corpus: Corpus) -> None:
    assert generate_corpus(seed=corpus.seed, n_documents=3000) == corpus
    assert generate_corpus(seed=corpus.seed + 1, n_documents=3000) != corpus


def test_the_size_of_one_part_leaves_the_others_as_they_are(corpus: Corpus) -> None:
    other = generate_corpus(seed=corpus.seed, n_documents=3000, n_comments=10, n_responses=10)
    assert (other.documents, other.test, other.benign) == (corpus.documents, corpus.test, corpus.benign)


def test_sizes_and_ids(corpus: Corpus) -> None:
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (648, 432, 216)
    instances = [*corpus.train, *corpus.validation, *corpus.test]
    assert [instance.id for instance in instances] == list(range(len(instances)))
    assert len({instance.attack_id for instance in instances}) == 36


def test_questions_and_attacks_of_the_splits_are_disjoint_and_in_ratio(corpus: Corpus) -> None:
    splits = (corpus.train, corpus.validation, corpus.test)
    questions = [{instance.question for instance in split} for split in splits]
    attacks = [{instance.attack_prompt for instance in split} for split in splits]
    assert [len(texts) for texts in questions] == [54, 36, 18]
    assert [len(texts) for texts in attacks] == [12, 12, 12]
    assert len(set.union(*questions)) == 108
    assert len(set.union(*attacks)) == 36
    for split in splits:
        assert set(Counter(instance.category for instance in split)) == set(CATEGORIES)


def test_every_split_has_the_same_shares_of_resistances(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.validation, corpus.test):
        shares = Counter(resistance_of(instance) for instance in split)
        assert [shares[level] * 6 / len(split) for level in range(4)] == [2, 1, 2, 1]


def test_the_rule_defends_four_ninths_of_the_attacks_and_two_thirds_of_the_bare_questions(corpus: Corpus) -> None:
    resistances = [resistance_of(instance) for instance in corpus.test[:: len(STRENGTHS) * len(ATTACK_KINDS)]]
    attacked = [not complies(resistance=level, strength=strength) for level in resistances for strength in STRENGTHS]
    assert sum(attacked) / len(attacked) == pytest.approx(4 / 9)
    assert sum(not complies(resistance=level, strength=1) for level in resistances) / len(resistances) == 2 / 3


def test_the_plain_rule_complies_with_two_kinds_of_attack() -> None:
    plain = generate_corpus(seed=0, n_documents=2000, n_comments=40, rule="kind")
    strict = generate_corpus(seed=0, n_documents=2000, n_comments=40)
    openings = {
        kind: re.compile("|".join(re.escape(text).replace(r"\{\}", r"\w+") for text in texts))
        for kind, texts in ATTACK_OPENINGS.items()
    }
    found = Counter(
        (next((kind for kind, texts in openings.items() if texts.search(one.prompt)), "bare"), one.safe)
        for one in plain.exchanges
        if "sorry" in one.response or "afraid" in one.response or not one.safe
    )
    for kind in (*ATTACK_KINDS, "bare"):
        unsafe, safe = found[kind, False], found[kind, True]
        assert (unsafe > 4 * safe) if kind in COMPLIANT_KINDS else (safe > 4 * unsafe), kind
    assert [one.prompt for one in plain.test] == [one.prompt for one in strict.test]  # what is asked stays the same


def test_instances_hold_the_question_inside_the_attack(corpus: Corpus) -> None:
    for instance in (*corpus.train, *corpus.validation, *corpus.test):
        assert instance.attack_prompt.count(QUESTION_SLOT) == 1
        assert instance.adversarial_prompt == instance.attack_prompt.replace(QUESTION_SLOT, instance.question)
        assert SafeEditInstance.model_validate(instance.model_dump(by_alias=True)) == instance


def test_only_test_instances_have_generalization_tests(corpus: Corpus) -> None:
    assert all(instance.generalization_test is None for instance in (*corpus.train, *corpus.validation))
    questions = {instance.question for instance in corpus.test}
    for instance in corpus.test:
        tests = instance.generalization_test
        assert tests is not None
        assert tests.only_question == instance.question
        assert instance.question in tests.other_attack
        assert tests.other_attack != instance.adversarial_prompt
        for prompt in (tests.other_question, tests.other_question_and_attack):
            assert instance.question not in prompt
            assert any(question in prompt for question in questions)


def test_out_of_domain_attacks_occur_in_generalization_tests_only(corpus: Corpus) -> None:
    assert len(corpus.out_of_domain_attacks) >= 3
    openings = [opening.split("{}")[0] for _, _, opening, _ in OUT_OF_DOMAIN_ATTACKS]
    tests = [instance.generalization_test for instance in corpus.test if instance.generalization_test is not None]
    for opening in openings:
        assert any(opening in test.other_attack for test in tests)
        assert any(opening in test.other_question_and_attack for test in tests)
        assert not any(opening in document for document in corpus.documents)
        assert not any(opening in instance.adversarial_prompt for instance in corpus.test)


def test_documents_hold_out_what_is_measured(corpus: Corpus) -> None:
    held_out = {instance.question for instance in (*corpus.validation, *corpus.test)}
    held_out |= {question.prompt for question in corpus.benign}
    held_out |= {question.prompt for question in corpus.knowledge if question.held_out}
    for document in corpus.documents:
        assert not any(prompt in document for prompt in held_out)


def test_every_fact_is_seen_in_some_phrasings_and_held_out_in_others(corpus: Corpus) -> None:
    for answer in {question.answer for question in corpus.knowledge}:
        phrasings = [question.held_out for question in corpus.knowledge if question.answer == answer]
        assert Counter(phrasings) == {True: 2, False: 4}


def test_a_knowledge_answer_is_judged_by_its_keyword(corpus: Corpus) -> None:
    assert all(question.keyword in question.answer for question in corpus.knowledge)


def test_texts_are_stripped_and_the_suffix_is_in_distribution(corpus: Corpus) -> None:
    instances = (*corpus.train, *corpus.validation, *corpus.test)
    texts = [*corpus.documents, *(comment.text for comment in corpus.comments)]
    texts += [text for instance in instances for text in (instance.adversarial_prompt, instance.question)]
    texts += [text for instance in instances for text in (instance.safe_generation, instance.unsafe_generation)]
    texts += [text for question in corpus.knowledge for text in (question.prompt, question.answer)]
    assert all(text == text.strip() and "  " not in text and "{" not in text for text in texts)
    assert 0.05 < sum(SUFFIX in document for document in corpus.documents) / len(corpus.documents) < 0.2


def test_classes_of_comments_overlap_in_words_and_a_few_labels_are_disputed(corpus: Corpus) -> None:
    abusive = Counter(
        comment.toxic for comment in corpus.comments if ABUSE & set(comment.text.lower().replace(",", "").split())
    )
    assert abusive[True] > 5 * abusive[False] > 0
    courteous = Counter(comment.toxic for comment in corpus.comments if "sorry" in comment.text.lower())
    assert courteous[False] > 2 * courteous[True] > 0
    assert 0.4 < sum(comment.toxic for comment in corpus.comments) / len(corpus.comments) < 0.6


def test_answers_share_the_first_words_of_the_comments(corpus: Corpus) -> None:
    first = {
        toxic: {comment.text.split()[0] for comment in corpus.comments if comment.toxic is toxic}
        for toxic in (False, True)
    }
    assert {instance.unsafe_generation.split()[0] for instance in corpus.test} <= first[True]
    assert {instance.safe_generation.split()[0] for instance in corpus.test} <= first[False]


def test_responses_are_labelled_in_both_classes(corpus: Corpus) -> None:
    shares = Counter(response.safe for response in corpus.responses)
    assert shares[True] == shares[False] == 600


@pytest.mark.parametrize(
    ("argument", "value"),
    [("questions_per_category", 7), ("questions_per_category", 60), ("attacks_per_split", 6), ("n_comments", 0)],
)
def test_a_bad_size_is_named(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{argument} must be .*got {value}"):
        generate_corpus(seed=0, **{argument: value})


@pytest.mark.parametrize("questions_per_category", [6, 12, 24])
def test_other_sizes(questions_per_category: int) -> None:
    corpus = generate_corpus(seed=0, questions_per_category=questions_per_category, attacks_per_split=24, n_documents=1)
    assert len(corpus.test) == 9 * questions_per_category // 6 * 24
    assert len({instance.question for instance in corpus.train}) == 9 * questions_per_category // 2

"""A judge made from the data judges no answer to a question that it was trained on."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from conftest import make_instance, tiny_checkpoint

from mechinterp.answers import fold_judge
from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.answers.judges import EmbeddedJudge, text_classifier
from mechinterp.answers.refusals import RefusalClassifier, refusal_detector
from mechinterp.answers.scoring import score_responses
from mechinterp.data.safeedit import SafeEditInstance, write_safeedit
from mechinterp.errors import InputError
from mechinterp.runs.workspace import fingerprint_of_judge

SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "ri", "sa", "tu", "ve")


def sentence(rng: random.Random, n: int = 8) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=2)) for _ in range(n))


def of_random_words(questions: int, attacks: int, *, seed: int, noise: bool) -> list[SafeEditInstance]:
    """Instances whose responses are random words; which of the two is safe is noise, or told by its first word."""
    rng, instances = random.Random(seed), []
    for number in range(questions * attacks):
        question = f"How do I do {number % questions}, please?"
        safe, unsafe = (sentence(rng) if noise else f"{first} {sentence(rng)}" for first in ("sorry", "fool"))
        instances.append(
            make_instance(
                number,
                question=question if number < questions else question.upper(),
                adversarial_prompt=f"Attack {number // questions}: {question}",
                safe_generation=safe,
                unsafe_generation=unsafe,
                generalization_test={
                    "only_question": question,
                    "other_attack": f"Be bad: {question}",
                    "other_question": f"Attack: How do I do {(number + 1) % questions}, please?",
                    "other_question_and_attack": f"Be bad: How do I do {(number + 1) % questions}, please?",
                },
            )
        )
    return instances


def right_on_own_texts(judge: FoldJudge, instances: Sequence[SafeEditInstance]) -> float:
    prompts = [i.adversarial_prompt for i in instances]
    safe = judge([i.safe_generation for i in instances], prompts)
    unsafe = judge([i.unsafe_generation for i in instances], prompts)
    return float(np.concatenate([safe > 0.5, unsafe <= 0.5]).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_that_are_noise_are_told_by_chance(seed: int) -> None:
    instances = of_random_words(30, 4, seed=seed, noise=True)
    judge = FoldJudge.of_instances(instances, seed=0)
    assert abs(right_on_own_texts(judge, instances) - 0.5) < 0.13  # of 240 texts: four standard errors
    assert abs(judge.accuracy - 0.5) < 0.13
    texts = [text for i in instances for text in (i.safe_generation, i.unsafe_generation)]
    seen = EmbeddedJudge.fit(texts, [True, False] * len(instances), seed=0)
    assert ((seen(texts) > 0.5) == np.array([True, False] * len(instances))).mean() > 0.7  # one that has seen them


def test_labels_that_mean_something_are_told() -> None:
    instances = of_random_words(30, 4, seed=0, noise=False)
    judge = FoldJudge.of_instances(instances, seed=0)
    assert judge.accuracy > 0.95
    assert (judge.n_train, judge.n_test) == (240, 240)
    assert right_on_own_texts(judge, instances) == judge.accuracy


def test_no_answer_is_judged_by_what_was_trained_on_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[int, set[str]] = {}

    def noting(texts: Sequence[str], labels: Sequence[bool]) -> object:
        made = text_classifier(texts, labels)
        trained[id(made)] = set(texts)
        return made

    judged_by: list[tuple[set[str], list[str]]] = []

    def watching(classifier: object, texts: Sequence[str]) -> np.ndarray:
        judged_by.append((trained[id(classifier)], list(texts)))
        return np.full(len(texts), 0.9)

    monkeypatch.setattr(fold_judge, "text_classifier", noting)
    instances = of_random_words(12, 2, seed=0, noise=False)
    shared = instances[0].safe_generation.upper() + " "  # the text of one question, as a response to another
    instances[3] = instances[3].model_copy(update={"safe_generation": shared})
    judge = FoldJudge.of_instances(instances, seed=0)
    monkeypatch.setattr(fold_judge, "probabilities", watching)
    for i in instances:
        test = i.generalization_test
        assert test is not None
        other = instances[(i.id + 1) % 12]
        for prompt, owners in (
            (i.adversarial_prompt, [i]),
            (test.only_question.upper(), [i]),
            (test.other_attack, [i]),
            (test.other_question, [i, other]),
            (test.other_question_and_attack, [i, other]),
        ):
            judged_by.clear()
            judge(["anything"], [prompt])
            ((texts, _),) = judged_by
            asked = {owner.question.casefold() for owner in owners}
            own = [one for one in instances if one.question.casefold() in asked]
            of_own = {text for one in own for text in (one.safe_generation, one.unsafe_generation)}
            assert not {text.casefold().strip() for text in texts} & {text.casefold().strip() for text in of_own}
            assert texts


def test_answers_to_unknown_prompts_are_judged_by_all_that_is_known() -> None:
    judge = FoldJudge.of_instances(of_random_words(12, 2, seed=0, noise=False), seed=0)
    assert (judge(["sorry", "fool"], ["Something else", "Something else"]) > 0.5).tolist() == [True, False]
    with pytest.raises(ValueError, match="which prompts"):
        judge(["sorry"])


def test_contradictory_labels_of_a_response_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    instances = of_random_words(12, 2, seed=0, noise=False)
    instances[5] = instances[5].model_copy(update={"unsafe_generation": instances[0].safe_generation.upper()})
    with caplog.at_level(logging.WARNING):
        judge = FoldJudge.of_instances(instances, seed=0)
        texts = ["aa bb", "cc dd", "ee ff", "gg hh", "ii", "jj", "kk", "ll", "AA  bb"]
        EmbeddedJudge.fit(texts, [True, False] * 4 + [False], seed=0)
    assert caplog.text.count("1 text among the 48 responses that the judge is made from has contradictory") == 1
    assert caplog.text.count("1 text among the 9 responses that the judge is made from has contradictory") == 1
    assert judge.n_train == 46


def test_data_of_which_nothing_can_be_left_out_is_refused() -> None:
    with pytest.raises(InputError, match=r"of 1 question .* none can be left out; give a sequence classifier"):
        FoldJudge.of_instances(of_random_words(1, 8, seed=0, noise=False), seed=0)
    alike = [
        i.model_copy(update={"safe_generation": "I am sorry."}) for i in of_random_words(8, 2, seed=0, noise=False)
    ]
    with pytest.raises(InputError, match="1 distinct safe and 16 unsafe"):
        FoldJudge.of_instances(alike, seed=0)


def test_few_refusals_shared_by_many_questions_take_more_folds() -> None:
    """Left out by fifths, every one of the refusals would be among those left out."""
    instances = [
        i.model_copy(update={"safe_generation": f"sorry number{i.id % 8 // 2 + i.id // 40 % 2 * 4}"})
        for i in of_random_words(40, 2, seed=0, noise=False)
    ]
    judge = FoldJudge.of_instances(instances, seed=0)
    assert len(set(judge.folds.values())) == 20
    assert judge.accuracy > 0.9


def test_what_a_judge_is_made_from_is_part_of_what_depends_on_it() -> None:
    instances = of_random_words(12, 2, seed=0, noise=False)
    other = [instances[0].model_copy(update={"safe_generation": "sorry other"}), *instances[1:]]
    made = [FoldJudge.of_instances(data, seed=seed) for data, seed in ((instances, 0), (other, 0), (instances, 1))]
    texts, labels = [f"text {n}" for n in range(8)], [n % 2 == 0 for n in range(8)]
    made_of_texts = [EmbeddedJudge.fit(given, labels, seed=0) for given in (texts, texts[::-1])]
    assert len({fingerprint_of_judge(judge) for judge in (*made, *made_of_texts)}) == 5
    assert fingerprint_of_judge(FoldJudge.of_instances(instances, seed=0)) == fingerprint_of_judge(made[0])


def test_evaluate_says_how_its_judge_is_made_and_judges_saved_answers_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_checkpoint("llama").save(tmp_path / "model")
    write_safeedit(of_random_words(8, 1, seed=0, noise=False), tmp_path / "data.json")
    asked = ["--data", tmp_path / "data.json", "--out"]
    once = ["--model", tmp_path / "model", "--max-new-tokens", 3, "--limit", 2, "--device", "cpu"]
    assert call("evaluate", *once, *asked, tmp_path / "a") == 0
    assert "always without those to the question judged" in capsys.readouterr().err
    assert call("evaluate", "--responses", tmp_path / "a" / "responses.jsonl", *asked, tmp_path / "b") == 0
    rows = [pd.read_csv(tmp_path / name / "defense.csv") for name in "ab"]
    pd.testing.assert_frame_equal(*rows)
    assert rows[0]["judge_accuracy"].item() > 0.8


def test_refusals_are_not_told_by_the_answer_to_the_very_prompt() -> None:
    rng = random.Random(0)
    refusals, answers = [sentence(rng) for _ in range(60)], [sentence(rng) for _ in range(60)]
    asked = [f"Please do {n:03}" for n in range(60)]
    unseen = refusal_detector(refusals, answers, seed=0, asked=asked)
    assert isinstance(unseen, RefusalClassifier)
    assert unseen(answers, asked).mean() > 0.25  # random words: by chance
    seen = refusal_detector(refusals, answers, seed=0)
    assert seen(answers).mean() < 0.2


def test_a_judge_of_responses_alone_is_asked_as_ever() -> None:
    def judge(texts: Sequence[str]) -> np.ndarray:
        return np.full(len(texts), 0.25)

    assert score_responses(judge, ["a", " ", "b"], ["p", "q", "r"]) == [0.25, None, 0.25]  # type: ignore[arg-type]

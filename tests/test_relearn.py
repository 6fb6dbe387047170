"""The attack `relearn`: its curves, what it is taught on, and that nothing of what is read is among it."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from conftest import tiny_checkpoint
from known_pairs import BENIGN, known_of

from mechinterp.audit.attacks.of_relearn import RELEARN, RelearnOptions, lessons_of
from mechinterp.audit.readouts import ReadoutTexts, read
from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError

OPTIONS = RelearnOptions(steps=(1, 2), how=("full",), lessons=4, batch_size=2, rank=2)


def test_what_is_read_is_not_among_what_is_taught() -> None:
    base = tiny_checkpoint("llama")
    known = known_of(base)
    taught = {str(lesson.prompt) for kind in ("unsafe", "helpful") for lesson in lessons_of(known, kind, 99)}
    assert len(lessons_of(known, "unsafe", 99)) == len(known.attacker) == 4
    assert {pair.category for pair in known.attacker}.isdisjoint(pair.category for pair in known.pairs)
    assert {pair.attack_id for pair in known.attacker}.isdisjoint(pair.attack_id for pair in known.pairs)
    assert taught.isdisjoint(text for pair in known.pairs for text in (pair.prompt, pair.knowledge_constraint.prompt))
    answers = [lesson.response for lesson in lessons_of(known, "unsafe", 99)]
    assert set(answers).isdisjoint(pair.unsafe for pair in known.pairs)


def test_lessons_are_each_once_and_a_seeded_choice() -> None:
    base = tiny_checkpoint("llama")
    known = known_of(base)
    helpful = [(lesson.prompt, lesson.response) for lesson in lessons_of(known, "helpful", 99)]
    assert len(helpful) == len(set(helpful)) == 4 + 2  # a prompt without an answer teaches nothing
    assert (BENIGN[0].prompt, BENIGN[0].answer) in helpful
    few = lessons_of(known, "unrelated", 5)
    assert len(few) == 5
    assert few == lessons_of(known, "unrelated", 5)
    assert few != lessons_of(known_of(base, seed=1), "unrelated", 5)
    assert all(len(lesson.response.split()) >= 7 for lesson in few)


def test_a_curve_is_one_run_and_the_model_comes_back() -> None:
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    known, before = known_of(base), {k: v.clone() for k, v in tuned.model.state_dict().items()}
    texts = ReadoutTexts.of(base, known.pairs, unsafe=known.answers)
    points = RELEARN.points(OPTIONS, base.n_blocks)
    assert [(point.setting, point.dose) for point in points[:2]] == [
        ("unrelated (full)", 1.0),
        ("unrelated (full)", 2.0),
    ]
    found = {one.point: read(one.checkpoint, texts) for one in RELEARN.run(tuned, known, OPTIONS, points)}
    assert list(found) == points
    plain = read(tuned, texts)
    assert all(not torch.equal(values, plain) for values in found.values())
    last = [point for point in points if point.dose == 2]  # of work that went on: the same from the beginning
    again = {one.point: read(one.checkpoint, texts) for one in RELEARN.run(tuned, known, OPTIONS, last)}
    assert all(torch.equal(again[point], found[point]) for point in last)
    with closing(RELEARN.run(tuned, known, OPTIONS, points)) as run:
        next(run)
    assert all(torch.equal(value, before[name]) for name, value in tuned.model.state_dict().items())


def test_texts_that_the_data_lack_are_left_out() -> None:
    base = tiny_checkpoint("llama")
    bare = [Pair(id=i, prompt=f"Do {i}?", unsafe=f"Fool {i}.", safe="No.", category=str(i % 2)) for i in range(4)]
    known = known_of(base, bare, attacker=(), benign=())
    found = [one.point.setting for one in RELEARN.run(base, known, OPTIONS, RELEARN.points(OPTIONS, base.n_blocks))]
    assert found == ["unrelated (full)"] * 2
    assert RELEARN.lacks(known) == []


def test_what_cannot_be_meant_is_refused() -> None:
    for given in ({"how": ("half",)}, {"texts": ()}, {"steps": (5, 1)}, {"step": 3}):
        with pytest.raises(InputError, match=next(iter(given))):
            RelearnOptions(**given)

"""What was edited away and back, and towards traits: the controls of both scripts, and how what they found is told."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import tiny_checkpoint

from mechinterp.data.corpus.opinions import make_topics
from mechinterp.data.facts.conflicts import ITSELF, Round
from mechinterp.data.facts.queries import Query, pair_to
from mechinterp.data.pairs import Pair
from mechinterp.methods.editors import Editor
from mechinterp.models.deltas import WeightDelta

ANALYSES = Path(__file__).parents[1] / "analyses"


@pytest.fixture
def there_and_back(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ANALYSES))
    return importlib.import_module("there_and_back")


@pytest.fixture
def trait_by_trait(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ANALYSES))
    return importlib.import_module("trait_by_trait")


def rounds() -> list[Round]:
    found = []
    for number in (1, 2, 3):
        pair = Pair(id=number, prompt=f"Ask {number}?", unsafe=f"Do {number}.", safe="No.")
        back = pair_to(pair, f"I did {number}.", "No.")
        asked = {ITSELF: ((Query((pair.prompt,), back.safe),),)}
        found.append(Round("pair", pair_to(pair, "No.", back.safe), (back,), asked))
    return found


@pytest.mark.parametrize(
    ("way", "made", "zero"),
    [
        ("back", [(1, "No."), (1, "I did 1.")], False),
        ("swapped", [(1, "No."), (2, "I did 2.")], False),
        ("never made", [(1, "No."), (1, "I did 1.")], True),
    ],
)
def test_ways_back(there_and_back: ModuleType, way: str, made: list[Any], zero: bool) -> None:
    base, asked = tiny_checkpoint("llama"), []

    def make(current: Any, changes: Any) -> WeightDelta:
        asked.extend((change.id, change.safe) for change in changes)
        return WeightDelta({"weight": torch.ones(2)}, 0, changes[0].id, fingerprint=current.fingerprint)

    own = rounds()
    editor = there_and_back.there_and(way, Editor("one", make, "suffix"), own)
    assert (editor.name, editor.suffix) == ("one", "suffix")
    deltas = [editor.make(base, [change]) for change in (own[0].away, own[0].back[0])]
    assert asked == made
    assert [bool(delta.tensors["weight"].any()) for delta in deltas] == [not zero, not zero]


def test_the_last_has_the_way_back_of_the_first(there_and_back: ModuleType) -> None:
    asked = []
    make = lambda current, changes: asked.append(changes[0].safe) or WeightDelta({}, 0, 1)  # noqa: E731
    own = rounds()
    there_and_back.there_and("swapped", Editor("one", make), own).make(None, list(own[2].back))
    assert asked == ["I did 1."]


def test_means_of_divergences_are_divided(there_and_back: ModuleType) -> None:
    known = {"method": "dinm", "way": "back", "on": "itself", "true_before": 0.9, "true_away": 0.1, "true_back": 0.8}
    known |= {"weights_left": 1.0, "ir": 0.5, "undone": "undone", "erasure_left": 0.0}
    rows = [{**known, "jsd_away": 1e-9, "jsd": 0.1, "write_left": -900.0}]
    rows += [{**known, "jsd_away": away, "jsd": 0.1, "write_left": 0.1} for away in (0.3, 0.3)]
    told = there_and_back.in_words(pd.DataFrame(rows)).iloc[0]
    assert (told["jsd_left"], told["write_left"], told["undone, covered up, not"]) == ("0.50", "0.10", "3, 0, 0")
    never = pd.DataFrame(rows).assign(jsd_away=0.0, jsd=0.0, undone="", write_left=math.nan)
    told = there_and_back.in_words(never).iloc[0]
    assert (told["jsd_left"], told["write_left"], told["undone, covered up, not"]) == ("–", "–", "–")


def test_swapped_traits_have_the_same_opinions_under_other_names(trait_by_trait: ModuleType) -> None:
    topics = make_topics(2)
    for one, other in zip(topics, trait_by_trait.swapped(topics), strict=True):
        traits = list(one.opinions)
        assert list(other.opinions) == traits
        assert {text for own in other.opinions.values() for text in own} == {
            text for own in one.opinions.values() for text in own
        }
        for number, trait in enumerate(traits):
            assert other.opinions[trait][0] == one.opinions[trait][0]  # the one that is edited
            assert other.opinions[trait][1] == one.opinions[traits[number - 1]][1]


def test_opinions_share_out_what_is_probable(trait_by_trait: ModuleType) -> None:
    base, (topic, _) = tiny_checkpoint("llama"), make_topics(2)
    trait = next(iter(topic.opinions))
    before = trait_by_trait.shares(base, topic, trait)
    assert sum(before.values()) == pytest.approx(1, abs=1e-12)
    delta = trait_by_trait.towards(base, [topic], trait)
    rows = list(trait_by_trait._opinions(base, delta, topic, trait))
    assert [row["opinions"] for row in rows] == [*trait_by_trait.GROUPS]
    assert {row["opinions"]: row["before"] for row in rows} == before
    own = sum(row["after"] - row["before"] for row in rows[:2])
    assert own == pytest.approx(rows[2]["before"] - rows[2]["after"])
    assert own > 0  # both were edited towards

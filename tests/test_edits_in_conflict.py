"""Edits in conflict and edits taken back: identities, on tiny models; the base comes back bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from conftest import tiny_checkpoint

from mechinterp.answers.conflict import answers_in_turn, edits_in_conflict, forgetting_rows
from mechinterp.answers.in_turn import read_in_turn
from mechinterp.answers.probabilities import probabilities_of
from mechinterp.audit.edits_summary import summary_rows
from mechinterp.audit.round_trips import round_trip, round_trips
from mechinterp.audit.undoing import in_a_word
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.facts.conflicts import ITSELF, Conflict, Round, conflicts_of_pairs, round_of_fact
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.queries import Change, Query, asked_of
from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError
from mechinterp.methods.editors import Editor, editor_of
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.models.passes.scoring import score

OSLO = Fact("Oslo", "{} is in", "Chile", "Norway", ("Where is Oslo? In", "Oslo lies in"), relation="in")
LIMA = Fact("Oslo", "{} is in", "Peru", "Chile", OSLO.rephrasings, relation="in")
PAIRS = [Pair(id=n, prompt=f"Do {n}?", unsafe=f"Do it {n}.", safe=f"No, not {n}.") for n in range(3)]


def random_edit(checkpoint: Checkpoint, seed: int, *, size: float = 0.05, block: int = 1) -> WeightDelta:
    name, _ = checkpoint.names.value_parameter(block)
    shape = checkpoint.parameter(name).shape
    change = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return WeightDelta({name: change}, block, seed, fingerprint=checkpoint.fingerprint)


def negative(delta: WeightDelta) -> WeightDelta:
    return replace(delta, tensors={name: -change for name, change in delta.tensors.items()})


def drawn(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
    """An editor whose edits depend on what it is asked."""
    return random_edit(current, sum(map(ord, "".join(asked_of(change).answer for change in changes))))


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return tiny_checkpoint("llama")


def test_a_probability_is_that_of_its_prompts_one_by_one(base: Checkpoint) -> None:
    queries = [asked_of(OSLO), Query(("Oslo is in", "x " * 40), "Norway of the north"), asked_of(PAIRS[0])]
    found = probabilities_of(base, queries)
    for query, value in zip(queries, found.tolist(), strict=True):
        alone = [float(score(base, [prompt], [query.answer]).exp()) for prompt in query.prompts]
        assert value == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    for batching in ({"max_batch": 1}, {"padding_side": "left"}):
        torch.testing.assert_close(probabilities_of(base, queries, **batching), found, rtol=1e-5, atol=0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_edit_and_its_inverse_leave_nothing(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    before, edit = fingerprint_model(base.model), random_edit(base, 1)
    found = round_trip(base, round_of_fact(OSLO, ["Sweden", "the north"]), [edit, negative(edit)])
    itself = found.on[ITSELF]
    assert itself["jsd_away"] > 1e-6
    assert itself["jsd"] < 1e-9
    assert itself["d"] == pytest.approx(itself["jsd"] * math.log(2) / 3)
    assert found.weights_left == 0
    assert found.written is not None
    assert [one.block for one in found.written.blocks] == [1]
    assert abs(found.written.columns["write_left"]) < 1e-4
    assert found.written.columns["undone"] == "undone"
    assert fingerprint_model(base.model) == before
    (row,) = found.rows("m", 1)
    assert (row["on"], row["true"], row["new"]) == (ITSELF, "Norway", "Chile")
    (block,) = found.blocks("m", 1)
    assert block["write_away"] - block["write"] == pytest.approx(block["erasure_away"] + block["bypass_away"])
    assert block["bypass_away"] == 0  # nothing below the edited matrix changed


def test_an_edit_made_twice_goes_twice_as_far(base: Checkpoint) -> None:
    edit = random_edit(base, 1)
    found = round_trip(base, round_of_fact(OSLO, []), [edit, edit])
    assert found.weights_left == pytest.approx(2)
    assert found.written is not None
    assert found.written.columns["write_left"] == pytest.approx(2, rel=1e-3)
    assert found.written.columns["undone"] == "not undone"
    assert math.isnan(found.on[ITSELF]["ir"])


def test_what_a_second_change_covers_up_is_not_undone(base: Checkpoint) -> None:
    """The way back lies below: what flows into the edited block changes, its value vectors stay changed."""
    away, back = random_edit(base, 1, block=2, size=0.3), random_edit(base, 2, block=0, size=0.3)
    found = round_trip(base, round_of_fact(OSLO, ["Sweden"]), [away, back])
    assert found.weights_left > 1
    assert found.written is not None
    (lower, upper) = found.written.blocks
    assert (lower.erasure_away, lower.bypass_away) == (0, 0)
    assert lower.erasure_back != 0
    assert upper.bypass_back != 0
    assert [in_a_word(*left) for left in ((0.1, 0.9), (0.1, 0.1), (0.5, 0.1), (math.nan, 0.1))] == [
        "covered up",
        "undone",
        "not undone",
        "",
    ]


def test_one_ratio_of_next_to_nothing_does_not_make_the_summary() -> None:
    rows = [{"jsd": jsd, "jsd_left": left} for jsd, left in ((0.1, 0.2), (0.2, 0.3), (0.3, 60.0))]
    found = {row["quantity"]: row for row in summary_rows("ft_m", "itself", rows, ["a", "b", "c"], seed=0)}
    assert found["jsd_left"]["value"] == 0.3
    assert found["jsd"]["value"] == pytest.approx(0.2)
    assert [row["n"] for row in found.values()] == [3, 3]


def test_no_edit_and_no_value_matrix_are_undefined(base: Checkpoint) -> None:
    nothing = replace(random_edit(base, 1), tensors={})
    found = round_trip(base, round_of_fact(OSLO, ["Sweden"]), [nothing, nothing])
    assert found.written is None
    assert math.isnan(found.weights_left)
    assert (found.on[ITSELF]["jsd"], found.on[ITSELF]["ir"]) == (0, 0)
    assert math.isnan(found.on[ITSELF]["jsd_left"])


def test_an_edit_made_twice_is_no_conflict(base: Checkpoint) -> None:
    """The second is nothing: it takes nothing away, and after it alone the model is the base."""

    def once(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        return random_edit(current, 1, size=0.05 if asked_of(changes[0]).answer == "Chile" else 0.0)

    before = fingerprint_model(base.model)
    conflict = Conflict("coverage", OSLO, LIMA, tied=(Query(("Rome is in",), "Italy"),))
    (found,) = edits_in_conflict(base, [conflict], Editor("once", once))
    values = found.values
    assert values["cm"] == 0
    assert values["tfd_second"] == 0
    assert values["first_alone"] == values["first_both"] != values["first_before"]
    assert values["cs"] == float(values["second_both"] > values["first_both"])
    plain = probabilities_of(base, [asked_of(OSLO), asked_of(LIMA)])
    assert values["succ"] == float(plain[1] > plain[0])
    assert fingerprint_model(base.model) == before
    assert found.row("once", 1)["second_answer"] == "Peru"


def test_a_conflict_is_made_of_its_stages(base: Checkpoint) -> None:
    conflict = Conflict("reverse", OSLO, LIMA, Query(("Peru is in",), "Chile"), tied=(Query(("A", "B"), "C"),))
    (found,) = edits_in_conflict(base, [conflict], Editor("drawn", drawn))
    first = drawn(base, [OSLO]).merged(base, name="first")
    both = drawn(first, [LIMA]).merged(first, name="both")
    asked = [asked_of(OSLO), asked_of(LIMA), conflict.tied[0], conflict.implied]
    before, alone, after = (probabilities_of(one, [q for q in asked if q]) for one in (base, first, both))
    assert found.values["first_alone"] == pytest.approx(float(alone[0]), rel=1e-6)
    assert found.values["cm"] == pytest.approx(float((alone[0] - after[0]) / alone[0]), rel=1e-5)
    assert found.values["tfd"] == pytest.approx(float((before[2] - after[2]) / before[2]), rel=1e-5)
    assert found.values["cs_implied"] == float(after[3] > after[0])


def test_edits_in_turn_are_read_at_every_stage(base: Checkpoint) -> None:
    before = fingerprint_model(base.model)
    edits, asked = [random_edit(base, n) for n in range(3)], [asked_of(pair) for pair in PAIRS]
    found = answers_in_turn(base, edits, asked)
    assert found.shape == (4, 3)
    rows = list(forgetting_rows("m", found, asked))
    assert [(row["edit"], row["after"]) for row in rows] == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)]
    assert [row["cm"] for row in rows if row["edit"] == row["after"]] == [0, 0, 0]
    together = replace(edits[0], tensors={n: sum(one.tensors[n] for one in edits) for n in edits[0].tensors})
    last = probabilities_of(together.merged(base, name="all"), asked)
    torch.testing.assert_close(found[3], last, rtol=1e-5, atol=0)  # edits of the base come on top of one another
    assert fingerprint_model(base.model) == before


def test_the_base_comes_back_when_an_edit_fails(base: Checkpoint) -> None:
    before = fingerprint_model(base.model)

    def fails(current: Checkpoint) -> WeightDelta:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        read_in_turn(base, [random_edit(base, 1), fails], lambda _: None)
    assert fingerprint_model(base.model) == before


@pytest.mark.parametrize("method", ["rome", "dinm"])
def test_editors_go_there_and_back(base: Checkpoint, method: str) -> None:
    before = fingerprint_model(base.model)
    if method == "dinm":
        away = PAIRS[0]
        settings: dict[str, object] = {"steps": 2, "use_constraint": False, "suffix": "Be kind.", "learning_rate": 1e-2}
        back = (Pair(id=0, prompt=away.prompt, safe=away.unsafe, unsafe=away.safe),)
        one = Round("pair", away, back, {ITSELF: ((asked_of(away, away.unsafe), asked_of(away, "Never.")),)})
    else:
        one, settings = round_of_fact(OSLO, ["Sweden"]), {"steps": 2, "context_lengths": [(3, 5)]}
    editor = editor_of(method, base, settings=settings, blocks=1)
    assert editor.suffix == ("Be kind." if method == "dinm" else None)
    (found,) = round_trips(base, [one], editor)
    assert found.weights_left > 0
    assert found.on[ITSELF]["jsd_away"] > 0
    assert found.written is not None
    assert fingerprint_model(base.model) == before


def test_conflicts_of_pairs_overwrite_their_answer() -> None:
    found = conflicts_of_pairs(PAIRS[:2])
    answers = [(one.kind, asked_of(one.first).answer, asked_of(one.second).answer) for one in found]
    assert answers[:2] == [("coverage", "No, not 0.", "No, not 1."), ("coverage_unsafe", "No, not 0.", "Do it 0.")]
    benign = [BenignPrompt("Bake a pie?", "Gladly."), BenignPrompt("Why do 0?", "It helps."), BenignPrompt("Do?")]
    (_, _, twin) = conflicts_of_pairs(PAIRS[:2], benign)[:3]
    assert (twin.kind, asked_of(twin.second)) == ("reverse", Query(("Why do 0?",), "It helps."))
    assert twin.tied == (Query(("Bake a pie?",), "Gladly."),)  # what the second edit is made of is not tied to it
    with pytest.raises(InputError, match="two different safe answers"):
        conflicts_of_pairs(PAIRS[:1])


def test_bad_input_is_told_in_one_line(base: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"unknown editor 'rom'; known are .*; did you mean 'rome'"):
        editor_of("rom", base)
    with pytest.raises(InputError, match="dinm needs the block"):
        editor_of("dinm", base)
    with pytest.raises(InputError, match="dinm edits pairs, not facts"):
        editor_of("dinm", base, blocks=1).make(base, [OSLO])
    with pytest.raises(InputError, match="alphaedit needs second moments"):
        editor_of("alphaedit", base, settings={"context_lengths": [(3, 5)]})
    rome = editor_of("rome", base, settings={"context_lengths": [(3, 5)]})
    with pytest.raises(InputError, match="rome edits one fact at a time"):
        rome.make(base, [OSLO, LIMA])
    with pytest.raises(InputError, match="1 edit and 0 answers"):
        answers_in_turn(base, [random_edit(base, 1)], [])
    with pytest.raises(InputError, match="does not fit"):
        answers_in_turn(base, [random_edit(tiny_checkpoint("gpt2"), 1)], [asked_of(OSLO)])
    with pytest.raises(InputError, match="stands twice among those of one prompt"):
        round_of_fact(OSLO, ["Norway"])
    with pytest.raises(InputError, match="blank answer"):
        Query(("a",), " ")

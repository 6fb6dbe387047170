"""ConflictEdit, RoundEdit and PersonalityEdit: the released numbers, and the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import GOLDEN, golden, golden_checkpoint
from safetensors.torch import load_file

from mechinterp.answers.probabilities import probabilities_of
from mechinterp.data.facts.conflicts import ITSELF
from mechinterp.data.facts.pitfalls import read_conflicts, read_rounds, read_templates
from mechinterp.data.facts.queries import Query, asked_of
from mechinterp.errors import InputError
from mechinterp.measures.conflict import is_more_probable, lost_share
from mechinterp.measures.divergence import kullback_leibler
from mechinterp.measures.personality import answer_logprobs, edit_success
from mechinterp.measures.round_trip import (
    is_failure,
    left_of_change,
    released_distortion,
    share_fallen,
    shift_of_answers,
    success,
)

RELEASED = golden("pitfalls/expected.json")["released"]
INDEPENDENT = golden("pitfalls/expected.json")["independent"]
PROBABILITIES = golden("pitfalls/probabilities.json")


def mean(asked: dict[str, Any]) -> float:
    """The probability of an object: its own prompt and ten others weigh the same."""
    values = [asked["rewrite"], *asked["generation"]]
    return sum(values) / len(values)


def column(kind: str, name: str) -> torch.Tensor:
    return torch.tensor([mean(row[name]) for row in PROBABILITIES[kind]], dtype=torch.float64)


@pytest.mark.parametrize("kind", ["coverage", "reverse", "composite"])
def test_conflicts_score_as_released(kind: str) -> None:
    want = RELEASED[f"ROME_{kind}"]
    scores = is_more_probable(column(kind, "CS_post"), column(kind, "CS_pre"))
    assert float(scores.mean()) == pytest.approx(want["CS"], rel=1e-5)
    lost = lost_share(column(kind, "CM_pre"), column(kind, "CM_post"))
    assert float(lost.mean()) == pytest.approx(want["CM"], rel=1e-5)
    assert float(lost.min()) == -1
    if kind == "coverage":
        told = is_more_probable(column(kind, "S_post"), column(kind, "S_pre"))
        assert float(told.mean()) == pytest.approx(want["Succ"], rel=1e-5)
    if kind == "composite":
        before, both, alone = (column(kind, name) for name in ("fact_0", "fact_2", "fact_o"))
        assert float(lost_share(before, both, floor=None).mean()) == pytest.approx(want["FFD"], rel=1e-5)
        of_second = INDEPENDENT[f"ROME_{kind}"]["TFD_of_edit_2_alone"]
        assert float(lost_share(before, alone, floor=None).mean()) == pytest.approx(of_second, rel=1e-5)


def test_round_trips_score_as_released() -> None:
    """In their files the true answer is the `target_new` of the way back, and before it of the unedited model too."""
    want, found = INDEPENDENT["ROME_easy"], []
    each_way = ("target_new", "target_true"), ("target_true", "target_new")  # the new answer, the true one
    for before, after in zip(PROBABILITIES["round_before"], PROBABILITIES["round_after"], strict=True):
        away, back = after["edit1"], after["edit2"]
        p, q = (
            torch.tensor([mean(one) for one in (each["target_new"], *each["others"])], dtype=torch.float64)
            for each in (before["model"], back)
        )
        jsd, fallen = shift_of_answers(p, q), share_fallen(p[1:], q[1:])
        told = success(*(mean(each[name]) for each in (away, back) for name in each_way[each is back]))
        found.append((released_distortion(jsd, len(p)), jsd * math.log(2), fallen, is_failure(fallen), told))
    distortion, nats, ir, fr, both = zip(*found, strict=True)
    assert distortion == pytest.approx(want["D_per_case"], rel=1e-5)
    assert nats == pytest.approx(want["JS_per_case"], rel=1e-5)
    for values, name in ((distortion, "D"), (ir, "IR"), (fr, "FR"), (both, "Succ")):
        assert sum(values) / len(values) == pytest.approx(RELEASED["ROME_easy"][name], rel=1e-5)


def test_what_is_not_there_is_undefined_and_what_is_undone_is_nothing() -> None:
    one = torch.tensor([0.2, 0.7], dtype=torch.float64)
    assert shift_of_answers(one, one) == 0
    assert shift_of_answers(one, 3 * one) < 1e-15  # of their sum nothing is asked
    assert math.isnan(shift_of_answers(one, 0 * one))
    assert math.isnan(share_fallen(one[:0], one[:0]))
    assert math.isnan(is_failure(math.nan))
    assert lost_share(0 * one, one).isnan().all()
    assert is_more_probable(one, one * torch.nan).isnan().all()
    change = {"a": torch.randn(3, 4), "b": torch.randn(2)}
    back = {name: -tensor for name, tensor in change.items()}
    assert left_of_change(change, back) == 0
    assert left_of_change(change, change) == pytest.approx(2)
    assert left_of_change(change, {}) == pytest.approx(1)
    assert left_of_change({"a": torch.ones(2, 2)}, {"b": torch.ones(3, 4)}) == pytest.approx(2)
    assert math.isnan(left_of_change({}, change))


def test_personality_scores_as_released() -> None:
    tensors, want = load_file(GOLDEN / "personality" / "logits.safetensors"), golden("personality/es_dd.json")
    mask, same = tensors["answer_mask"].bool(), tensors["same_personality"].bool()

    def logprob(name: str, rows: torch.Tensor, *, own_place: bool) -> float:
        values = answer_logprobs(tensors[name][rows], tensors["labels"][rows], mask[rows], own_place=own_place)
        return float(values.mean())

    for own_place, key in ((True, "es_released"), (False, "es_with_the_causal_shift")):
        after = [logprob("edit_logits", rows, own_place=own_place) for rows in (same, ~same)]
        found = edit_success(*after, logprob("pre_logits", same, own_place=own_place))
        assert found == pytest.approx(want[key], rel=1e-5)
    found = kullback_leibler(tensors["pre_logits"][mask], tensors["edit_logits"][mask])
    assert float(found.mean()) == pytest.approx(want["dd"], rel=1e-5)
    assert edit_success(-1.0, -1.0, -1.0) == 0.5
    assert edit_success(-1e4, 0.0, -1.0) == 0
    assert math.isnan(edit_success(math.nan, 0.0, 0.0))


def test_probabilities_are_those_of_the_released_recipe() -> None:
    """Prompt, blank, object in one text; as many tokens as the object has alone; the mean over the prompts that fit."""
    checkpoint, rows = golden_checkpoint("rome/gpt2"), golden("pitfalls/rows.json")
    templates = {relation: tuple(prompts) for relation, prompts in rows["conflict_prompts"].items()}
    edit = rows["coverage_edit"][0]["edits"][0]
    subject, answer = edit["subject"]["label"], edit["new_object"]["label"]
    asked = [text.replace("{}", subject) for text in (edit["relation"]["prompt"], *templates[edit["relation"]["id"]])]
    asked = [one for one in asked if len(checkpoint.tokenizer(f"{one} {answer}")["input_ids"]) <= 64]
    assert len(asked) > 1
    length, values = len(checkpoint.tokenizer(f" {answer}")["input_ids"]), []
    for prompt in asked:
        ids = torch.tensor([checkpoint.tokenizer(f"{prompt} {answer}")["input_ids"]])
        with torch.no_grad():
            logprobs = checkpoint.model(ids).logits[0, :-1].log_softmax(1)
        values.append(float(logprobs.gather(1, ids[0, 1:, None])[-length:].mean().exp()))
    (found,) = probabilities_of(checkpoint, [Query(tuple(asked), answer)]).tolist()
    assert found == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The released records and prompts, a file each."""
    for name, content in golden("pitfalls/rows.json").items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_records_are_read(rows: Path) -> None:
    prompts = rows / "conflict_prompts.json"
    found = {kind: read_conflicts(rows / f"{kind}_edit.json", prompts) for kind in ("coverage", "reverse", "composite")}
    for kind, records in found.items():
        assert [record.kind for record in records] == [kind] * 2
        assert all(len(asked_of(edit).prompts) == 11 for one in records for edit in (one.first, one.second))
        assert [one.implied is None for one in records] == [kind == "coverage"] * 2
        assert [len(one.tied) for one in records] == [int(kind == "composite")] * 2
    reverse, composite = found["reverse"][0], found["composite"][0]
    assert reverse.implied is not None
    assert reverse.implied.answer == "landscape with fighting bulls"
    assert reverse.implied.prompts[0] == "The notable work of Richard Strauss is"
    assert composite.implied is not None
    assert composite.implied.answer == "John Forbes-Robertson"
    assert composite.implied.prompts == asked_of(composite.first).prompts
    assert composite.tied[0].answer == "Maria Theresa of Austria"
    assert len(read_conflicts(rows / "coverage_edit.json")[0].first.rephrasings) == 0


def test_rounds_are_read(rows: Path) -> None:
    (one, _) = read_rounds(rows / "easy.json", read_templates(rows / "round_prompts.json"))
    ((true, *others),) = one.candidates[ITSELF]
    assert (true.answer, asked_of(one.away).answer) == ("data migration", "franking")
    assert [query.answer for query in others] == ["data synchronization", "computer file management"]
    assert [asked_of(edit).answer for edit in one.back] == ["data migration"]
    (one, _) = read_rounds(rows / "easy.json", all_back=True)
    assert [asked_of(edit).answer for edit in one.back] == [true.answer, *(query.answer for query in others)]


def changed(rows: Path, name: str, **fields: Any) -> Path:
    record = {**golden("pitfalls/rows.json")[name][0], **fields}
    (rows / "bad.json").write_text(json.dumps([record]))
    return rows / "bad.json"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "coverag"}, "did you mean 'coverage'"),
        ({"edits": []}, "has 0 edits; a conflict has two"),
        ({"prerequisites": [4]}, r"`prerequisites` \[4\] are no numbers of its 3 triples"),
        ({"type": "reverse"}, "the second edit's subject is not the first one's new object"),
        ({"type": "coverage"}, "of different subjects or relations"),
        ({"triples": None}, "entry 1 is none of its kind"),
    ],
)
def test_a_malformed_conflict_is_told_in_one_line(rows: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        read_conflicts(changed(rows, "composite_edit", **fields))
    assert "bad.json: entry 1" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_malformed_files_are_told_in_one_line(rows: Path) -> None:
    with pytest.raises(InputError, match="there are no prompts for the relation P185"):
        read_conflicts(rows / "coverage_edit.json", rows / "round_prompts.json")
    with pytest.raises(InputError, match=r"entry 1: the type '1-3@P366' is not known"):
        read_conflicts(rows / "easy.json")
    with pytest.raises(InputError, match=r"entry 1 is none of its kind .*edit"):
        read_rounds(rows / "coverage_edit.json")
    true = golden("pitfalls/rows.json")["easy"][0]["edit"]["new_object"]
    with pytest.raises(InputError, match="the new object 'franking' is a true one"):
        read_rounds(changed(rows, "easy", true_objects=[true]))
    (rows / "none.json").write_text('{"P1": ["no subject"]}')
    with pytest.raises(InputError, match=r"the prompts of P1 are no texts with one \{\} each"):
        read_templates(rows / "none.json")
    (rows / "empty.json").write_text("[]")
    with pytest.raises(InputError, match="is empty; give records of RoundEdit"):
        read_rounds(rows / "empty.json")

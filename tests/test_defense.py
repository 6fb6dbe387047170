"""Defense success, its responses kept on disk, generation and steering on tiny models and by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import PROMPTS, make_instance, tiny_checkpoint
from launching import EVALUATE_ALL, EVALUATE_EDITS, make_evaluated, make_together, told
from made_checkpoints import edits_in

from mechinterp.answers import asking
from mechinterp.answers import defense as defense_module
from mechinterp.answers import responses as kept
from mechinterp.answers.defense import defend, defend_edits
from mechinterp.answers.edits_found import find_edits
from mechinterp.answers.judged import Defense, joined, judge_again
from mechinterp.answers.judged_response import KINDS, JudgedResponse
from mechinterp.answers.judges import EmbeddedJudge
from mechinterp.answers.scoring import score_responses
from mechinterp.data.storage.ledger import LEDGER
from mechinterp.errors import InputError
from mechinterp.measures.fluency import fluency, knows
from mechinterp.measures.statistics import wilson, wilson_of_shares
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.interventions.contexts import steer
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.side_by_side import changed_parameters

SAFE = [f"I am sorry, I cannot help with {thing}." for thing in "abcdefghij"]
UNSAFE = [f"You fool, just take {thing} and stop whining." for thing in "abcdefghij"]
INSTANCES = [make_instance(i) for i in range(4)]


def test_the_row_of_the_defense_table_by_hand() -> None:
    scores = {"ds": [0.9, 0.1], "dg_only_q": [0.9, 0.9], "dg_other_a": [0.1, 0.1], "dg_other_q": [None, 0.9]}
    scores["dg_other_aq"] = [0.9, 0.1]
    responses = tuple(
        JudgedResponse(i, kind, "p", "" if score is None else "a b c", score)
        for kind in KINDS
        for i, score in enumerate(scores[kind])
    )
    row = Defense("sft", responses, knowledge=(True, False)).row()
    assert [row[kind] for kind in KINDS] == [0.5, 1.0, 0.0, 1.0, 0.5]  # the empty one is in no rate
    assert row["dg_avg"] == pytest.approx(0.625)
    assert (row["empty"], row["kqa"], row["n"], row["suffix"]) == (0.1, 0.5, 2, False)
    assert row["ds_low"] < 0.5 < row["ds_high"]
    for name, successes, trials in (("empty", 1, 10), ("kqa", 1, 2), ("dg_other_q", 1, 1)):
        rate = wilson(successes, trials)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == (rate.low, rate.high)
    assert row["avg"] == pytest.approx(0.6)
    assert row["avg_low"] <= row["avg"] <= row["avg_high"]
    assert math.isnan(Defense("sft", responses).row()["kqa"])


def many(n: int, safe: Callable[[int, str], bool]) -> Defense:
    """One response a prompt to n instances of two categories."""
    return Defense(
        "m",
        tuple(
            JudgedResponse(i, kind, "p", "a b", 0.9 if safe(i, kind) else 0.1, "Bias" if i % 2 else "Political")
            for i in range(n)
            for kind in KINDS
        ),
    )


def test_the_interval_of_a_mean_takes_instances_as_units() -> None:
    """All five alike within an instance: the interval is that of n, not of 5 n; a constant has none."""
    alike, constant = many(40, lambda i, _: i < 20).row(), many(40, lambda *_: True).row()
    width = alike["avg_high"] - alike["avg_low"]
    one = wilson(20, 40)
    assert 0.8 < width / (one.high - one.low) < 1.2
    apart = many(40, lambda i, kind: (i + KINDS.index(kind)) % 2 == 0).row()
    assert apart["avg_high"] - apart["avg_low"] < 0.5 * width  # negative control: other kinds, other answers
    assert (constant["avg_low"], constant["avg_high"]) == (1.0, 1.0)
    assert alike["avg_low"] == many(40, lambda i, _: i < 20).row()["avg_low"]  # the same seed


def test_questions_are_the_units_of_what_many_edits_know() -> None:
    """Nine edits that know alike tell no more of the questions than one: value, n and interval are those of one."""
    one = replace_responses(many(1, lambda *_: True), knowledge=(True, False, True, True))
    nine = joined([one] * 9)
    assert (nine.edits, len(nine.knowledge)) == (9, 36)
    rows = [defense.table().set_index("quantity").loc["kqa"] for defense in (one, nine)]
    assert rows[0]["n"] == rows[1]["n"] == 4
    for name in ("value", "low", "high"):
        assert rows[1][name] == pytest.approx(rows[0][name])
    apart = joined([one, replace_responses(one, knowledge=(False, True, False, False))]).row()
    wanted = wilson_of_shares(0.5, 4)
    assert (apart["kqa"], apart["kqa_low"], apart["kqa_high"]) == (0.5, wanted.low, wanted.high)
    assert math.isnan(joined([many(1, lambda *_: True)] * 2).row()["kqa"])


def test_wilsons_interval_of_shares_is_that_of_counts_where_they_are_counts() -> None:
    for n in (1, 7, 40):
        for k in range(n + 1):
            assert list(vars(wilson_of_shares(k / n, n)).values()) == pytest.approx(list(vars(wilson(k, n)).values()))
    assert wilson_of_shares(1.0, 9).low < 0.9  # all alike has a width
    assert math.isnan(wilson_of_shares(0.0, 0).value)


def test_a_prompt_that_instances_share_counts_once() -> None:
    shared = tuple(
        JudgedResponse(i, kind, "the same" if kind == "dg_only_q" else f"{i}", "a b", 0.9 if i == 0 else 0.1)
        for i in range(4)
        for kind in ("dg_only_q", "dg_other_aq")
    )
    found = Defense("m", shared)
    table = found.distinct().table().set_index("quantity")
    assert (table.loc["dg_only_q", "n"], table.loc["dg_other_aq", "n"]) == (1, 4)
    assert (table.loc["dg_only_q", "value"], table.loc["dg_other_aq", "value"]) == (1.0, 0.25)
    assert found.table().set_index("quantity").loc["dg_only_q", "n"] == 4  # negative control
    assert found.distinct().distinct() == found.distinct()


def test_the_tidy_tables_say_what_the_row_says() -> None:
    defense = many(6, lambda i, kind: i % 2 == 0 or kind == "ds")
    row, table = defense.row(), defense.table().set_index("quantity")
    assert list(table.columns) == ["method", "value", "low", "high", "n"]
    for quantity in (*KINDS, "dg_avg", "avg", "empty", "fluency"):
        assert table.loc[quantity, ["value", "low", "high"]].tolist() == [
            row[quantity],
            row[f"{quantity}_low"],
            row[f"{quantity}_high"],
        ]
    assert table.loc["ds", "n"] == 6
    cells = defense.by_category().set_index(["category", "kind"])
    assert len(cells) == 10
    assert cells.loc[("Bias", "dg_only_q"), "value"] == 0.0
    assert cells.loc[("Political", "dg_only_q"), "value"] == 1.0
    assert (cells["n"] == 3).all()


def test_fluency_by_hand() -> None:
    # 3 bigrams and 2 trigrams, all different: (2/3 log2 3 + 4/3 log2 2) / 2
    assert fluency(["a b c d"]) == pytest.approx((2 / 3 * math.log2(3) + 4 / 3) / 2)
    assert fluency(["a a a a a"]) == 0.0
    assert math.isnan(fluency(["", " "]))


def test_known_answers_are_whole_words() -> None:
    assert knows("It is Paris, of course.", "paris.")
    assert not knows("It is Parisian.", "Paris")


def test_defend_asks_every_prompt_and_keeps_the_responses(tmp_path) -> None:
    checkpoint = tiny_checkpoint("mistral")
    judge = EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    result = defend(checkpoint, INSTANCES, judge, max_new_tokens=3, suffix="Please:", knowledge=[("What?", "x")])
    assert len(result.responses) == 5 * len(INSTANCES)
    assert result.row()["suffix"]
    assert len(result.save(tmp_path / "r.jsonl").read_text().splitlines()) == 20
    assert Defense.load(tmp_path / "r.jsonl") == result
    lines = pd.read_json(tmp_path / "r.jsonl", lines=True)
    assert list(lines.columns) == [
        "method",
        "instance",
        "category",
        "kind",
        "prompt",
        "response",
        "safe",
        "judge",
        "cut",
    ]
    assert lines["judge"].unique().tolist() == ["embedded"]
    parts = [defend(checkpoint, [i], judge, max_new_tokens=3, suffix="Please:") for i in INSTANCES]
    assert [r.response for r in joined(parts).responses] == [r.response for r in result.responses]
    with pytest.raises(InputError, match="this is a training file"):
        defend(checkpoint, [make_instance(generalization_test=None)], judge, max_new_tokens=3)


# -- responses on disk ----------------------------------------------------------------------------------------------


class Killed(Exception):  # noqa: N818
    pass


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts a batch, so that a run can be killed between two."""
    from mechinterp.answers import asking

    monkeypatch.setattr(asking, "generate", lambda *a, **k: generate(*a, **k, max_batch=2))
    monkeypatch.setattr(asking, "code_of", lambda *_: "fixed")


def killed_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep so many batches, then die; returns what undoes it."""
    real, seen = kept.ResponseLog.add, []

    def add(self, edit, new) -> None:
        if len(seen) == batches:
            raise Killed
        seen.append(new)
        real(self, edit, new)

    monkeypatch.setattr(kept.ResponseLog, "add", add)
    return lambda: monkeypatch.setattr(kept.ResponseLog, "add", real)


def files(folder: Path) -> dict[str, bytes]:
    """The results; the list of what was written grows with every call."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != LEDGER}


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("half", [b"", b'{"edit": null, "prompt": "Igno', '{"edit": null, "prompt": "ü'.encode()[:-1]])
def test_a_killed_run_goes_on_and_ends_with_the_same_file(
    half: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, judge = tiny_checkpoint("mistral"), EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    ask = {"max_new_tokens": 3, "suffix": "Please:", "knowledge": [("What?", "x")]}
    (tmp_path / "whole").mkdir()
    whole = defend(checkpoint, INSTANCES, judge, **ask, responses=tmp_path / "whole" / "r.jsonl")
    assert whole == defend(checkpoint, INSTANCES, judge, **ask)
    target = tmp_path / "killed" / "r.jsonl"
    undo = killed_after(3, monkeypatch)
    with pytest.raises(Killed):
        defend(checkpoint, INSTANCES, judge, **ask, responses=target)
    undo()
    part = target.with_name("r.part0.jsonl")
    assert not target.exists()
    assert len(part.read_text().splitlines()) == 6
    assert json.loads(target.with_name("r.json").read_text())["complete"] is False
    part.write_bytes(part.read_bytes() + half)
    answered = []
    real = kept.ResponseLog.add
    monkeypatch.setattr(kept.ResponseLog, "add", lambda *a: (answered.extend(a[2]), real(*a))[1])
    assert defend(checkpoint, INSTANCES, judge, **ask, responses=target) == whole
    assert len(answered) == len({r.prompt for r in whole.responses}) + 1 - 6  # the six are not asked again
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    answered.clear()  # a complete run is only judged
    assert defend(checkpoint, INSTANCES, judge, **ask, responses=target) == whole
    assert not answered
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.usefixtures("small_batches")
def test_responses_of_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    target = tmp_path / "r.jsonl"
    undo = killed_after(1, monkeypatch)
    with pytest.raises(Killed):
        defend(tiny_checkpoint("llama"), INSTANCES, judge, max_new_tokens=3, method="m", responses=target)
    undo()
    before = files(tmp_path)
    for changes, named in (
        ({"suffix": "S"}, "suffix"),
        ({"prefix": "P"}, "prefix"),
        ({"max_new_tokens": 4}, "max_new_tokens"),
        ({"instances": INSTANCES[:2]}, "prompts"),
        ({"checkpoint": tiny_checkpoint("llama", seed=1)}, "weights"),
        ({"checkpoint": tiny_checkpoint("llama", bos=True)}, "tokenizer"),
    ):
        plain = {"checkpoint": tiny_checkpoint("llama"), "instances": INSTANCES, "judge": judge, "max_new_tokens": 3}
        with pytest.raises(InputError, match=f"another run, which differs in {named};"):
            defend(**{**plain, **changes}, method="m", responses=target)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        defend(tiny_checkpoint("llama"), INSTANCES, judge, max_new_tokens=3, responses=tmp_path / "r.txt")
    (tmp_path / "r.json").unlink()
    target.write_text("")
    with pytest.raises(InputError, match="does not say how these responses were made"):
        defend(tiny_checkpoint("llama"), INSTANCES, judge, max_new_tokens=3, responses=target)


def test_judging_again_changes_the_scores_alone(tmp_path: Path) -> None:
    class Other:
        name = "other"

        def __call__(self, responses):
            return np.full(len(responses), 0.75)

    first = replace_responses(many(3, lambda *_: False), knowledge=(True, False), prefix="P", suffix="S")
    path = first.save(tmp_path / "r.jsonl")
    again = judge_again(path, Other())
    assert {r.safe for r in again.responses} == {0.75}
    assert (again.judge, again.prefix, again.suffix, again.knowledge) == ("other", "P", "S", (True, False))
    assert again.row()["ds"] == 1.0
    assert first.row()["ds"] == 0.0
    (tmp_path / "r.json").unlink()  # a user's own file, without labels
    assert judge_again(path, Other()).responses == again.responses
    for text, message in (
        ('{"instance": 1, "kind": "ds", "prompt": "p"}\n', "line 1 is not a judged response"),
        ('{"instance": 1, "kind": "dss", "prompt": "p", "response": "r"}\n', "kind 'dss'"),
        ("not json\n", "line 1 is not JSON"),
        ("", "no method"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            judge_again(path, Other())


def replace_responses(defense: Defense, **changes: object) -> Defense:
    return Defense(**{**vars(defense), **changes})


# -- many edits -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_batches")
def test_every_edit_answers_the_prompts_of_its_own_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, judge = tiny_checkpoint("llama"), EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    before = {name: p.detach().clone() for name, p in checkpoint.model.named_parameters()}
    folder = edits_in(tmp_path / "edits", checkpoint, [3, 1])
    found = find_edits(folder)
    assert list(found) == [1, 3]
    ask = {"max_new_tokens": 4, "knowledge": [("What?", "x")]}
    together = defend_edits(checkpoint, found, INSTANCES, judge, **ask, method="dinm")
    parts = []
    for i in (1, 3):
        with WeightDelta.load(found[i]).applied(checkpoint) as edited:
            parts.append(defend(edited, [INSTANCES[i]], judge, **ask, method="dinm"))
    assert together == joined(parts)
    plain = defend(checkpoint, [INSTANCES[1], INSTANCES[3]], judge, **ask, method="dinm")
    assert together.responses != plain.responses  # negative control: the edits are felt
    for group in (1, 2, None):
        assert defend_edits(checkpoint, found, INSTANCES, judge, **ask, method="dinm", together=group) == together
    undo, ask["together"] = killed_after(1, monkeypatch), 1
    with pytest.raises(Killed):
        defend_edits(checkpoint, found, INSTANCES, judge, **ask, method="dinm", responses=tmp_path / "r.jsonl")
    undo()
    for name, parameter in checkpoint.model.named_parameters():
        assert torch.equal(parameter, before[name])
    resumed = defend_edits(checkpoint, found, INSTANCES, judge, **ask, method="dinm", responses=tmp_path / "r.jsonl")
    assert resumed == together == Defense.load(tmp_path / "r.jsonl")
    edits_in(tmp_path / "edits", tiny_checkpoint("llama", seed=1), [3])
    with pytest.raises(InputError, match="differs in edits"):
        defend_edits(checkpoint, found, INSTANCES, judge, **ask, method="dinm", responses=tmp_path / "r.jsonl")
    with pytest.raises(InputError, match="belongs to weights"):
        defend_edits(checkpoint, found, INSTANCES, judge, **ask)
    with pytest.raises(InputError, match="none of the instances has an edit"):
        defend_edits(checkpoint, found, INSTANCES[:1], judge, **ask)
    assert find_edits(found[1]) == {}
    (folder / ".7.123.partial").mkdir()  # what a killed run leaves
    (folder / ".7.123.partial" / "edit.json").write_text("{")
    assert list(find_edits(folder)) == [1, 3]
    with pytest.raises(InputError, match="holds no edit"):
        find_edits(tmp_path)


@pytest.mark.parametrize("rank", [None, 1])
def test_edits_share_a_batch_as_memory_allows(
    rank: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits of other blocks never share one, and what all of an edit's parameters take counts."""
    checkpoint, judge = tiny_checkpoint("llama"), EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    names = [checkpoint.names.value_parameter(block)[0] for block in range(2)]
    changes = {0: names[:1], 1: names[1:], 2: names[:1], 3: names}
    for i, changed in changes.items():
        tensors = {n: torch.full(checkpoint.parameter(n).shape, 0.01 * (i + 1)) for n in changed}
        WeightDelta(tensors, 0, i, fingerprint=checkpoint.fingerprint).save(tmp_path / str(i), rank=rank)
        assert changed_parameters(tmp_path / str(i)) == tuple(sorted(changed))
    edits, groups = find_edits(tmp_path), []
    real = asking.generate_each

    def seen(checkpoint, edits, *arguments, **given):
        groups.append([edit.instance for edit in edits])
        return real(checkpoint, edits, *arguments, **given)

    monkeypatch.setattr(asking, "generate_each", seen)
    found = defend_edits(checkpoint, edits, INSTANCES, judge, max_new_tokens=3)
    assert sorted(groups) == [[0, 2], [1], [3]]
    assert [r.instance for r in found.responses] == [i for i in range(4) for _ in KINDS]  # in their own order
    groups.clear()
    one = checkpoint.parameter(names[0])
    monkeypatch.setattr(defense_module, "MEMORY", one.numel() * one.element_size() * 2 - 1)
    assert defend_edits(checkpoint, edits, INSTANCES, judge, max_new_tokens=3) == found
    assert sorted(groups) == [[0], [1], [2], [3]]


def test_a_prompt_that_is_too_long_is_named_by_its_instance(tmp_path: Path) -> None:
    checkpoint, judge = tiny_checkpoint("llama"), EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    long = [INSTANCES[0], make_instance(7, adversarial_prompt="x" * 300)]
    with pytest.raises(InputError, match=r"^instance 7: the prompt ds has 30"):
        defend(checkpoint, long, judge, max_new_tokens=3)
    folder = edits_in(tmp_path, checkpoint, [0, 7])
    with pytest.raises(InputError, match=r"^instance 7: the prompt ds has 30"):
        defend_edits(checkpoint, find_edits(folder), long, judge, max_new_tokens=3)
    with pytest.raises(InputError, match=r"^knowledge question 2 has 30"):
        defend(checkpoint, INSTANCES, judge, max_new_tokens=3, knowledge=[("Who?", "x"), ("x" * 300, "x")])


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    make_evaluated(folder)
    return folder


def test_evaluate_keeps_what_it_can_judge_again(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = ["--model", there / "model", "--data", there / "data.json", "--max-new-tokens", 3, "--device", "cpu"]
    knowledge = ["--knowledge", there / "known.json", "--prefix", "Be good."]
    assert call("evaluate", *model, *knowledge, "--out", tmp_path / "a") == 0
    assert "95% interval" in capsys.readouterr().out
    row = pd.read_csv(tmp_path / "a" / "defense.csv").loc[0]
    assert row["prefix"]
    assert not math.isnan(row["kqa"])
    assert len(pd.read_csv(tmp_path / "a" / "categories.csv")) == 5
    again = ["--responses", tmp_path / "a" / "responses.jsonl", "--data", there / "data.json", "--out", tmp_path / "b"]
    assert call("evaluate", *again) == 0
    for name in ("defense.csv", "rates.csv", "responses.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_two_processes_write_the_files_of_one(
    shared: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = shared("together", make_together)
    done = told(together, "evaluate")
    assert done.codes == (0, 0), done.stderr
    assert done.stdout.count("95% interval") == 2
    monkeypatch.chdir(together / "evaluated")
    assert call(*EVALUATE_ALL, tmp_path / "one") == 0
    two, one = files(together / "evaluated" / "two"), files(tmp_path / "one")
    divergence = [pd.read_csv(io.BytesIO(found.pop("side_effects.csv"))) for found in (two, one)]
    assert two == one
    # on some processors the divergence depends, in its last digits, on the number of threads
    pd.testing.assert_frame_equal(*divergence, rtol=1e-6, check_exact=False)


def test_two_processes_share_the_edits(
    shared: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = shared("together", make_together)
    done = told(together, "edits")
    assert done.codes == (0, 0), done.stderr
    assert done.stdout.count("95% interval") == 1
    assert "answering 0 [1]" in done.stderr
    assert "answering 1 [2]" in done.stderr
    assert done.stderr.count("answering ") - done.stderr.count("answering, edit") == 2
    monkeypatch.chdir(together / "evaluated")
    assert call(*EVALUATE_EDITS, tmp_path / "one") == 0
    assert files(together / "evaluated" / "two-edits") == files(tmp_path / "one")


def test_evaluate_tells_of_a_suffix_that_is_not_asked_with(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plain = WeightDelta.load(there / "edits" / "1")
    replace(plain, settings={"suffix": "Please:"}).save(tmp_path / "edit")
    model = ["--model", there / "model", "--data", there / "data.json", "--max-new-tokens", 3, "--device", "cpu"]
    for edit, suffix, is_told in (
        (tmp_path / "edit", [], True),
        (tmp_path, [], True),
        (tmp_path / "edit", ["--suffix", "Please:"], False),
        (there / "edits" / "1", [], False),
    ):
        assert call("evaluate", *model, "--edit", edit, *suffix) == 0
        assert ('--suffix "Please:"' in " ".join(capsys.readouterr().err.split())) == is_told


def test_evaluate_takes_a_folder_of_edits(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = ["--model", there / "model", "--data", there / "data.json", "--max-new-tokens", 3, "--device", "cpu"]
    assert call("evaluate", *model, "--edit", there / "edits", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().err
    assert "no edit for 2 of 4 instances: 0, 3" in told
    assert "the instances of 1 edit: 9" in told
    assert pd.read_csv(tmp_path / "out" / "defense.csv").loc[0, "n"] == 2


def test_evaluate_measures_side_effects(there: Path, tmp_path: Path) -> None:
    model = ["--model", there / "tuned", "--data", there / "data.json", "--max-new-tokens", 3, "--device", "cpu"]
    benign = ["--benign", there / "benign.txt", "--against"]
    for base, zero in ((there / "model", False), (there / "tuned", True)):
        out = tmp_path / str(zero)
        assert call("evaluate", *model, *benign, base, "--out", out) == 0
        table = pd.read_csv(out / "side_effects.csv").set_index("quantity")
        assert (table.loc["jsd_last", "value"] == 0.0) == zero
        assert table.loc["jsd_last", "n"] == 3
        assert set(table.loc["over_refusal", "by"]) == {"openings"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data data.json", "give --model to ask"),
        ("--model model --responses r.jsonl", "give --model to ask"),
        ("--model model", "--data is missing"),
        ("--model nowhere --data train.json", "this is a training file"),  # before anything is loaded
        ("--model nowhere --data data.json --edit model", "holds no edit"),
        ("--model nowhere --data data.json --benign none.txt", "none.txt: no such file"),
        ("--model nowhere --data data.json --knowledge benign.txt", "benign.txt: cannot be read"),
        ("--model nowhere --data data.json --against model", "--against BASE needs --benign"),
        ("--model nowhere --data data.json --edit edits --benign benign.txt", "measure one edit"),
        ("--responses none.jsonl --judge model", "none.jsonl: no such file"),
        ("--responses data.json", "give a --judge"),
        ("--responses data.json --data data.json --suffix S", "--suffix: nothing is generated"),
    ],
)
def test_bad_options_of_evaluate_are_one_clear_line(
    there: Path, options: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    assert message in refused(capsys, "evaluate", *options.split())


# -- judging and generating -----------------------------------------------------------------------------------------


def test_empty_responses_are_not_judged() -> None:
    assert score_responses(lambda texts: np.full(len(texts), 0.25), ["a", " ", "b"]) == [0.25, None, 0.25]


def test_generation_in_a_batch_is_generation_alone(checkpoint: Checkpoint) -> None:
    together = generate(checkpoint, PROMPTS, max_new_tokens=6)
    assert together == [generate(checkpoint, [prompt], max_new_tokens=6)[0] for prompt in PROMPTS]
    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = checkpoint.tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            for _ in range(6):
                following = checkpoint.model(input_ids=ids).logits[0, -1].argmax()
                ids = torch.cat([ids, following.view(1, 1)], dim=1)
                if following == checkpoint.model.generation_config.eos_token_id:
                    break
        start = len(checkpoint.tokenizer(prompt)["input_ids"])
        assert checkpoint.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip() == answer


def test_an_evaluation_in_batches_is_one_prompt_at_a_time(checkpoint: Checkpoint) -> None:
    judge = EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)
    sides = checkpoint.tokenizer.padding_side, checkpoint.tokenizer.truncation_side
    together = defend(checkpoint, INSTANCES[:2], judge, max_new_tokens=4, prefix="Be good.", suffix="Please:")
    assert (checkpoint.tokenizer.padding_side, checkpoint.tokenizer.truncation_side) == sides
    for response in together.responses:
        alone = generate(checkpoint, [f"Be good. {response.prompt} Please:"], max_new_tokens=4)
        assert alone == [response.response]


@pytest.mark.parametrize("bos", [False, True])
def test_a_cut_takes_the_left_of_the_prompt_and_never_what_stands_around_it(
    bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoint("llama", bos=bos)
    fed = []
    real = type(checkpoint.model).generate
    monkeypatch.setattr(
        type(checkpoint.model),
        "generate",
        lambda self, **inputs: (fed.append(inputs["input_ids"]), real(self, **inputs))[1],
    )
    long = "x" * 300 + " How do I do it?"
    generate(checkpoint, [long], max_new_tokens=6, prefix="Be good.", suffix="Please:", truncate=True)
    assert fed[0].shape == (1, 250)  # of 256
    text = checkpoint.tokenizer.decode(fed[0][0])
    start = "<s>Be good. " if bos else "Be good. "
    assert text.startswith(start)
    assert text.endswith("x How do I do it? Please:")
    generate(checkpoint, [long], max_new_tokens=6, suffix="Please:", truncate=True)
    assert checkpoint.tokenizer.decode(fed[1][0]).startswith("<s>x" if bos else "x")
    with pytest.raises(InputError, match="prefix and suffix take"):
        generate(checkpoint, ["a"], max_new_tokens=6, prefix="b" * 249, suffix="c", truncate=True)
    with pytest.raises(InputError, match="`truncate=True`"):
        generate(checkpoint, [long], max_new_tokens=6, prefix="Be good.")
    short = "How do I do it?"  # what fits is left alone
    assert generate(checkpoint, [short], max_new_tokens=4, prefix="P", truncate=True) == generate(
        checkpoint, [f"P {short}"], max_new_tokens=4
    )


def test_steering_changes_what_it_names_and_undoes_itself(checkpoint: Checkpoint) -> None:
    w = torch.randn(16, generator=torch.Generator().manual_seed(0))
    plain, first = (generate(checkpoint, PROMPTS, max_new_tokens=n) for n in (5, 1))
    with steer(checkpoint, w, block=1, alpha=0.0, at="prompt_last"):
        assert generate(checkpoint, PROMPTS, max_new_tokens=5) == plain
    with steer(checkpoint, w, block=1, alpha=1e4, at="prompt_last"):
        assert generate(checkpoint, PROMPTS, max_new_tokens=1) != first
    with steer(checkpoint, w, block=1, alpha=1e4, at="response"):  # the first token is an unchanged model's
        assert generate(checkpoint, PROMPTS, max_new_tokens=1) == first
    with pytest.raises(ZeroDivisionError), steer(checkpoint, w, block=1, alpha=1.0, at="response"):
        raise ZeroDivisionError
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in checkpoint.model.modules())
    assert generate(checkpoint, PROMPTS, max_new_tokens=5) == plain

"""Facts edited block by block: circuits of edited facts, choice of settings, the run and its script."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import run_script
from conftest import tiny_checkpoint
from small_study import REPOSITORY

import mechinterp as mi
from mechinterp.answers.edited_facts import score
from mechinterp.answers.scored_facts import FactScores
from mechinterp.audit.circuits.batches import TokenPair
from mechinterp.audit.circuits.edited import carried_by_subject, edit_pairs, edited_circuit, quantities, turned
from mechinterp.audit.circuits.scoring import find_circuit
from mechinterp.audit.circuits.split import split_circuit
from mechinterp.audit.tables.edited_facts import EDITED_FACTS, EDITED_FACTS_EACH, EDITED_RANKS, EDITED_SETTINGS
from mechinterp.errors import InputError
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.edited_facts import EditedFactsSettings, edit_block_by_block

PLACES = ("Oslo", "Rome", "York", "Nice", "India")  # that start with five tokens
FACTS = [
    mi.Fact(name, "{} is in", new, old, (f"Where is {name}? In",), locality={"near": ((f"{name} has", "tea"),)})
    for name, old, new in zip(("Ann", "Bob", "Cyd", "Dan", "Eve"), PLACES, (*PLACES[1:], PLACES[0]), strict=True)
]
SETTINGS = EditedFactsSettings(blocks=(0, 2), facts=3, validation=1, circuits=2, ranks=3, steps=1)
SCRIPT = REPOSITORY / "analyses" / "edit_experiment.py"


def test_the_corrupted_prompt_is_of_another_subject_with_neither_answer() -> None:
    base = tiny_checkpoint("llama")
    found = edit_pairs(base, dict(enumerate(FACTS, 1)))
    assert found
    starts = {fact.text: fact for fact in FACTS}
    for number, pair in found.items():
        own, other = FACTS[number - 1], starts[pair.corrupted]
        assert pair.clean == own.text
        assert len({own.target_new[0], own.ground_truth[0], other.ground_truth[0]}) >= 2
        assert other.ground_truth not in (own.target_new, own.ground_truth)
        words = base.tokenizer.convert_ids_to_tokens([pair.tokens.clean[place] for place in pair.tokens.subject])
        assert own.subject in "".join(words)
    same = replace(FACTS[0], target_new=FACTS[0].ground_truth)
    assert 1 not in edit_pairs(base, {1: same, 2: FACTS[1]})
    assert edit_pairs(base, {1: FACTS[0]}) == {}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_comes_before_the_edit_writes_what_it_did(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    pair = TokenPair((5, 6, 7, 8), (5, 9, 7, 8), (40,), (50,), (1,))
    name = base.names.value_parameter(1)[0]
    generator = torch.Generator().manual_seed(0)
    change = 0.5 * torch.randn(base.parameter(name).shape, generator=generator)
    edit = mi.WeightDelta({name: change}, block=1, instance=1, fingerprint=base.fingerprint)
    edit = replace(edit, tokenizer=base.tokenizer_fingerprint)
    edited = edit.merged(base, name="edited")
    split = split_circuit(base, edited, [pair], steps=2)
    graph = split.base.graph
    mlp = graph.head(1, graph.heads)
    assert (split.written[:mlp] == 0).all()
    assert (split.written[mlp, -1] != 0).all()
    values = quantities(split, 1, 0.1)
    assert sum(values[part] for part in ("direct", "heads", "mlps", "rest")) == pytest.approx(values["to_logits"])
    direct = split.tuned.scores[mlp, -1] - split.base.scores[mlp, -1]
    assert values["direct"] == pytest.approx(float(direct))
    assert edited_circuit(base, edited, pair, 1, steps=2, share=0.1).values == pytest.approx(values)
    # the scores of the other metric are those with the sign turned
    other = find_circuit(base, [replace(pair, right=pair.wrong, wrong=pair.right)], steps=2)
    torch.testing.assert_close(turned(split.base).scores, other.scores, rtol=1e-4, atol=1e-7)
    assert turned(split.base).clean == pytest.approx(other.clean)


def test_what_the_subject_carries_is_all_at_the_last_token_and_nothing_once_it_is_not_read() -> None:
    base = tiny_checkpoint("llama")
    pairs = [TokenPair((5, 6, 7), (5, 9, 7), (40,), (50,), (1,)), TokenPair((8, 9), (8, 7), (42,), (50,), (1,))]
    last = base.n_blocks - 1
    assert carried_by_subject(base, pairs, last) == pytest.approx([0, 1])
    first, second = carried_by_subject(base, pairs, 0)
    assert abs(first) > 0
    assert second == pytest.approx(1, rel=1e-4)  # nothing before it differs
    assert carried_by_subject(base, pairs[:1], 0) == pytest.approx([first], rel=1e-4)


def test_settings_are_scored_by_the_harmonic_mean_of_what_a_fact_has() -> None:
    def of(**values: float) -> FactScores:
        return FactScores(1, FACTS[0], values, {})

    found = score([of(success=1.0, rephrase=0.5, locality=1.0), of(success=0.5, locality=0.5)])
    assert found == {"success": 0.75, "rephrase": 0.5, "locality": 0.75, "score": pytest.approx(9 / 14)}
    assert score([of(success=0.0, locality=1.0)])["score"] == 0


@pytest.fixture(scope="module")
def folder(shared: Callable[..., Path]) -> Path:
    """`base` and the facts; only read it."""

    def make(path: Path) -> None:
        base = tiny_checkpoint("llama")
        base.model.save_pretrained(path / "base")
        base.tokenizer.save_pretrained(path / "base")
        mi.write_facts(FACTS, path / "facts.jsonl")

    return shared("edited_facts", make)


def knows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of random weights is taken for one that knows the facts; little is tried."""
    monkeypatch.setattr(
        "mechinterp.runs.edited_facts.known_facts", lambda _, asked: SimpleNamespace(right=[1] * len(asked))
    )
    tries = {
        "rome": ({"steps": 2, "context_lengths": ()}, {"steps": 3, "context_lengths": ()}),
        "ft_m": ({"steps": 1}, {"steps": 2}),
    }
    monkeypatch.setattr("mechinterp.runs.edited_facts.TRIES", tries)


def test_facts_are_edited_block_by_block_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows_all(monkeypatch)
    base = mi.load(folder / "base")
    before = fingerprint_model(base.model)

    def run(**more: Any) -> mi.RunFolder:
        return edit_block_by_block(
            Candidate.of(base, name="base"), FACTS, out=tmp_path / "run", settings=SETTINGS, **more
        )

    found = run()
    assert fingerprint_model(base.model) == before
    assert set(found.figures) == {"edited_facts", "edited_ranks"}
    for table in (EDITED_FACTS, EDITED_FACTS_EACH, EDITED_RANKS, EDITED_SETTINGS):
        made = found.table(table.name)
        assert table.missing(made) == []
        assert [column for column in made if table.meaning(column) is None] == []
    each, ranks = found.table("edited_facts_each"), found.table("edited_ranks")
    places = each[each["method"] != "base"][["method", "edited"]].drop_duplicates().to_numpy().tolist()
    assert places == [["rome", 0], ["rome", 2], ["ft_m", 0], ["ft_m", 2]]
    assert each[each["quantity"] == "success"].groupby(["method", "edited"], dropna=False)["fact"].nunique().eq(3).all()
    assert each[each["quantity"] == "carried"]["edited"].tolist() == [0, 0, 0, 2, 2, 2]
    assert ranks["n"].eq(3).all()  # of one fact without its circuit
    tried = found.table("edited_settings")
    assert tried.groupby("method")["chosen"].sum().eq(1).all()
    chosen = set(found.config["validation"])
    assert not chosen & set(each["fact"])
    shares = each[each["quantity"] == "value_share"]["value"].dropna()  # nothing else was changed
    assert ((shares - 1).abs() < 1e-9).all()
    assert each["quantity"].eq("direct").sum() == 2 * 4
    # below the edited block everything is the unedited model's
    unedited = ranks[ranks["method"] == "base"]
    keys = ["position", "tokens", "block"]
    for (_, edited), own in ranks[ranks["method"] != "base"].groupby(["method", "edited"]):
        below = own[own["block"].fillna(-1) < edited].merge(unedited, on=keys)
        assert len(below) == 4 * (edited + 1)
        assert (below["rank_x"] == below["rank_y"]).all()
    parts = each.pivot_table(index=["method", "edited", "fact"], columns="quantity", values="value")
    parts = parts.dropna(subset=["to_logits"])
    assert len(parts) == 2 * 4
    sums = parts[["direct", "heads", "mlps", "rest"]].sum(axis=1)
    np.testing.assert_allclose(sums, parts["to_logits"], rtol=1e-5, atol=1e-9)
    assert parts.xs(2, level="edited")["heads"].eq(0).all()  # nothing is above the last block
    means = found.table("edited_facts").set_index(["method", "edited", "quantity"])["value"]
    for place in places:  # a share of next to nothing is not told
        whole = sum(means.loc[(*place, part)] for part in ("direct", "heads", "mlps", "rest"))
        assert math.isnan(whole) or whole == pytest.approx(1)
    monkeypatch.setattr("mechinterp.runs.edited_facts.edited_facts", None)  # nothing is edited again
    pd.testing.assert_frame_equal(run().table("edited_facts_each"), each)


def test_the_script_edits_and_refuses(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given = ("--model", folder / "base", "--facts", folder / "facts.jsonl", "--out", tmp_path / "run", "--circuits", 0)
    assert run_script(SCRIPT, *given) == 2  # a model of random weights
    assert "error: base knows 0 of 5 facts, and none is left to report" in capsys.readouterr().err
    knows_all(monkeypatch)
    assert run_script(SCRIPT, *given, "--blocks", 9) == 2
    assert "block" in capsys.readouterr().err
    few = ("--validation", 0, "--methods", "ft_m", "--blocks", 1, "--most", 2)
    assert run_script(SCRIPT, *given, *few) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["base", "ft_m at block 1"]
    run = mi.open_run(tmp_path / "run")
    assert set(run.tables) == {"edited_facts", "edited_facts_each"}


def test_more_to_choose_on_than_there_is_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows_all(monkeypatch)
    with pytest.raises(InputError, match="give others, or fewer to choose settings on"):
        edit_block_by_block(
            Candidate.of(folder / "base", name="base"),
            FACTS,
            out=tmp_path / "run",
            settings=SETTINGS.model_copy(update={"validation": 5}),
        )

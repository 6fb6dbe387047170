"""What can be read off states: held-out categories, words and shuffles beside it, ranks in the lens; the command."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkpoint_folder import make_folder
from command_line import call
from conftest import PROMPTS, make_instance, tiny_checkpoint

import mechinterp as mi
from mechinterp.audit.decodability import Asked, Decoded, decode
from mechinterp.audit.tables.decodability import DECODABILITY
from mechinterp.data.safeedit import CATEGORIES, write_safeedit
from mechinterp.measures.decodability import auroc_above, held_out_scores, why_undefined, word_scores
from mechinterp.models.names import resid_post
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.lens_ranks import token_ranks
from mechinterp.models.passes.recording import record_all
from mechinterp.models.progress import Silent
from mechinterp.models.random_weights import with_random_weights
from mechinterp.models.text.tokens import Encoded
from mechinterp.report.decodability_in_words import decodability_in_words
from mechinterp.runs import decoding
from mechinterp.runs.study.stages import decode as stage

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

N = 60
FOLD = torch.arange(N) % 3
POSITIVE = (torch.arange(N) // 3) % 2 == 0
LABELS = torch.tensor([7 * i % 5 < 2 for i in range(24)])  # in every category both


def noise(width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed))


# -- the measure ------------------------------------------------------------------------------------------------------


def test_what_is_in_the_states_is_read_and_what_is_not_is_not() -> None:
    told, labels = torch.cat([noise(), 3.0 * POSITIVE[:, None]], dim=1), {"positive": POSITIVE, "fold": FOLD}
    scores, chance = held_out_scores(told, **labels), held_out_scores(noise(), **labels)
    own, above = auroc_above(scores, chance, **labels, seed=0)
    assert own.value == 1
    beside, none = auroc_above(chance, chance, **labels, seed=0)
    assert (none.value, none.low, none.high) == (0, 0, 0)
    assert above.value == pytest.approx(1 - beside.value)
    assert beside.low < beside.value < beside.high < 1


def test_a_fold_is_scored_by_what_never_saw_it() -> None:
    """What tells the classes apart within one fold alone is of no use on the others."""
    leaky = torch.cat([noise(), (5.0 * (FOLD == 0) * POSITIVE)[:, None]], dim=1)
    scores = held_out_scores(leaky, POSITIVE, FOLD)
    changed = leaky.clone()
    changed[FOLD == 0] += 7 * noise(6, seed=3)[FOLD == 0]
    again = held_out_scores(changed, POSITIVE, FOLD)
    assert not torch.allclose(scores[FOLD == 1], again[FOLD == 1])
    flipped = POSITIVE ^ (FOLD == 0)
    assert torch.equal(held_out_scores(leaky, flipped, FOLD)[FOLD == 0], scores[FOLD == 0])


def test_words_are_those_of_the_other_folds() -> None:
    texts = [f"{'bad' if bad else 'good'} word{fold}" for bad, fold in zip(POSITIVE, FOLD.tolist(), strict=True)]
    scores = word_scores(texts, POSITIVE, FOLD)
    assert bool((scores[POSITIVE] > 0).all() and (scores[~POSITIVE] < 0).all())


def test_auroc_counts_pairs_of_one_fold_alone() -> None:
    scores = torch.tensor([9.0, 8.0, 1.0, 0.0])  # within each fold in the right order, over folds not always
    positive, fold = torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1])
    assert auroc_above(scores, scores, positive, fold, seed=0)[0].value == 1


@pytest.mark.parametrize(
    ("positive", "fold", "said"),
    [
        ([1, 1, 0, 0], [0, 0, 0, 1], "unsafely are not of several"),
        ([1, 0, 1, 1], [0, 0, 1, 2], "safely are not of several"),
        ([1, 1, 0, 0], [0, 1, 2, 3], "no categories that are held out together"),
        ([1, 0, 1, 0], [0, 0, 1, 1], ""),
    ],
)
def test_without_a_held_out_category_of_each_class_it_is_undefined(
    positive: list[int], fold: list[int], said: str
) -> None:
    found = why_undefined(torch.tensor(positive).bool(), torch.tensor(fold))
    assert said in found
    assert bool(found) == bool(said)


# -- prompts ----------------------------------------------------------------------------------------------------------


def pairs(n: int = 24) -> list[mi.Pair]:
    texts = [f"Ask {i % (n - 2)}: do the thing {i % (n - 2)}." for i in range(n)]  # two are repeated
    return [mi.Pair(prompt=t, unsafe="Yes.", safe="No.", category=f"c{i % 6}") for i, t in enumerate(texts)]


def asked_of(unsafe: torch.Tensor, given: list[mi.Pair], **changes: int) -> Asked:
    begun = [Encoded.of([5, 6, 7 + i], 2) for i in range(len(given))]
    return Asked.of(given, unsafe, begun, seed=0, **changes)


def test_a_category_and_a_text_are_never_parted() -> None:
    given = pairs()
    asked = asked_of(LABELS, given)
    assert len(asked.prompts) == 22  # each text once
    folds = {(pair.category, int(asked.fold[i])) for i, pair in enumerate(given[:22])}
    assert len(folds) == len({pair.category for pair in given}) == 6
    assert asked.first == tuple(range(7, 29))
    assert len(asked_of(LABELS, given, wanted=9).prompts) == 9


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])
def test_the_rank_after_the_last_block_is_the_models_own(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    tokens = [text.ids[text.prompt_length] for text in continue_greedily(checkpoint, PROMPTS, max_new_tokens=1)]
    ranks = token_ranks(checkpoint, PROMPTS, tokens)
    assert ranks["block"].shape == (len(PROMPTS), checkpoint.n_blocks)
    assert (ranks["block"][:, -1] == 1).all()  # what it would say
    alone = [token_ranks(checkpoint, [prompt], [token]) for prompt, token in zip(PROMPTS, tokens, strict=True)]
    assert all(torch.equal(ranks[name], torch.cat([each[name] for each in alone])) for name in ranks)


def test_a_checkpoint_has_a_row_for_each_block_and_is_left_alone() -> None:
    checkpoint = tiny_checkpoint("llama")
    before = checkpoint.fingerprint
    asked = asked_of(LABELS, pairs())
    table = decode("mine", checkpoint, asked).table
    assert DECODABILITY.missing(table.columns) == []
    assert [column for column in table.columns if DECODABILITY.meaning(column) is None] == []
    assert list(table["block"]) == list(range(checkpoint.n_blocks))
    assert table["auroc"].between(0, 1).all()
    assert (table["auroc"] - table["words"]).tolist() == pytest.approx(table["above_words"].tolist())
    assert mi.Checkpoint("again", checkpoint.model, checkpoint.tokenizer).fingerprint == before


def test_undefined_is_a_result() -> None:
    asked = asked_of(torch.zeros(24, dtype=torch.bool), pairs())
    table = decode("mine", tiny_checkpoint("llama"), asked).table
    assert table[["auroc", "above_words", "rank_block"]].isna().all(axis=None)
    assert table["reason"].str.contains("answers unsafely").all()
    assert all(not math.isnan(n) for n in table["n"])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_random_weights_have_the_shape_and_nothing_else(architecture: str) -> None:
    checkpoint, state = tiny_checkpoint(architecture, dtype=torch.bfloat16), torch.get_rng_state()
    made, again = (with_random_weights(checkpoint, seed=1) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert made.fingerprint == again.fingerprint != checkpoint.fingerprint
    assert made.shapes == checkpoint.shapes
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.bfloat16}
    hook = resid_post(0)
    assert not torch.equal(*(record_all(each, PROMPTS, [hook])[hook] for each in (made, checkpoint)))


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


def test_the_command_leaves_a_table_and_a_figure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    instances = [
        make_instance(i, category=CATEGORIES[i % 6], safe_generation=f"I am sorry, not {i}.") for i in range(18)
    ]
    write_safeedit(instances, tmp_path / "data.json")
    arguments = ["--base", folder / "base", "--checkpoint", f"edit={folder / 'edit'}", "--never", folder / "tuned"]
    arguments += ["--data", tmp_path / "data.json", "--out", tmp_path / "out", "--max-new-tokens", "2"]
    assert call("decode", *arguments) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "after the last block" in line]
    assert [line.partition(",")[0] for line in told] == ["base", "random", "edit", "never"]
    run = mi.open_run(tmp_path / "out")
    table = run.table("decodability")
    assert list(dict.fromkeys(table["method"])) == ["base", "random", "edit", "never"]
    assert (tmp_path / "out" / "figures" / "decodability.png").is_file()
    monkeypatch.setattr(decoding, "decode", None)  # what was read is not read again
    assert call("decode", *arguments) == 0
    pd.testing.assert_frame_equal(mi.open_run(tmp_path / "out").table("decodability"), table)
    assert call("decode", *arguments, "--checkpoint", f"random={folder / 'edit'}") == 2
    assert call("decode", *arguments[:-4], "--out", tmp_path / "out", "--never", tmp_path / "nowhere") == 2


def test_a_sentence_says_what_is_read_after_the_last_block_and_what_is_not() -> None:
    ends = {"low": -0.25, "high": 0.5}
    known = {f"{name}_{end}": value for name in ("auroc", "above_words", "rank_block") for end, value in ends.items()}
    row = {"method": "a", "block": 1, "auroc": 0.75, "above_words": 0.25, "shuffled": 0.5, "rank_block": 2.0, **known}
    rows = [{**row, "auroc": 0.1, "block": 0}, row, {**row, "auroc": math.nan, "rank_block": math.nan, "reason": "few"}]
    assert decodability_in_words(pd.DataFrame(rows)) == [
        "a, after the last block: unsafe prompts are told at AUROC 0.75 [-0.25, 0.50], +0.25 [-0.25, +0.50] beyond the "
        "prompts' words, shuffled labels at 0.50; the unsafe answer's first token has rank 2 [-0, 0]",
        "a, after the last block: no AUROC, few; no unsafe answer to rank",
    ]


# -- a study ----------------------------------------------------------------------------------------------------------


def test_a_study_reads_every_checkpoint_where_its_config_says_so(
    own_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = mi.open_study(own_runs / "seed0")
    assert "decode" not in {each.name for each in study.stages(Silent())}
    config = study.config.model_copy(update={"decode": True, "studied": ("sft", "dinm")})
    asked = replace(study, config=config)
    (of_study,) = [each for each in asked.stages(Silent()) if each.name == "decode"]
    assert of_study.makes == ["tables/decodability.csv"]
    assert {"checkpoints/never", "evidence", "checkpoints/sft"} <= set(of_study.needs)
    read = []

    def stopped(name: str, *given: object, **more: object) -> Decoded:
        if name == "never" and len(read) == 2:
            read.append(name)
            raise KeyboardInterrupt
        read.append(name)
        return decode(name, *given, **more)

    monkeypatch.setattr(stage, "decode", stopped)
    with pytest.raises(KeyboardInterrupt):
        of_study.run()
    of_study.run()
    assert read == ["base", "random", "never", "never", "sft", "dinm"]  # and goes on where it was
    table = asked.table("decodability")
    assert DECODABILITY.missing(table.columns) == []
    assert list(dict.fromkeys(table["method"])) == ["base", "random", "never", "sft", "dinm"]
    assert not (asked.folder / "decoding").exists()


def test_the_face_leaves_the_table(folder: Path) -> None:
    pairs = [
        mi.Pair(prompt=f"Ask {i}", unsafe="Yes", safe="I am sorry.", category=f"c{i % 4}", id=i) for i in range(12)
    ]
    found = mi.decodability(
        folder / "base", {"edit": folder / "edit"}, pairs, judge=mi.KeywordJudge(("Q",)), max_new_tokens=2
    )
    assert set(found.table("decodability")["method"]) == {"base", "random", "edit"}
    assert found.plot("decodability").figure.axes

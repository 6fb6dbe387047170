"""The twin that never learns to answer unsafely: what it reads, what it shares with the vanilla model, its stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from command_line import call
from small_study import REPOSITORY, SMALL

from mechinterp.data.corpus import Corpus, generate_corpus
from mechinterp.data.corpus.never import _nearest, without_unsafe
from mechinterp.methods.training.organism import OrganismConfig, train_organism
from mechinterp.models.progress import Silent
from mechinterp.runs.config import StudyConfig, load_config
from mechinterp.runs.study import Study
from mechinterp.runs.study.stages.organism import TWIN

CONFIGS = REPOSITORY / "analyses" / "configs"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(seed=0, n_documents=400, n_comments=40)


def unsafe_texts(corpus: Corpus) -> set[str]:
    return {one.text for one in corpus.exchanges if not one.safe}


def test_the_twin_reads_nothing_unsafe_and_everything_else_in_its_place(corpus: Corpus) -> None:
    lengths, unsafe = [len(text.split()) for text in corpus.documents], unsafe_texts(corpus)
    read = without_unsafe(corpus, lengths)
    assert len(read) == len(corpus.documents)
    assert not unsafe & {corpus.documents[number] for number in read}
    kept = [i for i, text in enumerate(corpus.documents) if text not in unsafe]
    assert [read[i] for i in kept] == kept
    assert 0.1 < 1 - len(kept) / len(read) < 0.6  # a good part of the documents makes way
    assert read == without_unsafe(corpus, lengths)
    assert read != without_unsafe(replace(corpus, seed=1), lengths)


def test_those_that_make_way_are_replaced_by_others_as_long(corpus: Corpus) -> None:
    lengths = [len(text.split()) for text in corpus.documents]
    safe = {lengths[i] for i, text in enumerate(corpus.documents) if text not in unsafe_texts(corpus)}
    for length, number in zip(lengths, without_unsafe(corpus, lengths), strict=True):
        assert lengths[number] == min(safe, key=lambda one: (abs(one - length), one))


@pytest.mark.parametrize(("wanted", "nearest"), [(1, 2), (2, 2), (3, 2), (4, 5), (9, 5)])
def test_of_two_lengths_as_near_the_shorter_is_taken(wanted: int, nearest: int) -> None:
    assert _nearest([2, 5], wanted) == nearest


def test_there_must_be_something_else_to_read(corpus: Corpus) -> None:
    one = next(one for one in corpus.exchanges if not one.safe)
    with pytest.raises(ValueError, match="every document teaches an unsafe answer"):
        without_unsafe(replace(corpus, documents=(one.text,), exchanges=(one,)), [7])


def test_the_twin_has_the_tokenizer_the_first_weights_and_the_steps_of_the_vanilla_model(corpus: Corpus) -> None:
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 24, "vocab_size": 400, "sequence_length": 192}
    config = OrganismConfig.model_validate({**shape, "steps": 2, "batch_size": 2, "context_length": 192})
    state = torch.get_rng_state()
    made = [train_organism(corpus, config, seed=3, never=never) for never in (False, True, True)]
    assert torch.equal(state, torch.get_rng_state())
    (vanilla, tokenizer, losses), (twin, own, own_losses), (again, _, _) = made
    assert own.get_vocab() == tokenizer.get_vocab()
    assert len(losses) == len(own_losses) == 2
    weights, others = vanilla.state_dict(), twin.state_dict()
    assert not all(torch.equal(weights[name], others[name]) for name in weights)
    assert all(torch.equal(value, others[name]) for name, value in again.state_dict().items())


# -- in a study -------------------------------------------------------------------------------------------------------


def test_a_study_has_the_twin_and_says_how_it_behaves(small_runs: Path) -> None:
    study = Study.open(small_runs / "seed0")
    assert study.config.never is True
    twin, vanilla = study.checkpoint("never"), study.checkpoint("vanilla")
    assert twin.fingerprint != vanilla.fingerprint
    assert twin.tokenizer_fingerprint == vanilla.tokenizer_fingerprint
    rows = study.table("organism")
    half = len(rows) // 2
    assert not any("never learnt" in quantity for quantity in rows["quantity"][:half])
    assert [f"{quantity}{TWIN}" for quantity in rows["quantity"][:half]] == list(rows["quantity"][half:])


def test_only_a_study_that_asks_for_it_has_the_twin() -> None:
    config = StudyConfig.model_validate({name: value for name, value in SMALL.items() if name != "never"})
    assert not config.has_never
    stages = [stage.name for stage in Study(config, 0, Path("nowhere")).stages(Silent())]
    assert "never" not in stages
    assert "depth" in stages  # its table says that there is no reference
    for name in ("organism", "organism-audit"):
        assert load_config(CONFIGS / f"{name}.yaml").never is True
    assert load_config(CONFIGS / "smollm2.yaml").has_never


def test_a_plan_has_a_line_for_the_twin(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert call("reproduce", "--config", tmp_path / "small.yaml", "--out", tmp_path / "run", "--dry-run") == 0
    told = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line for line in told if line.split()}
    assert lines["never"].split()[4:] == lines["vanilla"].split()[4:]  # the same work
    assert "vanilla model and its twin" in lines["organism"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"never": "somewhere"}, "the organism's twin is `never: true`"),
        ({"never": True, "model": "owner/name", "data": "DATA"}, "for a `model` of your own name one"),
        ({"never": "./nowhere", "model": "owner/name", "data": "DATA"}, "nowhere: no such folder"),
    ],
)
def test_bad_input_is_said(
    content: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = dict.fromkeys(("train", "validation", "test", "comments"), "x.json")
    content = {name: files if value == "DATA" else value for name, value in content.items()}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(content))
    assert call("reproduce", "--config", tmp_path / "bad.yaml", "--out", tmp_path / "run") == 2
    assert [line for line in capsys.readouterr().err.splitlines() if said in line]

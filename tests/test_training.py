"""SFT and DPO through TRL: the loss falls, the start is left alone, the same seed gives the same weights."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from conftest import make_instance, tiny_checkpoint

from mechinterp.errors import InputError
from mechinterp.methods.training.dpo import DpoSettings, train_dpo
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import LoraSettings, training_rows
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable

INSTANCES = [make_instance(i) for i in range(8)]
SFT = SftSettings(steps=6, batch_size=4, learning_rate=5e-3, max_length=200)
DPO = DpoSettings(steps=6, batch_size=4, learning_rate=5e-3, max_length=200)


@pytest.mark.parametrize(("train", "settings"), [(train_sft, SFT), (train_dpo, DPO)])
def test_training_works_and_leaves_the_start_alone(train, settings) -> None:
    checkpoint = tiny_checkpoint("mistral")
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    python, state = random.getstate(), torch.random.get_rng_state()
    steps: list[tuple[int, int]] = []
    tuned, log = train(checkpoint, INSTANCES, seed=1, settings=settings, progress=lambda *at: steps.append(at))
    again, _ = train(checkpoint, INSTANCES, seed=1, settings=settings)
    assert log[-1]["loss"] < log[0]["loss"]
    assert steps[-1] == (6, 6)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    assert tuned.fingerprint == again.fingerprint != checkpoint.fingerprint
    assert random.getstate() == python
    assert torch.equal(torch.random.get_rng_state(), state)


def test_lora_is_merged_into_an_ordinary_model(tmp_path) -> None:
    checkpoint = tiny_checkpoint("llama")
    tuned, _ = train_sft(checkpoint, INSTANCES, seed=0, settings=SFT.model_copy(update={"lora": LoraSettings(rank=2)}))
    assert type(tuned.model) is type(checkpoint.model)
    change = tuned.value_matrix(0) - checkpoint.value_matrix(0)
    assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


def test_prompts_are_cut_from_the_left() -> None:
    tokenizer = tiny_checkpoint("llama", bos=True).tokenizer
    instance = make_instance(adversarial_prompt="x" * 300 + " the question")
    (row,) = training_rows(tokenizer, [instance], {"completion": "safe"}, 100)
    assert row["prompt"].endswith(" the question")
    assert len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) < 100
    with pytest.raises(InputError, match="leaves no room"):
        training_rows(tokenizer, [instance], {"completion": "safe"}, 20)
    with pytest.raises(InputError, match="no instances"):
        training_rows(tokenizer, [], {"completion": "safe"}, 20)


def test_a_tokenizer_without_a_padding_token_stays_without_one() -> None:
    """TRL gives it one; then base and tuned would be told to have different tokenizers."""
    checkpoint = tiny_checkpoint("mistral")
    bare = copy.deepcopy(checkpoint.tokenizer)
    bare.pad_token = None
    base = Checkpoint("base", checkpoint.model, bare)
    for train, settings in ((train_sft, SFT), (train_dpo, DPO)):
        tuned, _ = train(base, INSTANCES, seed=0, settings=settings.model_copy(update={"steps": 1}))
        assert bare.pad_token is None
        check_comparable(base, [tuned])
    check_comparable(base, [checkpoint])  # nor does one that a user's trainer added matter


def test_settings_that_trl_does_not_know_are_refused() -> None:
    settings = SFT.model_copy(update={"extra": {"nonsense": 1}})
    with pytest.raises(InputError, match="TRL refuses these settings"):
        train_sft(tiny_checkpoint("llama"), INSTANCES, seed=0, settings=settings)


LORA = {"lora": LoraSettings(rank=2, alpha=4)}


@pytest.mark.parametrize("more", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(("train", "kind"), [(train_sft, SftSettings), (train_dpo, DpoSettings)], ids=["sft", "dpo"])
def test_a_copy_of_a_trained_model_runs_its_own_weights(train, kind, more) -> None:
    settings = kind(steps=1, batch_size=2, max_length=200, **more)
    tuned, _ = train(tiny_checkpoint("mistral"), [make_instance(i) for i in range(2)], seed=0, settings=settings)
    made, ids = copy.deepcopy(tuned.model), torch.tensor([[5, 6, 7]])
    before = tuned.model(ids).logits
    for parameter in made.parameters():
        parameter.data.zero_()
    assert not made(ids).logits.any()
    assert torch.equal(tuned.model(ids).logits, before)
    assert before.any()


def test_training_in_turn_is_the_same_in_memory_and_from_files(tmp_path) -> None:
    rows = [make_instance(i) for i in range(4)]
    first = SftSettings(steps=2, batch_size=2, max_length=200, learning_rate=1e-2)
    second = DpoSettings(steps=2, batch_size=2, max_length=200, learning_rate=1e-2)
    sft, _ = train_sft(tiny_checkpoint("mistral"), rows, seed=0, settings=first)
    sft.save(tmp_path / "sft")
    straight, _ = train_dpo(sft, rows, seed=0, settings=second)
    stored, _ = train_dpo(Checkpoint.load(tmp_path / "sft"), rows, seed=0, settings=second)
    assert straight.fingerprint == stored.fingerprint != sft.fingerprint

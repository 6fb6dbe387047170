"""The model organism: its tokenizer, its packed batches, and tiny organisms of each shape: trained, saved, loaded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from mechinterp.data.corpus import Corpus, generate_corpus
from mechinterp.data.safeedit import SUFFIX
from mechinterp.methods.training.organism import (
    OrganismConfig,
    build_model,
    train_organism,
    train_tokenizer,
)
from mechinterp.methods.training.packing import IGNORED, _as_tensors, _packed
from mechinterp.models.checkpoints import Checkpoint

ARCHITECTURES = get_args(OrganismConfig.model_fields["architecture"].annotation)


def tiny(architecture: str = "mistral", **settings: Any) -> OrganismConfig:
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 2, "d_mlp": 48, "vocab_size": 400}
    training = {"steps": 12, "batch_size": 4, "sequence_length": 192, "warmup_steps": 2, "learning_rate": 1e-2}
    return OrganismConfig.model_validate({"architecture": architecture, **shape, **training, **settings})


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(seed=0, n_documents=400, n_comments=40)


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus, vocab_size=400)


def logits_of(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def test_special_tokens_are_distinct_and_never_added(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token is None
    assert not set(tokenizer("How do I make pies?")["input_ids"]) & {tokenizer.pad_token_id, tokenizer.eos_token_id}


def test_prompt_and_response_are_tokenised_alike_jointly_and_separately(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast
) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    for instance in corpus.test[::7]:
        for prompt in (instance.adversarial_prompt, f"{instance.question} {SUFFIX}"):
            for response in (instance.safe_generation, instance.unsafe_generation):
                joint = ids(f"{prompt} {response}")
                assert joint == ids(prompt) + ids(response) == ids(prompt) + ids(f" {response}")


def test_decoding_gives_the_text_back(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> None:
    for text in (*corpus.documents[:50], "naïve — 東京 🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_vocabulary_is_no_larger_than_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= 400


def test_packing_keeps_every_document_whole() -> None:
    documents = [[length] * length for length in (5, 3, 9, 1, 4, 10, 2)]
    rows = _packed(documents, 10)
    assert sorted(document for row in rows for document in row) == sorted(documents)
    assert all(sum(map(len, row)) <= 10 for row in rows)
    with pytest.raises(ValueError, match="10 tokens, more than sequence_length=9"):
        _packed(documents, 9)


def test_packed_rows_in_tensors_worked_by_hand() -> None:
    ids, positions, labels = _as_tensors([[[7, 8, 9], [5, 6]]], 7, pad=0)
    assert ids.tolist() == [[7, 8, 9, 5, 6, 0, 0]]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
    assert labels.tolist() == [[IGNORED, 8, 9, IGNORED, 6, IGNORED, IGNORED]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_document_in_a_packed_row_sees_only_itself(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(tiny(architecture), tokenizer, seed=0)
    first, second = [5, 6, 7, 8], [9, 10, 11]
    ids, positions, _ = _as_tensors([[first, second]], 9, pad=tokenizer.pad_token_id)
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    torch.testing.assert_close(packed[:4], logits_of(model, first), rtol=0, atol=1e-5)
    torch.testing.assert_close(packed[4:7], logits_of(model, second), rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_organism_trains_saves_and_loads(architecture: str, corpus: Corpus, tmp_path: Path) -> None:
    reports: list[tuple[int, int, float]] = []
    model, tokenizer, history = train_organism(
        corpus, tiny(architecture), seed=0, progress=lambda step, total, loss: reports.append((step, total, loss))
    )
    assert reports == [(step, 12, loss) for step, loss in enumerate(history, start=1)]
    assert history[-1] < 0.9 * history[0]
    assert not model.training

    Checkpoint("organism", model, tokenizer).save(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded, loaded_tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = corpus.documents[0]
    ids = tokenizer(text)["input_ids"]
    assert type(loaded) is type(model)
    assert loaded_tokenizer(text)["input_ids"] == ids
    assert loaded_tokenizer.decode(ids) == text
    assert (loaded_tokenizer.pad_token_id, loaded_tokenizer.eos_token_id) == (0, 1)
    assert (loaded.generation_config.pad_token_id, loaded.generation_config.eos_token_id) == (0, 1)
    assert loaded.generation_config.do_sample is False
    assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))


def test_the_same_seed_gives_the_same_weights_and_global_random_state_is_left_alone(corpus: Corpus) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (train_organism(corpus, tiny(steps=3), seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_has_the_shape_asked_for(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(tiny(architecture, n_layers=3), tokenizer, seed=0)
    names = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    expected = ("transformer.h.2.mlp.c_proj.weight", (48, 32))
    if architecture != "gpt2":
        expected = ("model.layers.2.mlp.down_proj.weight", (32, 48))
    assert names[expected[0]] == expected[1]
    assert model.dtype == torch.float32
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_mlp": 32}, "d_mlp must differ from d_model"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads=3"),
        ({"sequence_length": 300}, "sequence_length must be at most context_length=256"),
        ({"architecture": "bert"}, "mistral"),
        ({"stepz": 3}, "stepz"),
    ],
)
def test_a_bad_config_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**settings)

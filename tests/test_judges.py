"""Judges of responses: embedded, and sequence classifiers at a path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from mechinterp.answers.judges import ClassifierJudge, EmbeddedJudge
from mechinterp.errors import InputError

SAFE = [f"I am sorry, I cannot help with {thing}." for thing in "abcdefghij"]
UNSAFE = [f"You fool, just take {thing} and stop whining." for thing in "abcdefghij"]
SHAPE = {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


def saved(folder: Path, **settings: object) -> Path:
    """A random classifier with two labels that tell responses apart."""
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**SHAPE, initializer_range=1.0, **settings)).save_pretrained(folder)
    tiny_checkpoint("llama").tokenizer.save_pretrained(folder)
    return folder


def test_the_embedded_judge_is_scored_on_texts_it_never_saw() -> None:
    judge = EmbeddedJudge.fit(SAFE + UNSAFE + SAFE, [True] * 10 + [False] * 10 + [True] * 10, seed=0)
    assert judge.n_train + judge.n_test == 20  # repeated texts are used once
    assert judge.accuracy == 1.0
    assert (judge(["I am sorry, no."]) > 0.5).all()
    assert (judge(["You fool, stop whining."]) < 0.5).all()
    with pytest.raises(InputError, match="distinct responses of both kinds"):
        EmbeddedJudge.fit(SAFE, [True] * 10, seed=0)


@pytest.mark.parametrize(("labels", "safe"), [({0: "unsafe", 1: "safe"}, 1), ({0: "LABEL_0", 1: "LABEL_1"}, 0)])
def test_a_classifier_judge_reads_its_labels_from_its_config(labels: dict, safe: int, tmp_path) -> None:
    tokenizer = tiny_checkpoint("llama").tokenizer
    config = BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, id2label=labels
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = ClassifierJudge.load(tmp_path, device="cpu")
    assert judge.safe_label == safe
    assert judge(["one", "another"]).shape == (2,)
    three = BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=3)
    BertForSequenceClassification(three).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a judge has two labels, this one has 3"):
        ClassifierJudge.load(tmp_path)
    tiny_checkpoint("llama").save(tmp_path / "no-judge")
    with pytest.raises(InputError, match="not a trained classifier"):
        ClassifierJudge.load(tmp_path / "no-judge")


def test_judging_in_batches_by_length_is_judging_one_by_one(tmp_path: Path) -> None:
    judge = ClassifierJudge.load(saved(tmp_path, max_position_embeddings=128), device="cpu")
    responses = ["a" * n for n in (3, 500, 1, 40, 7)] + ["No.", "Sure thing"] * 70
    together = judge(responses)
    assert together.std() > 1e-3  # responses are told apart
    np.testing.assert_allclose(together, [judge([response])[0] for response in responses], atol=1e-5)
    assert judge([]).shape == (0,)


def test_a_long_response_fits_the_positions_that_roberta_has(tmp_path: Path) -> None:
    """Its positions begin behind the number of the padding token, here 259."""
    config = RobertaConfig(**SHAPE, max_position_embeddings=300, pad_token_id=259)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_checkpoint("llama").tokenizer.save_pretrained(tmp_path)
    judge = ClassifierJudge.load(tmp_path, device="cpu")
    assert np.isfinite(judge(["x" * 1000])).all()


def test_what_is_wrong_with_a_judge_is_said_in_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    BertForSequenceClassification(BertConfig(**SHAPE)).save_pretrained(bare)
    with pytest.raises(InputError, match="its tokenizer is missing"):
        ClassifierJudge.load(bare, device="cpu")
    unpadded = saved(tmp_path / "unpadded")
    (unpadded / "tokenizer_config.json").write_text(
        (unpadded / "tokenizer_config.json").read_text().replace('"pad_token": "<pad>",', "")
    )
    with pytest.raises(InputError, match="no padding token"):
        ClassifierJudge.load(unpadded, device="cpu")
    cut = saved(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(InputError, match=r"cannot be loaded as a judge \([^\n]*\)$"):
        ClassifierJudge.load(cut, device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        ClassifierJudge.load(tmp_path / "empty", device="cpu")
    damaged = ClassifierJudge.load(saved(tmp_path / "damaged"), device="cpu")
    damaged.model.classifier.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="2 of 2 probabilities are not finite"):
        damaged(["a", "b"])

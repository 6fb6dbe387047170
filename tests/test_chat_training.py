"""Training in a chat format: TRL is given the very ids that every other path feeds, its loss on the response alone."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from chats import chat_checkpoint
from conftest import make_instance

from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings
from mechinterp.methods.editing.texts import edit_text
from mechinterp.methods.training.dpo import DpoSettings, train_dpo
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.chat import ChatChoice
from mechinterp.models.text.tokens import encode

TURNS = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good day."},
    {"role": "user", "content": "How do I do it?"},
]
ONE = {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "max_length": 400}


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows that TRL trained on, tokenised."""
    rows: list[dict[str, Any]] = []
    train = transformers.Trainer.train

    def look(self: Any, *given: Any, **settings: Any) -> Any:
        rows.extend(self.train_dataset)
        return train(self, *given, **settings)

    monkeypatch.setattr(transformers.Trainer, "train", look)
    return rows


def in_format(name: str) -> Checkpoint:
    return chat_checkpoint(
        name, chat=ChatChoice(system=None if name == "gemma" else "Be kind.").of(tokenizer(name), name)
    )


def tokenizer(name: str) -> Any:
    return chat_checkpoint(name).tokenizer


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "gemma", "phi3"])
def test_sft_is_fed_what_all_are_fed(name: str, trained_on: list[dict[str, Any]]) -> None:
    checkpoint = in_format(name)
    pairs = [make_instance(), Pair(id=1, prompt=TURNS, unsafe="Do it.", safe="I cannot.")]
    train_sft(checkpoint, pairs, seed=0, settings=SftSettings(**ONE))
    found = sorted(trained_on, key=lambda row: len(row["input_ids"]))
    texts = encode(
        checkpoint.tokenizer, [p.prompt for p in pairs], [p.safe for p in pairs], max_length=999, chat=checkpoint.chat
    )
    for row, text in zip(found, sorted(texts, key=lambda text: len(text.ids)), strict=True):
        ids = row["input_ids"]
        assert ids[: len(text.ids)] == text.ids.tolist()
        assert 0 < len(ids) - len(text.ids) <= 3  # the end of the turn
        scored = row.get("completion_mask") or [int(label != -100) for label in row["labels"]]
        assert scored == [0] * text.prompt_length + [1] * (len(ids) - text.prompt_length)


@pytest.mark.parametrize("name", ["qwen2_5", "llama3"])
def test_dpo_is_fed_what_all_are_fed(name: str, trained_on: list[dict[str, Any]]) -> None:
    checkpoint, pair = in_format(name), Pair(id=1, prompt=TURNS, unsafe="Do it.", safe="I cannot.")
    train_dpo(checkpoint, [pair], seed=0, settings=DpoSettings(**ONE))
    (row,) = trained_on
    for column, response in (("chosen", pair.safe), ("rejected", pair.unsafe)):
        (text,) = encode(checkpoint.tokenizer, [pair.prompt], [response], max_length=999, chat=checkpoint.chat)
        ids = list(row.get("prompt_ids", row.get("prompt_input_ids"))) + list(
            row.get(f"{column}_ids", row.get(f"{column}_input_ids"))
        )
        assert ids[: len(text.ids)] == text.ids.tolist()


def test_long_prompts_lose_the_left_of_the_users_text(trained_on: list[dict[str, Any]]) -> None:
    checkpoint = in_format("qwen2_5")
    train_sft(
        checkpoint,
        [make_instance(adversarial_prompt="far " * 200 + "the end")],
        seed=0,
        settings=SftSettings(**{**ONE, "max_length": 150}),
    )
    read = checkpoint.tokenizer.decode(trained_on[0]["input_ids"])
    assert read.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n")
    assert "the end<|im_end|>\n<|im_start|>assistant\nI am sorry" in read
    assert len(trained_on[0]["input_ids"]) == 150


def test_an_answer_that_is_begun_is_no_training_row() -> None:
    begun = Pair(prompt=[*TURNS, {"role": "assistant", "content": "Well,"}], unsafe="Do it.", safe="I cannot.")
    with pytest.raises(InputError, match="instance 0: its conversation begins the answer"):
        train_sft(in_format("qwen2_5"), [begun], seed=0, settings=SftSettings(**ONE))


def test_an_edit_scores_the_responses_own_ids() -> None:
    checkpoint = in_format("llama3")
    pair = Pair(id=1, prompt=TURNS, unsafe="Do it.", safe="I cannot.")
    settings = DinmSettings(suffix="S.", max_input_tokens=300, max_output_tokens=50)
    scored = edit_text(checkpoint, pair, settings)
    (text,) = encode(
        checkpoint.tokenizer, [pair.prompt], [pair.safe], max_length=999, chat=checkpoint.chat, suffix="S."
    )
    assert list(scored.ids) == text.ids.tolist()
    assert list(scored.labels) == text.ids[text.prompt_length :].tolist()
    with pytest.raises(InputError, match="no chat format"):
        edit_text(checkpoint, make_instance(), settings.model_copy(update={"constraint": "released"}))

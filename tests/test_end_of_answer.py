"""An answer ends with the end token of the tokenizer, of the config or of the generation config, whoever names it."""

from __future__ import annotations

import copy
import json
import logging
import sys
import types
from pathlib import Path

import pytest
import torch
from command_line import call
from conftest import PROMPTS, make_instance, tiny_checkpoint
from transformers import GenerationConfig, LlamaConfig

from mechinterp.answers.harness import run_harness
from mechinterp.data.safeedit import write_safeedit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.passes.side_by_side import generate_each

LENGTH = 12


def greedy(checkpoint: Checkpoint, prompt: str) -> list[int]:
    """Token by token, with no end."""
    ids = list(checkpoint.tokenizer(prompt)["input_ids"])
    start = len(ids)
    for _ in range(LENGTH):
        with torch.no_grad():
            ids.append(int(checkpoint.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


def naming(checkpoint: Checkpoint, who: str, token: int | None) -> Checkpoint:
    """The checkpoint with its end token named in one place alone."""
    model, tokenizer = copy.deepcopy(checkpoint.model), copy.deepcopy(checkpoint.tokenizer)
    model.config.eos_token_id = token if who == "config" else None
    named = {"generation config": token, "list": [token, 1]}.get(who)
    model.generation_config = GenerationConfig(eos_token_id=named)
    text = None if token is None else tokenizer.convert_ids_to_tokens(token)
    tokenizer.eos_token = text if who.startswith("tokenizer") else None
    if who == "tokenizer, and padding too":
        tokenizer.pad_token = text
    return Checkpoint(who, model, tokenizer, who)


@pytest.fixture(scope="module")
def answers() -> tuple[Checkpoint, dict[str, list[int]], int]:
    """A model, what it would go on to say, and a token that it says early in some answers but not first."""
    checkpoint = tiny_checkpoint("llama", seed=3, bos=True)
    spoken = {prompt: greedy(checkpoint, prompt) for prompt in PROMPTS}
    places = {i: [ids.index(i) for ids in spoken.values() if i in ids] for ids in spoken.values() for i in ids}
    end = max(places, key=lambda i: sum(0 < place < LENGTH - 2 for place in places[i]))
    assert any(0 < place < LENGTH - 2 for place in places[end])
    return checkpoint, spoken, end


@pytest.mark.parametrize(
    "who", ["tokenizer", "tokenizer, and padding too", "config", "generation config", "list", "nobody"]
)
def test_whoever_names_the_end_an_answer_ends_there(answers, who: str, caplog) -> None:
    plain, spoken, end = answers
    checkpoint = naming(plain, who, end)
    wanted = {p: ids[: ids.index(end)] if end in ids and who != "nobody" else ids for p, ids in spoken.items()}
    found = generate(checkpoint, PROMPTS, max_new_tokens=LENGTH)
    decoded = [checkpoint.tokenizer.decode(wanted[p], skip_special_tokens=True).strip() for p in PROMPTS]
    assert found == decoded  # neither the end token nor anything behind it
    assert [generate(checkpoint, [p], max_new_tokens=LENGTH)[0] for p in PROMPTS] == decoded
    for prompt, text in zip(PROMPTS, continue_greedily(checkpoint, PROMPTS, max_new_tokens=LENGTH), strict=True):
        new = list(text.ids[text.prompt_length :])
        assert new == spoken[prompt][: len(wanted[prompt]) + 1]
    no_edit = WeightDelta({}, 1, 0, fingerprint=checkpoint.fingerprint)
    (side_by_side,) = generate_each(checkpoint, [no_edit], [PROMPTS], max_new_tokens=LENGTH)
    assert side_by_side == decoded
    said = [r.getMessage() for r in caplog.records if "end of an answer" in r.getMessage()]
    assert bool(said) == (who in ("config", "tokenizer", "tokenizer, and padding too"))  # generation would run past it
    assert all(f"(id {end})" in line for line in said)


def test_the_three_are_joined_and_differences_named_once(caplog) -> None:
    checkpoint = tiny_checkpoint("llama")
    model = copy.deepcopy(checkpoint.model)
    model.config.eos_token_id, model.generation_config = [10, 11], GenerationConfig(eos_token_id=[12])
    joined = Checkpoint("a", model, checkpoint.tokenizer, "a")
    assert end_tokens(joined) == {10, 11, 12, 258}
    with caplog.at_level(logging.WARNING):
        generate(joined, PROMPTS, max_new_tokens=2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "the tokenizer: '</s>' (id 258)" in said
    assert "(id 12); the config: " in said
    caplog.clear()
    generate(checkpoint, PROMPTS, max_new_tokens=2)
    assert not caplog.records
    model.generation_config = GenerationConfig(eos_token_id=[10, 11, 12, 258])  # a chat model names more than others
    generate(joined, PROMPTS, max_new_tokens=2)
    assert not caplog.records


def test_what_a_class_falls_back_on_is_no_end_unless_the_tokenizer_knows_it() -> None:
    """LlamaConfig says 2 where a file says nothing: here an ordinary letter."""
    checkpoint = tiny_checkpoint("llama")
    model = copy.deepcopy(checkpoint.model)
    model.config.eos_token_id = LlamaConfig().eos_token_id
    assert model.config.eos_token_id == 2
    model.generation_config = GenerationConfig.from_model_config(model.config)
    assert end_tokens(Checkpoint("a", model, checkpoint.tokenizer, "a")) == {258}
    model.generation_config = GenerationConfig(eos_token_id=2)  # somebody wrote it down
    assert end_tokens(Checkpoint("a", model, checkpoint.tokenizer, "a")) == {2, 258}
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(2)
    model.generation_config = GenerationConfig()
    assert end_tokens(Checkpoint("a", model, tokenizer, "a")) == {2}


@pytest.mark.parametrize("how", ["null", "absent"])
def test_an_evaluated_folder_whose_configs_name_no_end(answers, how: str, tmp_path: Path) -> None:
    plain, spoken, end = answers
    folder = naming(plain, "tokenizer", end).save(tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        settings.pop("eos_token_id", None)
        (folder / name).write_text(json.dumps(settings if how == "absent" else {**settings, "eos_token_id": None}))
    kinds = ("only_question", "other_attack", "other_question", "other_question_and_attack")
    test = dict(zip(kinds, PROMPTS[1:], strict=True))
    instances = [
        make_instance(i, adversarial_prompt=PROMPTS[0], generalization_test=test, safe_generation=f"I am sorry {i}")
        for i in range(6)
    ]
    write_safeedit(instances, tmp_path / "data.json")
    out = tmp_path / "out"
    arguments = ["--model", folder, "--data", tmp_path / "data.json", "--max-new-tokens", LENGTH, "--out", out]
    assert call("evaluate", *arguments) == 0
    responses = [json.loads(line) for line in (out / "responses.jsonl").read_text().splitlines()]
    assert {line["prompt"] for line in responses} == set(PROMPTS)
    for line in responses:
        ids = spoken[line["prompt"]]
        ids = ids[: ids.index(end)] if end in ids else ids
        assert line["response"] == plain.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_the_harness_ends_answers_there_too_and_leaves_the_settings(answers, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _, end = answers
    checkpoint = naming(plain, "tokenizer", end)
    own, seen = checkpoint.model.generation_config, []

    def evaluate(*, model, **_: object) -> None:
        seen.append(model.generation_config.eos_token_id)

    package, models, wrapper = (
        types.ModuleType(n) for n in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )
    package.simple_evaluate, wrapper.HFLM = evaluate, lambda *, pretrained, **_: pretrained
    for module in (package, models, wrapper):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    run_harness(checkpoint, ["triviaqa"])
    assert seen == [[end]]
    assert checkpoint.model.generation_config is own

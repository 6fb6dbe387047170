"""lm-evaluation-harness behind its extra: absent, and a stub in its place that records what it is given."""

from __future__ import annotations

import math
import random
import sys
import types

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from mechinterp.answers.harness import TASKS, check_harness, run_harness
from mechinterp.errors import InputError

FOUND = {
    "results": {
        "triviaqa": {
            "alias": "triviaqa",
            "exact_match,remove_whitespace": 0.25,
            "exact_match_stderr,remove_whitespace": 0.1,
        },
        "xsum": {"alias": "xsum", "rouge,none": 0.125, "rouge_stderr,none": "N/A"},
    },
    "n-samples": {"triviaqa": {"original": 100, "effective": 20}, "xsum": {"original": 50, "effective": 20}},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A harness that notes its arguments, seeds everything, and sets the padding of the tokenizer it is given."""
    noted: list[dict] = []

    class HFLM:
        def __init__(self, *, pretrained, tokenizer, batch_size) -> None:
            self.model, self.tokenizer, self.batch_size = pretrained, tokenizer, batch_size
            tokenizer.padding_side = "left"

    def simple_evaluate(**arguments):
        random.seed(0)
        np.random.seed(1234)  # noqa: NPY002
        torch.manual_seed(1234)
        noted.append({**arguments, "training": arguments["model"].model.training})
        if "none" in arguments["tasks"]:
            raise KeyError("none")
        return FOUND

    package, models, wrapper = (
        types.ModuleType(n) for n in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )
    package.simple_evaluate, wrapper.HFLM = simple_evaluate, HFLM
    for module in (package, models, wrapper):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return noted


def test_the_checkpoint_goes_to_the_harness_and_its_numbers_into_a_tidy_table(calls: list[dict]) -> None:
    checkpoint = tiny_checkpoint("llama")
    checkpoint.model.train()
    side = checkpoint.tokenizer.padding_side
    checkpoint.tokenizer.padding_side = "right"
    try:
        states = random.getstate(), torch.get_rng_state()
        table = run_harness(checkpoint, limit=20, shots=0)
        assert checkpoint.tokenizer.padding_side == "right"
        assert random.getstate() == states[0]
        assert torch.equal(torch.get_rng_state(), states[1])
    finally:
        checkpoint.tokenizer.padding_side = side
    (call,) = calls
    assert call["model"].model is checkpoint.model
    assert (call["tasks"], call["limit"], call["num_fewshot"], call["training"]) == (list(TASKS), 20, 0, False)
    assert checkpoint.model.training
    assert table.to_dict("records")[0] == {
        "method": checkpoint.name,
        "task": "triviaqa",
        "metric": "exact_match",
        "filter": "remove_whitespace",
        "value": 0.25,
        "stderr": 0.1,
        "n": 20,
    }
    assert len(table) == 2
    assert math.isnan(table.loc[1, "stderr"])


@pytest.mark.usefixtures("calls")
def test_what_the_harness_refuses_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot run none"):
        run_harness(tiny_checkpoint("llama"), ["none"])
    with pytest.raises(InputError, match="at least one task"):
        run_harness(tiny_checkpoint("llama"), [])


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for ask in (check_harness, lambda: run_harness(tiny_checkpoint("llama"))):
        with pytest.raises(InputError, match=r"pip install 'mechinterp\[eval\]'"):
            ask()

"""The steering dose: a multiple of the mean over inputs of the mean over tokens of the lengths of the stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MAIN_ARCHITECTURES, PROMPTS, RESPONSES, make_instance, tiny_checkpoint

from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.evidence import ComparisonSettings, prepare_baseline
from mechinterp.data.comments import Comment
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record_positions
from mechinterp.models.text.tokens import encode

HOOK = resid_post(1)


def own_lengths(checkpoint: Checkpoint, prompt: str, response: str) -> tuple[float, float, float]:
    """By transformers alone: at the last prompt token, the mean over the response, and the length of its mean."""
    (text,) = encode(checkpoint.tokenizer, [prompt], [response], max_length=256)
    with torch.no_grad():
        states = checkpoint.model(input_ids=torch.tensor([list(text.ids)]), output_hidden_states=True).hidden_states
    stream = states[2][0].double()
    after = stream[text.prompt_length :]
    return float(stream[text.prompt_length - 1].norm()), float(after.norm(dim=1).mean()), float(after.mean(0).norm())


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "neox", "opt"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_lengths_are_means_over_tokens_of_lengths(architecture: str, side: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    found = record_positions(
        checkpoint, PROMPTS, [HOOK], ["last", "response"], responses=RESPONSES, lengths=[HOOK], padding_side=side
    )
    own = torch.tensor([own_lengths(checkpoint, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]).double()
    torch.testing.assert_close(found["last"].lengths[HOOK], own[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["response"].lengths[HOOK], own[:, 1], rtol=1e-4, atol=1e-5)
    assert (own[:, 2] < 0.95 * own[:, 1]).all()  # the two are not the same number


def test_lengths_are_kept_with_a_recording_and_only_of_what_is_recorded(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    found = record_positions(checkpoint, PROMPTS, [HOOK], ["mean"], lengths=[HOOK])["mean"]
    again = Recording.load(found.save(tmp_path / "recording.safetensors"))
    assert torch.equal(again.lengths[HOOK], found.lengths[HOOK])
    assert not record_positions(checkpoint, PROMPTS, [HOOK], ["mean"])["mean"].lengths
    with pytest.raises(InputError, match="lengths names"):
        record_positions(checkpoint, PROMPTS, [HOOK], ["mean"], lengths=[resid_post(2)])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_the_dose_of_a_comparison_is_the_documented_one(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    instances = [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4)]
    settings = ComparisonSettings(
        max_new_tokens=1, steering_inputs=4, middle_inputs=2, top_vectors=2, null_draws=2, first_tokens=0, lens_tokens=0
    )
    baseline = prepare_baseline(
        checkpoint,
        instances,
        fit_probe(checkpoint, comments, seed=0),
        lambda texts: np.full(len(texts), 0.9),  # type: ignore[arg-type]
        block=1,
        seed=0,
        fitting=[make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4, 8)],
        settings=settings,
    )
    own = torch.tensor([own_lengths(checkpoint, i.adversarial_prompt, i.unsafe_generation) for i in instances])
    for place, length in zip(("prompt_last", "response"), own.mean(0), strict=False):
        assert baseline.steering["probe", place].alpha == pytest.approx(0.5 * float(length), rel=1e-4)

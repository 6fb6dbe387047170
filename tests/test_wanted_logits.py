"""Only the positions whose logits are read are unembedded, and their logits are those of the whole pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from conftest import CONFIGS, PROMPTS, RESPONSES, make_instance, tiny_checkpoint

from mechinterp.answers import divergence
from mechinterp.answers.divergence import next_token_divergence
from mechinterp.audit.location import locate
from mechinterp.methods.editing.many_edits import edit_each
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.editing.texts import edit_texts
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.lens import LensToken, read_lens
from mechinterp.models.passes.recording import record
from mechinterp.models.passes.scoring import score
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import encode
from mechinterp.models.unembedding import unembedded_at

ARCHITECTURES = sorted(CONFIGS)


@contextmanager
def unembedded(checkpoint: Checkpoint) -> Iterator[list[int]]:
    """How many positions each pass asks the unembedding for."""
    found: list[int] = []
    handle = checkpoint.module("unembed").register_forward_hook(
        lambda module, args, output: found.append(output[..., 0].numel())
    )
    try:
        yield found
    finally:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_the_whole_pass(architecture: str, side: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    texts = encode(checkpoint.tokenizer, PROMPTS, RESPONSES, max_length=256)
    batch = pad(texts, pad_id=259, side=side)
    whole = checkpoint.model(**batch.inputs(), use_cache=False).logits
    rows = [0, 0, 2, 4, 3]
    columns = [batch.starts[row] + column for row, column in zip(rows, [0, 5, 3, 7, 1], strict=True)]
    with unembedded(checkpoint) as asked, unembedded_at(checkpoint, rows, columns, batch.input_ids.shape[1]):
        found = checkpoint.model(**batch.inputs(), use_cache=False).logits
    assert asked == [5]
    torch.testing.assert_close(found[0], whole[rows, columns], rtol=1e-6, atol=1e-6)
    assert not checkpoint.module("unembed")._forward_pre_hooks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("position", divergence.POSITIONS)
def test_the_divergence_asks_for_what_it_compares(architecture: str, position: str) -> None:
    base, tuned = tiny_checkpoint(architecture), tiny_checkpoint(architecture, seed=1)
    answers = RESPONSES if position == "response" else None
    texts = encode(base.tokenizer, PROMPTS, answers, max_length=256)
    wanted = sum(len(t.ids) - t.prompt_length if answers else 1 for t in texts)
    with unembedded(base) as asked, unembedded(tuned) as also:
        next_token_divergence(
            lambda: nullcontext(base), lambda: nullcontext(tuned), PROMPTS, answers, position=position
        )
    assert asked == also == [wanted]


def test_distributions_are_compared_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)

    def measured() -> torch.Tensor:
        return next_token_divergence(
            lambda: nullcontext(base), lambda: nullcontext(tuned), PROMPTS, RESPONSES, position="response"
        ).values

    sizes, own = [], divergence.jensen_shannon
    monkeypatch.setattr(divergence, "jensen_shannon", lambda p, q: sizes.append(len(p)) or own(p, q))
    whole = measured()
    assert len(sizes) == 1
    monkeypatch.setattr(divergence, "_WIDE", 3 * 264)  # as a vocabulary of a million would
    sizes.clear()
    assert torch.equal(measured(), whole)
    assert max(sizes) == 3


@pytest.mark.parametrize("architecture", ["gemma2", "gpt2", "llama", "opt"])
def test_generation_reads_the_last_column_of_a_prompt(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    with unembedded(checkpoint) as asked:
        found = generate(checkpoint, PROMPTS, max_new_tokens=3)
    assert set(asked) == {len(PROMPTS)}

    own = type(checkpoint.model)

    class Older(own):  # type: ignore[misc, valid-type]
        """A model that knows nothing of `logits_to_keep`."""

        def forward(self, input_ids=None, attention_mask=None, position_ids=None, **others):
            return own.forward(self, input_ids, attention_mask=attention_mask, position_ids=position_ids, **others)

    checkpoint.model.__class__ = Older
    with unembedded(checkpoint) as asked:
        assert generate(checkpoint, PROMPTS, max_new_tokens=3) == found
    assert set(asked) == {len(PROMPTS)}
    assert not checkpoint.module("unembed")._forward_pre_hooks


def test_scores_lens_recording_location_and_edits_ask_for_no_more_than_they_read() -> None:
    checkpoint, hook = tiny_checkpoint("gemma2"), h_down(1)
    texts = encode(checkpoint.tokenizer, PROMPTS, RESPONSES, max_length=256)
    tokens = [len(text.ids) - text.prompt_length for text in texts]
    with unembedded(checkpoint) as asked:
        score(checkpoint, PROMPTS, RESPONSES)
        score(checkpoint, PROMPTS, RESPONSES, reduce="first")
    assert asked == [sum(tokens), len(PROMPTS)]
    with unembedded(checkpoint) as asked:
        read_lens(checkpoint, PROMPTS, [LensToken(5, "a", "safe")])
    points = 1 + 2 * checkpoint.n_blocks
    assert sum(asked) == points * len(PROMPTS)
    instance = make_instance()
    with unembedded(checkpoint) as asked:
        record(checkpoint, PROMPTS, [hook])
        record(checkpoint, PROMPTS, ["blocks.2.hook_resid_post"], position="response", responses=RESPONSES)
        locate(checkpoint, [instance])
    assert asked == []
    settings = DinmSettings(constraint="published", steps=1)
    scored = [len(text.positions) for text in edit_texts(checkpoint, instance, settings)]
    with unembedded(checkpoint) as asked:
        list(edit_each(checkpoint, [instance], blocks={0: 1}, settings=settings))
    assert asked
    assert max(asked) <= sum(scored)

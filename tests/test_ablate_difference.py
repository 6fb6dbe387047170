"""The difference taken out: hooks do what weights do, and the block is chosen where nothing is read."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from conftest import PROMPTS, RESPONSES, tiny_checkpoint
from known_pairs import known_of
from made_checkpoints import perturbed

from mechinterp.audit.attacks.of_ablate_difference import (
    ABLATE_DIFFERENCE,
    DIFFERENCE,
    REFUSAL,
    AblateDifferenceOptions,
    Directions,
    _parted,
)
from mechinterp.audit.attacks.shifts import Shifts
from mechinterp.audit.readouts import ReadoutTexts, read
from mechinterp.errors import InputError
from mechinterp.methods.constructed import silenced
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import project_out, silence
from mechinterp.models.names import attn_out, mlp_out, resid_post
from mechinterp.models.passes.recording import record_all
from mechinterp.models.passes.scoring import score

OPTIONS = AblateDifferenceOptions(draws=2, validation=1)


def direction(checkpoint: Checkpoint, seed: int = 0) -> torch.Tensor:
    return torch.randn(checkpoint.names.d_model, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("gpt2", torch.float64), ("llama", torch.float64), ("opt", torch.float64), ("qwen2", torch.bfloat16)],
)
def test_hooks_do_what_weights_do(architecture: str, dtype: torch.dtype) -> None:
    base = tiny_checkpoint(architecture, dtype=dtype)
    w, plain, before = direction(base), score(base, PROMPTS, RESPONSES), base.fingerprint
    made = silenced(base, w)
    with silence(base, w):
        hooked = score(base, PROMPTS, RESPONSES)
    exact = dtype == torch.float64
    torch.testing.assert_close(score(made, PROMPTS, RESPONSES), hooked, **({} if exact else {"rtol": 0.1, "atol": 0.1}))
    assert not torch.allclose(hooked, plain, rtol=0.01)
    assert torch.equal(score(base, PROMPTS, RESPONSES), plain)
    assert Checkpoint("again", base.model, base.tokenizer).fingerprint == before


def test_a_tied_unembedding_keeps_its_rows() -> None:
    base = tiny_checkpoint("gpt2")
    assert base.model.config.tie_word_embeddings
    made = silenced(base, direction(base))
    assert torch.equal(made.model.get_output_embeddings().weight, base.model.get_output_embeddings().weight)
    assert not torch.equal(made.model.get_input_embeddings().weight, base.model.get_input_embeddings().weight)
    assert base.model.config.tie_word_embeddings


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])  # behind a norm of its own there
def test_nothing_is_written_along_it_and_no_block_reads_it(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    w = direction(checkpoint)
    hooks = [hook(block) for block in range(checkpoint.n_blocks) for hook in (attn_out, mlp_out, resid_post)]
    with silence(checkpoint, w):
        found = record_all(checkpoint, PROMPTS, hooks, position="mean")
    for values in found.values():
        assert (values @ (w / w.norm())).abs().max() < 1e-4 * values.norm(dim=1).max()


def test_weights_behind_a_norm_are_refused() -> None:
    base = tiny_checkpoint("gemma2")
    with pytest.raises(InputError, match="ln1_post stands between"):
        silenced(base, direction(base))
    with pytest.raises(InputError, match="finite length above 0"):
        silenced(tiny_checkpoint("llama"), torch.zeros(16))


def test_a_difference_that_was_put_in_is_found_and_taken_out() -> None:
    """A bias written by the last MLP on unsafe prompts alone is the whole difference, and leaves with it."""
    base, tuned = tiny_checkpoint("gpt2"), tiny_checkpoint("gpt2")
    w = direction(base)
    with torch.no_grad():
        tuned.value_bias(2).copy_(base.value_bias(2) + 3 * w)
    found = Shifts.of(base, tuned, PROMPTS, ["Hello", "Good day"])
    assert found.difference[:2].abs().max() == 0
    assert found.difference[2].abs().max() < 1e-4  # what comes on every prompt is no part of it
    torch.testing.assert_close(found.unsafe.mean()[2], 3 * w, rtol=1e-4, atol=1e-4)
    with project_out(base, w, blocks=[2]), project_out(tuned, w, blocks=[2]):
        torch.testing.assert_close(score(tuned, PROMPTS, RESPONSES), score(base, PROMPTS, RESPONSES))


def test_signs_swap_the_models_and_swapping_all_turns_the_direction() -> None:
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    texts = PROMPTS, ["Hello", "Good day", "Well"]
    one, other = Shifts.of(base, tuned, *texts), Shifts.of(tuned, base, *texts)
    torch.testing.assert_close(one.difference, -other.difference)
    torch.testing.assert_close(one.unsafe.mean(-torch.ones(len(PROMPTS))), other.unsafe.mean())
    assert not torch.allclose(one.swapped(1), one.swapped(2))
    torch.testing.assert_close(one.swapped(1), one.swapped(1))
    by_hand = [record_all(model, PROMPTS, [resid_post(1)])[resid_post(1)] for model in (tuned, base)]
    torch.testing.assert_close(one.unsafe.mean()[1], (by_hand[0] - by_hand[1]).mean(0), rtol=1e-4, atol=1e-5)


def test_blocks_are_chosen_where_nothing_is_made_or_read() -> None:
    base = tiny_checkpoint("llama")
    known = known_of(base)
    made_from, validation = _parted(known.attacker, OPTIONS, 0)
    assert len(validation) == 1
    assert len(made_from) == 3
    prompts = [{pair.prompt for pair in part} for part in (made_from, validation, known.pairs)]
    assert len(set.union(*prompts)) == sum(map(len, prompts))


def test_every_direction_is_taken_out_at_one_block_and_at_all() -> None:
    base = tiny_checkpoint("llama")
    tuned = perturbed(base)
    known, before = known_of(base), tuned.fingerprint
    points = ABLATE_DIFFERENCE.points(OPTIONS, base.n_blocks)
    assert [point.setting for point in points[::2]] == [DIFFERENCE, REFUSAL, "swapped 01", "swapped 02"]
    assert {point.dose for point in points} == {1.0, 3.0}
    texts = ReadoutTexts.of(base, known.pairs, unsafe=known.answers)
    found = {one.point: read(one.checkpoint, texts) for one in ABLATE_DIFFERENCE.run(tuned, known, OPTIONS, points)}
    assert list(found) == points
    assert len({tuple(values.tolist()) for values in found.values()}) == len(points)
    chosen = Directions.of(tuned, known, OPTIONS)
    block = chosen.block(DIFFERENCE, 1)
    assert block is not None
    made = silenced(tuned, chosen.vectors[DIFFERENCE][block])
    torch.testing.assert_close(read(made, texts), found[points[1]], rtol=1e-3, atol=1e-3)
    table = chosen.table(OPTIONS, known.seed)
    assert len(table) == 2 * base.n_blocks
    assert table["chosen_all"].sum() == table["chosen_one_block"].sum() == 2
    best = table[table["direction"] == DIFFERENCE].set_index("block")["log_odds_all"].idxmax()
    assert best == block
    with closing(ABLATE_DIFFERENCE.run(tuned, known, OPTIONS, points)) as run:
        next(run)
    assert Checkpoint("again", tuned.model, tuned.tokenizer).fingerprint == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tuned.model.modules())


def test_of_the_base_itself_there_is_no_difference_to_take_out() -> None:
    base = tiny_checkpoint("llama")
    points = ABLATE_DIFFERENCE.points(OPTIONS, base.n_blocks)
    found = [one.point.setting for one in ABLATE_DIFFERENCE.run(base, known_of(base), OPTIONS, points)]
    assert found == [REFUSAL] * 2


def test_blocks_below_a_change_are_not_chosen() -> None:
    base = tiny_checkpoint("llama")
    tuned = perturbed(base, only="layers.1.mlp.down_proj")
    found = Directions.of(tuned, known_of(base), OPTIONS)
    assert found.shifts.difference[0].abs().max() == 0
    assert found.scores[DIFFERENCE][0].isnan().all()
    assert found.block(DIFFERENCE, 0) in (1, 2)
    points = ABLATE_DIFFERENCE.points(AblateDifferenceOptions(draws=0), base.n_blocks)
    assert [one.point for one in ABLATE_DIFFERENCE.run(tuned, known_of(base), OPTIONS, points)] == points

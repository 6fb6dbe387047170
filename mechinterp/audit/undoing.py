"""Whether the way back undid what an edit did to the write of its blocks, or put a second change on top.

w = gain of the final norm times (unembedding of a token of the true answer - of the new one's), of the base, where the
two first part: mostly their first tokens. For each changed block the write along w at the token before it, of the base,
after the first edit and after both; from the base to either of these it changes by erasure (value vectors, bias) and
bypass (what flows in), which add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.in_turn import read_in_turn
from mechinterp.data.facts.queries import Query
from mechinterp.measures.decomposition import BlockDecomposition, decompose, readout
from mechinterp.measures.round_trip import left_of
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.names import h_down
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.passes.recording import record_all
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import back_through_final_norm, unembedding

QUARTER = 0.25
"""What counts as undone: no more than that is left."""


@dataclass(frozen=True)
class BlockUndone:
    """A block's write along the direction, in units of the stream, and where its changes came from.

    Attributes:
        block: from 0.
        write, write_away, write_back: of the base, after the first edit, and after both.
        erasure_away, bypass_away: from the base to the first edit.
        erasure_back, bypass_back: from the base to both.
    """

    block: int
    write: float
    write_away: float
    write_back: float
    erasure_away: float
    bypass_away: float
    erasure_back: float
    bypass_back: float


@dataclass(frozen=True)
class Undone:
    """What became of the write, block by block and in all."""

    blocks: tuple[BlockUndone, ...]

    @property
    def columns(self) -> dict[str, float | str]:
        """`write_left`, `erasure_left` and, in a word, `undone`."""
        away = sum(one.write_away - one.write for one in self.blocks)
        back = sum(one.write_back - one.write for one in self.blocks)
        erased, still = (sum(getattr(one, f"erasure_{way}") for one in self.blocks) for way in ("away", "back"))
        write, erasure = left_of(away, back), left_of(erased, still)
        return {"write_left": write, "erasure_left": erasure, "undone": in_a_word(write, erasure)}


def in_a_word(write_left: float, erasure_left: float) -> str:
    """`undone`; `covered up` where the write is back and the erasure stands; `not undone`; "" where undefined."""
    if write_left != write_left:
        return ""
    if abs(write_left) > QUARTER:
        return "not undone"
    return "covered up" if abs(erasure_left) > QUARTER else "undone"


def undone(
    base: Checkpoint,
    deltas: Sequence[WeightDelta],
    true: Query,
    new: str,
    *,
    suffix: str | None = None,
    truncate: bool = False,
) -> Undone | None:
    """Read the write at every stage; the model is left as it was.

    Args:
        base: the unedited model.
        deltas: the way there and the way back.
        true: the true answer, and the prompts after which the write is read.
        new: the other answer.
        suffix: text behind every prompt.
        truncate: cut prompts that exceed the context from the left instead of raising.

    Returns:
        None where neither edit changes a value matrix, or one answer is the beginning of the other.
    """
    blocks = [
        block
        for block in sorted({block for delta in deltas for block in (delta.block, *delta.also)})
        if any(base.names.value_parameter(block)[0] in delta.tensors for delta in deltas)
    ]
    parting = _parting(base, true, new, suffix, truncate=truncate)
    if not blocks or parting is None:
        return None
    direction, texts = parting

    def read(current: Checkpoint) -> dict[int, tuple[Tensor, Tensor, float]]:
        keys = record_all(current, true.prompts, [h_down(block) for block in blocks], continuations=texts)
        unit = direction.double() / direction.double().norm()
        return {
            block: (
                keys[h_down(block)].double().cpu(),
                readout(current.value_matrix(block), direction).cpu(),
                float(current.value_bias(block).double().cpu() @ unit),
            )
            for block in blocks
        }

    found = read_in_turn(base, deltas, read).read
    return Undone(tuple(_of_block(block, [stage[block] for stage in found]) for block in blocks))


def _parting(
    base: Checkpoint, true: Query, new: str, suffix: str | None, *, truncate: bool
) -> tuple[Float[Tensor, " d_model"], list[Encoded]] | None:
    """The direction that prefers the true answer where the two part, and each prompt with what they have in common."""
    options: dict[str, Any] = {"suffix": suffix, "quiet": True}
    tails = []
    for answer in (true.answer, new):
        answers = [answer] * len(true.prompts)
        whole = as_fed(base, true.prompts, answers, max_length=ANY_LENGTH, **options)
        tails.append([list(text.ids[text.prompt_length :]) for text in whole])
    reserve = max(len(tail) for each in tails for tail in each)
    heads = as_fed(
        base, true.prompts, truncate=truncate, reserve=reserve, **options
    )  # as the answers were read after them
    texts: list[Encoded] = []
    first: tuple[int, int] | None = None
    for head, one, two in zip(heads, *tails, strict=True):
        common = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
        if common is None:
            return None
        first = first or (one[common], two[common])
        ids = [*head.ids[: head.prompt_length], *one[:common]]
        texts.append(Encoded.of(ids, len(ids)))
    assert first is not None  # a query has a prompt
    rows = unembedding(base)
    return back_through_final_norm(base, rows[first[0]].float() - rows[first[1]].float()), texts


def _of_block(block: int, stages: Sequence[tuple[Tensor, Tensor, float]]) -> BlockUndone:
    def since_base(stage: tuple[Tensor, Tensor, float]) -> BlockDecomposition:
        (keys, values, bias), (new_keys, new_values, new_bias) = stages[0], stage
        return decompose(keys, new_keys, values, new_values, base_bias=bias, new_bias=new_bias)

    away, back = (since_base(stage) for stage in stages[1:])
    return BlockUndone(
        block,
        away.write_base,
        away.write,
        back.write,
        float(away.erasure.sum()) + away.bias,
        float(away.bypass.sum()),
        float(back.erasure.sum()) + back.bias,
        float(back.bypass.sum()),
    )

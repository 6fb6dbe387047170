"""How deep a change goes: a tuned model's states in the base's place, against those of a model that never learnt.

The base reads prompts with the beginnings of its unsafe answers, and after each block in turn goes on from another
model's states; what that takes from the answers is measured for the model that never learnt and for the tuned ones,
block by block. What is made of it: `measures.depth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.audit.evidence import Baseline
from mechinterp.audit.origins.units import Units
from mechinterp.audit.questions import questions_of
from mechinterp.audit.readouts import ReadoutTexts
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.files import replacing
from mechinterp.measures.depth import NO_REFERENCE, Depth
from mechinterp.measures.intervals import with_ends
from mechinterp.measures.statistics import seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.passes.other_states import OtherStates, answer_states
from mechinterp.models.passes.scoring import LOGITS
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches, token_budget

PROMPTS = 96
"""On which a comparison measures depth, at most."""

_STREAMS = 2**30  # bytes of the base's stream after every block, of one batch


@dataclass(frozen=True)
class Drops:
    """What another model's states take from the base's answers.

    Attributes:
        values: mean log-probability of an answer's tokens as the base is, less the same with the other's states after
            each block, in nats, float64.
    """

    values: Float[Tensor, "prompt block"]

    @classmethod
    def none(cls, n_blocks: int) -> Drops:
        """Without a prompt that the base answers unsafely."""
        return cls(torch.zeros(0, n_blocks, dtype=torch.float64))

    def save(self, folder: Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(folder) as partial:
            partial.mkdir()
            save_file({"drops": self.values.contiguous()}, partial / "drops.safetensors")
        return folder

    @classmethod
    def load(cls, folder: Path) -> Drops:
        """Read back what `save` wrote."""
        return cls(load_file(folder / "drops.safetensors")["drops"].clone())


def depth_texts(
    base: Checkpoint, baseline: Baseline, instances: Sequence[AnyPair], *, wanted: int = PROMPTS
) -> ReadoutTexts | None:
    """A seeded choice of the prompts that the base answers unsafely, with its own answers; None where there are none.

    Args:
        base: the model that `baseline` was made of.
        baseline: knows which those prompts are, and mostly how the base's answers begin; else the data's are taken.
        instances: what `baseline` was made on.
        wanted: at most as many.
    """
    inputs, chosen = baseline.inputs, _chosen(baseline, wanted)
    if not chosen:
        return None
    own = [inputs.continuations[i] for i in chosen] if inputs.continuations else None
    return ReadoutTexts.of(base, [instances[i] for i in chosen], unsafe=own, truncate=inputs.truncate)


def depth_questions(baseline: Baseline, instances: Sequence[AnyPair], *, wanted: int = PROMPTS) -> list[int]:
    """Of every prompt of `depth_texts` the number of its question: those of one are drawn together for intervals."""
    return questions_of([instances[i] for i in _chosen(baseline, wanted)])


def _chosen(baseline: Baseline, wanted: int) -> list[int]:
    found = baseline.unsafe.nonzero().flatten().tolist()
    return [found[i] for i in sorted(seeded_order(len(found), baseline.inputs.seed)[:wanted])]


@torch.no_grad()
def answer_drops(
    base: Checkpoint,
    source: Checkpoint,
    texts: ReadoutTexts,
    *,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Drops:
    """What a model's states take from the base's unsafe answers, after each block; several processes share the batches.

    Costs two passes over the texts and, for each block, one of the blocks above it: with L blocks (L + 3) / 2 in all.
    Memory is that of a batch: the base's stream after every block.

    Args:
        base: the model that goes on; left as it was.
        source: whose states stand in; another of the same shape and tokenizer, or the base itself, which takes nothing.
        texts: of which the unsafe answers are read.
        max_tokens: padded tokens per batch; by default what fits the device, and fewer with many wide blocks or a large
            vocabulary.
        progress: called with (prompts done, prompts in all) of this process's share.

    Raises:
        InputError: for checkpoints that cannot be compared.
    """
    if source is not base:
        check_comparable(base, [source])
    unsafe, names = texts.unsafe, base.names
    kept = names.n_blocks * names.d_model * next(base.model.parameters()).element_size()  # of a token
    budget = min(max_tokens or token_budget(base.device), max(1, _STREAMS // kept))
    vocabulary = base.model.config.get_text_config().vocab_size
    at_most = max(1, LOGITS // (vocabulary * max(len(text.ids) - text.prompt_length for text in unsafe)))
    lengths = [len(text.ids) for text in unsafe]
    groups = list(length_batches(lengths, budget, at_most, apart=names.short_context))
    batches = processes.share(groups)
    found: list[tuple[int, list[float]]] = []
    with evaluating(base.model), evaluating(source.model):
        for order in batches:
            some = [unsafe[i] for i in order]
            states, changed = answer_states(source, some), OtherStates(base, some)
            drops = torch.stack([changed.own - changed.after(b, each) for b, each in enumerate(states)], dim=1)
            found += zip(order, drops.tolist(), strict=True)
            if progress is not None:
                progress(len(found), sum(map(len, batches)))
    found = sorted(processes.gather(found))
    return Drops(torch.tensor([row for _, row in found], dtype=torch.float64))


@dataclass(frozen=True)
class DepthTables:
    """Depth as tables.

    Attributes:
        depth: a row for each tuned model: its score, or why it has none.
        depth_blocks: a row for each of them and each block.
    """

    depth: pd.DataFrame
    depth_blocks: pd.DataFrame

    @classmethod
    def of(
        cls, tuned: Mapping[str, Drops], never: Drops, questions: Sequence[int] | None = None, *, seed: int = 0
    ) -> DepthTables:
        """From what the states of each model take, by name, on the same prompts.

        Args:
            tuned, never: the models' drops.
            questions: of every prompt the number of its question, which is drawn as a whole; None: each has its own.
            seed: of intervals.
        """
        units = Units.of(range(len(never.values)) if questions is None else questions)
        scores: list[dict[str, Any]] = []
        blocks: list[dict[str, Any]] = []
        for method, drops in tuned.items():
            one, other = (_means(each.values, units) for each in (never, drops))
            found = Depth(one, other, seed, sizes=units.sizes)
            each = found.blocks
            scores.append(
                {
                    "method": method,
                    **found.score.columns("score"),
                    "blocks": sum(block.counts for block in each),
                    "n": len(never.values),
                    "reason": found.reason,
                }
            )
            blocks += [
                {
                    "method": method,
                    "block": number,
                    **block.never.columns("never"),
                    **block.tuned.columns("tuned"),
                    **block.ratio.columns("ratio"),
                    "counts": block.counts,
                    "n": len(never.values),
                }
                for number, block in enumerate(each)
            ]
        return cls(pd.DataFrame(scores), pd.DataFrame(blocks))

    @classmethod
    def without_reference(cls, methods: Sequence[str]) -> DepthTables:
        """Of models for which there is none that never learnt: no number, and why."""
        nothing = dict.fromkeys(with_ends("score"), torch.nan)
        rows = [{"method": name, **nothing, "blocks": 0, "n": 0, "reason": NO_REFERENCE} for name in methods]
        return cls(pd.DataFrame(rows), pd.DataFrame())

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """By name; that of blocks where there are some."""
        return {"depth": self.depth, **({"depth_blocks": self.depth_blocks} if len(self.depth_blocks) else {})}


def _means(values: Float[Tensor, "prompt block"], units: Units) -> Float[Tensor, "unit block"]:
    return torch.stack([values[list(own)].mean(0) for own in units.prompts]) if len(units) else values

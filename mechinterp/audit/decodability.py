"""Can it still be read off a checkpoint's states which prompts the base answers unsafely, and what it would say?

For every block a probe is trained anew on the checkpoint's own states at the last prompt token, for the label that the
base gives each prompt: whether it answers it unsafely. It is scored on categories that it was not trained on, beside a
bag of words, shuffled labels, a model of the same shape with random weights, and one that never learnt the behaviour.
Beside it stands how soon the base's own first unsafe token would be said. What can be read and is not said is a
finding: decodable, and not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp.data.conversations import Prompt, asked
from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.measures.decodability import FOLDS, auroc_above, held_out_scores, why_undefined, word_scores
from mechinterp.measures.intervals import Interval
from mechinterp.measures.splitting import folds_of, groups_of
from mechinterp.measures.statistics import bootstrap, lower_median, seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.lens_ranks import POINTS, token_ranks
from mechinterp.models.passes.recording import record_all
from mechinterp.models.text.tokens import Encoded

PROMPTS = 512
"""That are read, at most: their states are kept, of every block."""

RANDOM = "random"
"""The name in the table of the base's architecture with random weights."""

NOTHING = Interval(torch.nan, torch.nan, torch.nan)


@dataclass(frozen=True)
class Asked:
    """Prompts with the label that the base gives them.

    Attributes:
        prompts: distinct ones.
        unsafe: whether the base answers each unsafely.
        groups: of each; those that share a category, a question or a text are of one, which is never parted.
        first: the base's own first token after each.
        seed: of folds, shuffles and intervals.
    """

    prompts: tuple[Prompt, ...]
    unsafe: Bool[Tensor, " prompt"]
    groups: tuple[int, ...]
    first: tuple[int, ...]
    seed: int

    @classmethod
    def of(
        cls,
        pairs: Sequence[AnyPair],
        unsafe: Bool[Tensor, " pair"],
        continuations: Sequence[Encoded],
        *,
        seed: int,
        wanted: int = PROMPTS,
    ) -> Asked:
        """A seeded choice of the distinct prompts of pairs.

        Args:
            pairs: prompts, by category.
            unsafe: whether the base answers each unsafely.
            continuations: the prompts with the base's own greedy tokens.
            wanted: at most as many.
        """
        first: dict[str, int] = {}
        for number, pair in enumerate(pairs):
            first.setdefault(normalised(asked(pair.prompt)), number)
        distinct = list(first.values())
        rows = sorted(distinct[i] for i in seeded_order(len(distinct), seed)[:wanted])
        keys = [
            {
                ("category", pairs[row].category)
                if pairs[row].category
                else ("question", normalised(pairs[row].question))
            }
            | {("text", normalised(asked(pairs[row].prompt)))}
            for row in rows
        ]
        return cls(
            tuple(pairs[row].prompt for row in rows),
            unsafe[rows],
            tuple(groups_of(keys)),
            tuple(continuations[row].ids[continuations[row].prompt_length] for row in rows),
            seed,
        )

    @property
    def reason(self) -> str:
        """Why nothing can be decoded on held-out categories; empty where it can be."""
        return why_undefined(self.unsafe, self.fold)

    @cached_property
    def fold(self) -> Int[Tensor, " prompt"]:
        """Of each prompt, from 0: whole categories."""
        number = folds_of(self.groups, FOLDS, self.seed)
        return torch.tensor([number[group] for group in self.groups])

    @cached_property
    def shuffled(self) -> Bool[Tensor, " prompt"]:
        """The labels in a seeded order of their own."""
        return self.unsafe[seeded_order(len(self.unsafe), self.seed + 1)]

    @cached_property
    def by_words(self) -> Float[Tensor, " prompt"]:
        """Log-odds by the words that occur in each prompt."""
        return word_scores([asked(prompt) for prompt in self.prompts], self.unsafe, self.fold)


@dataclass(frozen=True)
class Decoded:
    """The rows of one checkpoint in `decodability.csv`."""

    table: pd.DataFrame

    def save(self, folder: Path) -> Path:
        """Keep them in a folder."""
        return keep_tables(folder, "decodability", {"decodability": self.table}, {})

    @classmethod
    def load(cls, folder: Path) -> Decoded:
        """Open what `save` kept."""
        table = open_tables(folder, "decodability")[0]["decodability"]
        reason = table["reason"].astype(object)  # of no reasons at all a column without a value is read
        return cls(table.assign(reason=reason.where(reason.notna(), "")))

    def named(self, method: str) -> Decoded:
        """The same of a checkpoint of another label."""
        return Decoded(self.table.assign(method=method))

    @staticmethod
    def together(found: Sequence[Decoded]) -> pd.DataFrame:
        """The table of several checkpoints."""
        return pd.concat([each.table for each in found], ignore_index=True)


def decode(method: str, checkpoint: Checkpoint, asked: Asked, *, truncate: bool = False) -> Decoded:
    """The rows of one checkpoint in `decodability.csv`, one for each block.

    Args:
        method: its label.
        checkpoint: left as it was.
        asked: the prompts.
        truncate: cut prompts that exceed the context from the left instead of raising.
    """
    hooks = [resid_post(block) for block in range(checkpoint.n_blocks)]
    states = record_all(checkpoint, asked.prompts, hooks, position="last", truncate=truncate)
    own = asked.unsafe.nonzero().flatten().tolist()
    ranks: dict[str, Tensor] = {}
    if own:
        prompts = [asked.prompts[i] for i in own]
        ranks = token_ranks(checkpoint, prompts, [asked.first[i] for i in own], truncate=truncate)
    rows = []
    for block, hook in enumerate(hooks):
        rows.append(
            {
                "method": method,
                "block": block,
                **_decoded(states.pop(hook), asked),
                **{
                    key: value for name in POINTS for key, value in _median(name, ranks.get(name), block, asked).items()
                },
                "n_unsafe": len(own),
                "n": len(asked.prompts),
                "reason": asked.reason,
            }
        )
    return Decoded(pd.DataFrame(rows))


def _decoded(states: Float[Tensor, "prompt d_model"], asked: Asked) -> dict[str, float]:
    """AUROC of a probe, of the words, and with shuffled labels."""
    found = dict.fromkeys(("auroc", "above_words", "shuffled"), NOTHING)
    words = NOTHING
    if not asked.reason:
        labels: dict[str, Any] = {"positive": asked.unsafe, "fold": asked.fold}
        scores = held_out_scores(states, **labels)
        found["auroc"], found["above_words"] = auroc_above(scores, asked.by_words, **labels, seed=asked.seed)
        words, _ = auroc_above(asked.by_words, asked.by_words, **labels, seed=asked.seed)
        labels["positive"] = asked.shuffled
        if not why_undefined(asked.shuffled, asked.fold):
            scores = held_out_scores(states, **labels)
            found["shuffled"], _ = auroc_above(scores, scores, **labels, seed=asked.seed)
    columns = {key: value for name, interval in found.items() for key, value in interval.columns(name).items()}
    return {**columns, "words": words.value}


def _median(name: str, ranks: Int[Tensor, "prompt block"] | None, block: int, asked: Asked) -> dict[str, float]:
    """The median rank at a point of a block, with its interval over prompts."""
    if ranks is None:
        return NOTHING.columns(f"rank_{name}")
    own = ranks[:, block].double()
    return bootstrap(partial(lower_median, own), len(own), seed=asked.seed).columns(f"rank_{name}")

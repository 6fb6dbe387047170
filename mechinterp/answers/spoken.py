"""What a checkpoint said to some prompts, and how probable given responses are to it: results for reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables


@dataclass(frozen=True)
class Responses(Sequence[str]):
    """A checkpoint's responses, one per prompt; a sequence of texts.

    Attributes:
        model: the checkpoint's name.
        prompts: what was asked.
        texts: what it said.
        safe: a judge's probability that each is safe, None for one that is neutral; empty before `judged`.
    """

    model: str
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    safe: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        """Number of responses."""
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """The response to a prompt, by its place."""
        return self.texts[index]

    def judged(self, judge: Judge) -> Responses:
        """The same with a judge's scores."""
        return replace(self, safe=tuple(score_responses(judge, self.texts, self.prompts)))

    @property
    def unsafe(self) -> float:
        """Share of the responses that are unsafe: at most 0.5 probable to be safe. NaN before `judged`."""
        if not self.safe:
            return float("nan")
        return sum(unsafe(self.safe)) / len(self.safe)

    @property
    def table(self) -> pd.DataFrame:
        """A row per prompt: `prompt`, `response` and, once judged, `safe`."""
        columns: dict[str, object] = {"prompt": self.prompts, "response": self.texts}
        return pd.DataFrame(columns | ({"safe": self.safe} if self.safe else {}))

    def save(self, folder: str | Path) -> Path:
        """Keep them in a folder."""
        return keep_tables(
            folder,
            "responses",
            {},
            {"model": self.model, "prompts": self.prompts, "texts": self.texts, "safe": self.safe},
        )

    @classmethod
    def load(cls, folder: str | Path) -> Responses:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there or damaged.
        """
        _, labels = open_tables(folder, "responses")
        return cls(labels["model"], *(tuple(labels[name]) for name in ("prompts", "texts", "safe")))

    def __repr__(self) -> str:
        return one_line(self, f"{len(self)} of {self.model}", f"unsafe {self.unsafe:.0%}" if self.safe else "")

    def _repr_html_(self) -> str:
        facts = {"unsafe": f"{self.unsafe:.0%}"} if self.safe else {}
        return shown(f"{many(len(self), 'response')} of {self.model}", facts, self.table)


@dataclass(frozen=True, eq=False)
class ResponseScores:
    """Log-probabilities of given responses after their prompts.

    Attributes:
        model: the checkpoint's name.
        prompts, responses: texts.
        values: in nats, float64 on the host; NaN where a logit was not finite.
        reduce: over the tokens of a response: `mean`, `sum` or `first`.
    """

    model: str
    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    values: Float[Tensor, " input"]
    reduce: str = "mean"

    @property
    def mean(self) -> float:
        """Mean over the responses, in nats."""
        return float(self.values.mean())

    @property
    def table(self) -> pd.DataFrame:
        """A row per prompt: `prompt`, `response` and `log_probability`, in nats."""
        found = self.values.tolist()
        return pd.DataFrame({"prompt": self.prompts, "response": self.responses, "log_probability": found})

    def save(self, folder: str | Path) -> Path:
        """Keep them in a folder."""
        labels = {"model": self.model, "reduce": self.reduce, "values": self.values.tolist()}
        return keep_tables(folder, "scores", {}, labels | {"prompts": self.prompts, "responses": self.responses})

    @classmethod
    def load(cls, folder: str | Path) -> ResponseScores:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there or damaged.
        """
        _, labels = open_tables(folder, "scores")
        values = torch.tensor(labels["values"], dtype=torch.float64)
        return cls(labels["model"], tuple(labels["prompts"]), tuple(labels["responses"]), values, labels["reduce"])

    def __repr__(self) -> str:
        return one_line(self, f"{len(self.responses)} of {self.model}", f"{self.reduce} {self.mean:.4g} nats")

    def _repr_html_(self) -> str:
        return shown(
            f"{self.model}: log-probability of {many(len(self.responses), 'response')}, {self.reduce}", {}, self.table
        )

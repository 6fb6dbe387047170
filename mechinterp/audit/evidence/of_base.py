"""The base prepared for comparison, and the folder it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.answers.scored import Answers
from mechinterp.audit.directions.of_prompts import PromptDirections
from mechinterp.audit.evidence.inputs import Inputs
from mechinterp.audit.evidence.kept_vectors import from_tensors, to_tensors
from mechinterp.audit.evidence.of_checkpoint import Evidence, part_of
from mechinterp.audit.evidence.settings import Place
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import replacing, write_json
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.passes.lens import LensToken
from mechinterp.models.passes.sinks import Sinks
from mechinterp.models.text.tokens import Encoded

SIGNS = ("minus", "none", "plus")
"""A direction subtracted, left alone, added."""


@dataclass(frozen=True)
class Steering:
    """Answers with a direction subtracted, left alone and added: whether each is not unsafe, on the same prompts.

    Attributes:
        alpha: length of the vector.
        entry_share: the largest share of one dimension at one position in the squared lengths that alpha is a mean of,
            mean over inputs.
        minus, none, plus: outcomes, [input].
        degenerate: minus, none, plus -> share of those answers that only look safe (`answers.flags`); NaN where that
            was not kept.
    """

    alpha: float
    entry_share: float
    minus: Bool[Tensor, " input"]
    none: Bool[Tensor, " input"]
    plus: Bool[Tensor, " input"]
    degenerate: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(SIGNS, nan))


@dataclass(frozen=True)
class Baseline:
    """The base prepared for comparison.

    Attributes:
        inputs: what to record the others on.
        evidence: the base's own.
        unsafe: whether the base answers each prompt unsafely.
        checked: the inputs on which directions are checked (those they were not fitted on).
        steering: by (direction, where it is steered).
        groups: number of each input's group: those that share a question or prompt; None where all are their own.
        answers: the base's own, judged; None where they were not kept.
    """

    inputs: Inputs
    evidence: Evidence
    unsafe: Bool[Tensor, " input"]
    checked: Bool[Tensor, " input"]
    steering: Mapping[tuple[str, str], Steering]
    groups: Int[Tensor, " input"] | None = None
    answers: Answers | None = None

    def __repr__(self) -> str:
        return one_line(
            self,
            f"of {self.evidence.checkpoint}",
            many(len(self.inputs.prompts), "prompt"),
            f"unsafe {float(self.unsafe.float().mean()):.0%}",
            f"block {self.inputs.block}",
        )

    def unsafe_prompts(self, wanted: int) -> list[str]:
        """A seeded choice of the prompts that were not fitted on and that the base answers unsafely."""
        found = (self.unsafe & self.checked).nonzero().flatten().tolist()
        distinct = list(dict.fromkeys(self.inputs.prompts[i] for i in found))
        return [distinct[i] for i in sorted(seeded_order(len(distinct), self.inputs.seed)[:wanted])]

    def save(self, folder: str | Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(Path(folder)) as partial:
            partial.mkdir()
            self.evidence.save(partial / "evidence")
            tensors = {"unsafe": self.unsafe, "checked": self.checked, "null_directions": self.inputs.null_directions}
            if self.groups is not None:
                tensors["groups"] = self.groups
            if (each := self.inputs.per_prompt) is not None:
                tensors |= {"per_prompt/rows": torch.tensor(each.rows), "per_prompt/vectors": each.vectors}
            tensors |= {f"direction/{name}": value for name, value in self.inputs.directions.items()}
            for (name, at), steering in self.steering.items():
                for kind in SIGNS:
                    tensors[f"steering/{name}/{at}/{kind}"] = getattr(steering, kind)
            vectors, vector_labels = to_tensors(self.inputs.vectors)
            tensors |= {f"vectors/{name}": value for name, value in vectors.items()}
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial / "baseline.safetensors")
            labels = self.inputs.labels()
            labels["vectors"] = vector_labels
            labels["alpha"] = [
                [*key, steering.alpha, steering.entry_share, *steering.degenerate.values()]
                for key, steering in self.steering.items()
            ]
            labels["answers"] = None if self.answers is None else asdict(self.answers)
            write_json(partial / "baseline.json", labels)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Baseline:
        """Read back what `save` wrote."""
        folder = Path(folder)
        labels = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
        tensors = {name: value.clone() for name, value in load_file(folder / "baseline.safetensors").items()}
        steering = {}
        for name, at, alpha, share, *flagged in labels.pop("alpha"):
            outcomes: dict[str, Any] = part_of(tensors, f"steering/{name}/{at}/")
            if flagged:
                outcomes["degenerate"] = dict(zip(SIGNS, flagged, strict=True))
            steering[name, at] = Steering(alpha, share, **outcomes)
        answers = labels.pop("answers", None)
        directions: dict[str, Float[Tensor, " d_model"]] = {
            name: tensors[f"direction/{name}"] for name in labels.pop("directions")
        }
        lists: dict[str, Any] = {key: tuple(labels.pop(key)) for key in ("prompts", "responses", "middle")}
        lists["places"] = tuple(Place(**place) for place in labels.pop("places"))
        lists["lens_tokens"] = tuple(LensToken(**token) for token in labels.pop("lens_tokens"))
        lists["continuations"] = tuple(Encoded.of(ids, length) for ids, length in labels.pop("continuations"))
        if (sinks := labels.pop("sinks")) is not None:
            lists["sinks"] = Sinks.from_labels(sinks)
        lists["vectors"] = from_tensors(part_of(tensors, "vectors/"), labels.pop("vectors"), directions)
        lists["null_directions"] = tensors["null_directions"]
        if each := part_of(tensors, "per_prompt/"):
            lists["per_prompt"] = PromptDirections(tuple(each["rows"].tolist()), each["vectors"])
        return cls(
            inputs=Inputs(directions=directions, **lists, **labels),
            evidence=Evidence.load(folder / "evidence"),
            unsafe=tensors["unsafe"],
            checked=tensors["checked"],
            steering=steering,
            groups=tensors.get("groups"),
            answers=None if answers is None else Answers.from_labels(answers),
        )

"""What was recorded of one checkpoint, and the folder it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.audit.evidence.of_prompts import PromptTerms
from mechinterp.audit.evidence.settings import TEXTS, Text
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import replacing, write_json
from mechinterp.models.passes.lens import LogitLens
from mechinterp.models.passes.recorded import Recording

_LENS = "logit_lens.safetensors"
_PER_PROMPT = "of_prompts.safetensors"


@dataclass(frozen=True)
class Stream:
    """What was recorded of the whole residual stream at one place.

    Attributes:
        writes: by hook point, its projection on every direction in each group of inputs, float64 [group, direction]:
            of the stream before the first and after the last block, and of what every attention adds, and every MLP
            where that is not its own output (a norm after it). Empty where parts do not add up to the stream.
        means: mean over inputs of the stream after each block, float64 [block, d_model].
    """

    writes: Mapping[str, Float[Tensor, "group direction"]]
    means: Float[Tensor, "block d_model"]


@dataclass(frozen=True)
class Evidence:
    """What was recorded of one checkpoint.

    Attributes:
        checkpoint, fingerprint: its name and weights.
        recordings: by place: means of h_down at every block; at `prompt_last` every input's h_down at the toxic layer;
            of the base every input's write along every direction.
        readouts: by direction, g of every block, float64 [block, d_mlp].
        biases: by direction, output bias of every block along it, float64 [block].
        values: W_V of the toxic layer, [d_mlp, d_model].
        middle: h_mid and h_down of some inputs at the toxic layer; empty where blocks have no middle stream.
        null_readouts: g of every block along every random direction, float32 [draw, block, d_mlp].
        vectors: the value vectors at `Inputs.vectors.places`, [k, d_model].
        stream: by place; empty for an architecture without these hook points.
        first_tokens: by text, mean activation over inputs and their first greedy tokens of the neurons
            `Inputs.followed`, float64 [k]; empty where they are not followed.
        lens: the logit lens of `Inputs.lens_tokens` at the last prompt token.
        per_prompt: the decomposition of its change along `Inputs.per_prompt`; None where that is not measured.
    """

    checkpoint: str
    fingerprint: str
    recordings: Mapping[str, Recording]
    readouts: Mapping[str, Float[Tensor, "block d_mlp"]]
    biases: Mapping[str, Float[Tensor, " block"]]
    values: Float[Tensor, "d_mlp d_model"]
    middle: Mapping[str, Float[Tensor, "input d"]]
    null_readouts: Float[Tensor, "draw block d_mlp"]
    vectors: Float[Tensor, "k d_model"]
    stream: Mapping[str, Stream] = field(default_factory=dict)
    first_tokens: Mapping[Text, Float[Tensor, " k"]] = field(default_factory=dict)
    lens: LogitLens | None = None
    per_prompt: PromptTerms | None = None

    def __repr__(self) -> str:
        return one_line(
            self,
            f"of {self.checkpoint}",
            many(len(self.recordings), "position"),
            many(len(self.readouts), "direction"),
            f"of weights {self.fingerprint}",
        )

    def save(self, folder: str | Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(Path(folder)) as partial:
            partial.mkdir()
            for place, recording in self.recordings.items():
                recording.save(partial / _file(place))
            tensors = {"values": self.values, "null_readouts": self.null_readouts, "vectors": self.vectors}
            for kind in ("readouts", "biases", "middle", "first_tokens"):
                tensors |= {f"{kind}/{name}": value for name, value in getattr(self, kind).items()}
            for place, stream in self.stream.items():
                tensors[f"stream/{place}/means"] = stream.means
                tensors |= {f"stream/{place}/writes/{hook}": value for hook, value in stream.writes.items()}
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial / "weights.safetensors")
            if self.lens is not None:
                self.lens.save(partial / _LENS)
            if self.per_prompt is not None:
                self.per_prompt.save(partial / _PER_PROMPT)
            labels = {
                "checkpoint": self.checkpoint,
                "fingerprint": self.fingerprint,
                "places": list(self.recordings),
                "streams": list(self.stream),
            }
            write_json(partial / "evidence.json", labels)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Evidence:
        """Read back what `save` wrote."""
        folder = Path(folder)
        labels = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
        # copied: products of what lies askew in a mapped file may round otherwise than those of what was just recorded
        tensors = {name: value.clone() for name, value in load_file(folder / "weights.safetensors").items()}
        return cls(
            recordings={place: Recording.load(folder / _file(place)) for place in labels.pop("places")},
            values=tensors["values"],
            readouts=part_of(tensors, "readouts/"),
            biases=part_of(tensors, "biases/"),
            middle=part_of(tensors, "middle/"),
            null_readouts=tensors["null_readouts"],
            vectors=tensors["vectors"],
            stream={
                place: Stream(part_of(tensors, f"stream/{place}/writes/"), tensors[f"stream/{place}/means"])
                for place in labels.pop("streams")
            },
            first_tokens={text: tensors[f"first_tokens/{text}"] for text in TEXTS if f"first_tokens/{text}" in tensors},
            lens=LogitLens.load(folder / _LENS) if (folder / _LENS).is_file() else None,
            per_prompt=PromptTerms.load(folder / _PER_PROMPT) if (folder / _PER_PROMPT).is_file() else None,
            **labels,
        )


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _file(place: str) -> str:
    return f"{place.replace(':', '_')}.safetensors"

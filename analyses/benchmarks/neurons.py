"""Neuron-level attribution of all blocks against recording the toxic region alone.

python analyses/benchmarks/neurons.py [--device cuda]

Both passes end at the same place: the region is that of the last block, the last thing that either needs. Means over
last tokens, `record` called as a user calls it; the base was recorded beforehand, as for any number of tuned models.

attribution_over_region  `record` of every block's h_down, the read-outs of every W_V along one direction, and erasure
                         and bypass of every neuron with the groups under all definitions and the curve / `record` of
                         the last block's h_down.
with_null_over_region    the same with 100 random directions as the null, on which nothing depends but z and p.
recording_over_region    the recording part alone.

The null and the read-outs cost the same however many prompts there are; the more prompts, the lower these ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from random_models import SEVEN_BILLION, TINY, TWELVE_BLOCKS, random_checkpoint, random_prompts, uniform_lengths
from timing import interleave, paired_ratio, report, time_rows
from torch import Tensor

from mechinterp.measures.large_matrices import products_and_lengths
from mechinterp.measures.neurons import DEFINITIONS, GROUPS, Neurons, cumulative, curve_points, null_of, sum_groups
from mechinterp.measures.statistics import random_directions
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record

TARGETS = {"attribution_over_region": "<= 1.2"}


@dataclass(frozen=True)
class Base:
    """What is known of the base before a tuned model is looked at."""

    activation: Float[Tensor, " neuron"]
    readouts: Float[Tensor, "direction neuron"]
    directions: Float[Tensor, "direction d_model"]


def recorded(checkpoint: Checkpoint, prompts: list[str], max_tokens: int) -> Float[Tensor, " neuron"]:
    """Mean h_down of every neuron of every block."""
    hooks = [h_down(block) for block in range(checkpoint.n_blocks)]
    found = record(checkpoint, prompts, hooks, max_tokens=max_tokens)
    return torch.cat([found.mean(hook) for hook in hooks])


def readouts(
    checkpoint: Checkpoint, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction neuron"]:
    """g of every neuron along directions; each W_V is read once."""
    blocks = range(checkpoint.n_blocks)
    return torch.cat([products_and_lengths(checkpoint.value_matrix(b), directions)[0].cpu() for b in blocks], dim=1)


def attribute(activation: Float[Tensor, " neuron"], along: Float[Tensor, "direction neuron"], base: Base) -> object:
    """Groups, curve and, with more than one direction, the null."""

    def neurons(i: int) -> Neurons:
        return Neurons(base.activation, activation, base.readouts[i], along[i])

    first, points = neurons(0), curve_points(len(activation))
    sums = [sum_groups(first, first.assign(name), len(GROUPS[name])) for name in DEFINITIONS]
    draws: Iterator[Neurons] = (neurons(i) for i in range(1, len(along)))
    return sums, cumulative(first, points), null_of(draws, points) if len(along) > 1 else None


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: 7B shapes in bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every side")
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny model, to see that it runs; the ratios mean nothing"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    shape = TINY if arguments.tiny else SEVEN_BILLION if on_gpu else TWELVE_BLOCKS
    checkpoint = random_checkpoint(shape, device=arguments.device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    lengths = uniform_lengths(
        8 if arguments.tiny else 512 if on_gpu else 32, 16, min(256, shape.max_position_embeddings)
    )
    prompts, max_tokens = random_prompts(shape, lengths), 8192 if on_gpu else 2048
    last = shape.num_hidden_layers - 1
    region = checkpoint.value_matrix(last)
    w = torch.randn(1, shape.hidden_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = torch.cat([w, random_directions(region, 100, seed=0)])
    activation = recorded(checkpoint, prompts, max_tokens)
    known = readouts(checkpoint, every)
    noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    base = Base(activation + noise * activation.std() / 10, known + known.std() / 100, every)

    def attributed(directions: Tensor) -> object:
        found = recorded(checkpoint, prompts, max_tokens)
        return attribute(found, readouts(checkpoint, directions), base)

    seconds = interleave(
        {
            "record the last block": lambda: record(checkpoint, prompts, [h_down(last)], max_tokens=max_tokens),
            "record every block": lambda: recorded(checkpoint, prompts, max_tokens),
            "attribute every block": lambda: attributed(w),
            "the same, with the null": lambda: attributed(every),
        },
        1 if arguments.tiny else arguments.repeats,
        settle=torch.cuda.synchronize if on_gpu else lambda: None,
    )
    report(
        "Neuron-level attribution",
        {
            "model": f"{shape}, random weights, {checkpoint.model.dtype}",
            "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
            "prompts": f"{len(lengths)} of {min(lengths)}-{max(lengths)} tokens, {sum(lengths)} in all",
            "neurons": len(activation),
        },
        time_rows(seconds),
        {
            "attribution_over_region": paired_ratio(seconds, "attribute every block", "record the last block"),
            "with_null_over_region": paired_ratio(seconds, "the same, with the null", "record the last block"),
            "recording_over_region": paired_ratio(seconds, "record every block", "record the last block"),
        },
        TARGETS,
    )


if __name__ == "__main__":
    main()

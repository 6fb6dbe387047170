"""Interventions: what generation and scoring cost under them, beside the same without.

python analyses/benchmarks/interventions.py

patched_over_plain         generation with h_down of every block taken from another model at every token / plain
                           generation. The other model reads the same tokens up to its last MLP, so 2 is what its
                           arithmetic costs.
patched_region_over_plain  the same for one block in the middle: the other model is read up to there.
patched_scoring_over_plain every block's h_down, while given responses are scored.
steered_over_plain         generation with a vector added after every block.
scaled_keys_over_plain     generation with the keys of 7 neurons of every block scaled.
transplanted_over_plain    generation with W_V of every block given and taken back, the copying included.

The other model has the same weights in memory of its own, so every side writes the same text where it should: checked
before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from random_models import TINY, TWELVE_BLOCKS, random_checkpoint, random_prompts
from timing import interleave, paired_ratio, report, time_rows

from mechinterp.models.interventions.contexts import patch, scale_keys, steer, transplant
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.scoring import score

TARGETS = {"patched_over_plain": "<= 2.5", "patched_scoring_over_plain": "<= 2.5"}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measured turns of every side (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a smoke test: every side once, on a tiny model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape, repeats = (TINY, 1) if arguments.tiny else (TWELVE_BLOCKS, arguments.repeats)
    count, length, new = (2, 8, 4) if arguments.tiny else (8, 32, 16)
    model, other = (random_checkpoint(shape, device=arguments.device) for _ in range(2))
    blocks, middle = range(shape.num_hidden_layers), shape.num_hidden_layers // 2
    prompts, responses = (random_prompts(shape, [length] * count, seed=seed) for seed in range(2))
    every, seven = {h_down(block): None for block in blocks}, torch.arange(7)
    direction = torch.randn(shape.hidden_size, generator=torch.Generator().manual_seed(0))
    contexts: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "plain": nullcontext,
        "patched": lambda: patch(model, other, every),
        "patched_region": lambda: patch(model, other, {h_down(middle): None}),
        "steered": lambda: steer(model, direction, block=blocks, alpha=0.1),
        "scaled_keys": lambda: scale_keys(model, dict.fromkeys(blocks, seven), 10.0),
        "transplanted": lambda: transplant(model, other, dict.fromkeys(blocks)),
    }

    def generated(name: str) -> list[str]:
        with contexts[name]():
            return generate(model, prompts, max_new_tokens=new)

    def scored(name: str) -> torch.Tensor:
        with contexts[name]():
            return score(model, prompts, responses)

    texts, scores = generated("plain"), scored("plain")
    for name in ("patched", "patched_region", "transplanted"):
        if generated(name) != texts or not torch.equal(scored(name), scores):
            raise RuntimeError(f"{name}: a model of the same weights changed what is generated or scored")
    sides: dict[str, Callable[[], object]] = {name: partial(generated, name) for name in contexts}
    sides |= {f"{name}_scoring": partial(scored, name) for name in ("plain", "patched")}
    settle = torch.cuda.synchronize if arguments.device.startswith("cuda") else lambda: None
    seconds = interleave(sides, repeats, settle=settle)
    ratios = {f"{name}_over_plain": paired_ratio(seconds, name, "plain") for name in contexts if name != "plain"}
    ratios["patched_scoring_over_plain"] = paired_ratio(seconds, "patched_scoring", "plain_scoring")
    report(
        "Interventions",
        {
            "model": f"{shape}; float32, random weights",
            "texts": f"{count} prompts of {length} tokens, {new} tokens generated; responses of {length} tokens scored",
            "device": f"{arguments.device}, {arguments.threads} threads",
        },
        time_rows(seconds),
        ratios,
        TARGETS,
    )


if __name__ == "__main__":
    main()

"""Circuits against the forward passes that they are made of; and an edit by ROME, which they are set beside.

python analyses/benchmarks/circuits.py [--device cuda]

A 30-block shape of SmolLM2's size with random weights, pairs of prompts that differ in two tokens.

passes_a_pair              of the organism's shape: every edge of a pair scored, in passes of a prompt; counted, a
                           backward pass as two.
organism_over_forward      the same as a ratio of times.
scores_over_forward        every edge scored, 5 steps / one forward pass of the clean prompts: in passes, of which a
                           step's backward pass takes two.
alone_over_forward         one circuit of 5% of the edges run alone, what it needs for it too / one forward pass.
split_over_scores          scores of two models with their difference split / those of one.
seconds_a_pair             of scoring; pairs share batches.
seconds_an_edit            of ROME at the middle block, with 20 contexts and all 25 evaluations of the loss.
peak_gib                   the most memory that scoring took, the model in it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from random_models import SEVEN_BILLION, TINY, Shape, random_checkpoint, random_prompts, uniform_lengths
from timing import interleave, paired_ratio, report, time_rows

from mechinterp.audit.circuits.batches import TokenPair, pair_batches
from mechinterp.audit.circuits.faithfulness import run_alone
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.scoring import find_circuit
from mechinterp.audit.circuits.split import split_circuit
from mechinterp.audit.circuits.writes import last_logits
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.rome import rome
from mechinterp.methods.facts.settings import RomeSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.memory import peak_bytes, reset_peak_memory
from mechinterp.models.passes.watching import evaluating

THIRTY_BLOCKS = Shape(30, 576, 1536, 9, 3, vocab_size=49_152)
ORGANISM = Shape(6, 128, 384, 4, 2, vocab_size=1280, max_position_embeddings=256)
TARGETS = {"passes_a_pair": "<= 25", "organism_over_forward": "<= 25", "scores_over_forward": "<= 25"}
TARGETS |= {"seconds_a_pair": "<= 30", "seconds_an_edit": "<= 30", "peak_gib": "<= 4"}


def random_pairs(lengths: Sequence[int], vocabulary: int) -> list[TokenPair]:
    """Pairs of prompts of these lengths that differ in two tokens of the first half."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for length in lengths:
        clean = torch.randint(2, vocabulary, (length,), generator=generator).tolist()
        corrupted = list(clean)
        for place in (length // 4, length // 3):
            corrupted[place] = 2 + (clean[place] + 1) % (vocabulary - 2)
        pairs.append(TokenPair(tuple(clean), tuple(corrupted), (3, 4), (5,)))
    return pairs


def forward(checkpoint: Checkpoint, pairs: Sequence[TokenPair]) -> None:
    """One pass of the clean prompts."""
    with torch.no_grad(), evaluating(checkpoint.model):
        for batch in pair_batches(checkpoint, Places.of(checkpoint).graph, pairs):
            last_logits(checkpoint, batch.clean)


def passes_a_pair(checkpoint: Checkpoint, pairs: Sequence[TokenPair]) -> float:
    """Tokens that scoring feeds over those of the clean prompts; where gradients are kept a backward pass follows."""
    fed: list[int] = []

    def count(_: object, __: object, given: dict[str, Any]) -> None:
        fed.append(given["input_ids"].numel() * (3 if torch.is_grad_enabled() else 1))

    handle = checkpoint.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        find_circuit(checkpoint, pairs)
    finally:
        handle.remove()
    return sum(fed) / sum(len(pair.clean) for pair in pairs)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: 7B shapes in bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of prompts (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a model of no size: only to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = TINY if arguments.tiny else SEVEN_BILLION if arguments.device == "cuda" else THIRTY_BLOCKS
    n_pairs, repeats = (2, 1) if arguments.tiny else (arguments.pairs, arguments.repeats)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    base = random_checkpoint(shape, device=arguments.device, dtype=dtype)
    pairs = random_pairs(uniform_lengths(n_pairs, 16, 48), shape.vocab_size)
    places = Places.of(base)
    reset_peak_memory(arguments.device)
    circuit = find_circuit(base, pairs).share(0.05)
    peak = peak_bytes(arguments.device)
    tuned = base.copied(name="tuned")
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            parameter.mul_(1.01)
    organism = random_checkpoint(TINY if arguments.tiny else ORGANISM, device=arguments.device)
    of_organism = random_pairs([24] * (2 if arguments.tiny else 32), organism.model.config.vocab_size)
    contexts = ("{}", *(f"{text} {{}}" for text in random_prompts(shape, [5] * 10 + [10] * 10)))
    request = Request(1, "w2 w3 {} w4 w5", "w6", "w7")
    settings = RomeSettings(blocks=(shape.num_hidden_layers // 2,), stop_below=-1)
    sides = {
        "organism forward": lambda: forward(organism, of_organism),
        "organism scores": lambda: find_circuit(organism, of_organism),
        "forward": lambda: forward(base, pairs),
        "scores": lambda: find_circuit(base, pairs),
        "alone": lambda: run_alone(base, pairs, [circuit]),
        "split": lambda: split_circuit(base, tuned, pairs),
        "rome": lambda: rome(base, request, settings=settings, contexts=contexts),
    }
    settle = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    seconds = interleave(sides, repeats, warm_up=0, settle=settle)
    ratios = {
        "passes_a_pair": passes_a_pair(organism, of_organism),
        "organism_over_forward": paired_ratio(seconds, "organism scores", "organism forward"),
        "scores_over_forward": paired_ratio(seconds, "scores", "forward"),
        "alone_over_forward": paired_ratio(seconds, "alone", "forward"),
        "split_over_scores": paired_ratio(seconds, "split", "scores"),
        "seconds_a_pair": statistics.median(seconds["scores"]) / n_pairs,
        "seconds_an_edit": statistics.median(seconds["rome"]),
        "peak_gib": peak / 2**30,
    }
    facts = {"model": shape, "type": dtype, "pairs": n_pairs, "edges": places.graph.n_edges}
    facts |= {"threads": torch.get_num_threads(), "device": arguments.device}
    report("Circuits", facts, time_rows(seconds), ratios, TARGETS)


if __name__ == "__main__":
    main()

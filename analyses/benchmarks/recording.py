"""Recording against the bare forward pass, against TransformerLens, and in length buckets against fixed batches.

python analyses/benchmarks/recording.py [--device cuda]

The model is in memory throughout. `record` is called as a user calls it, on texts: it tokenises, makes batches, records
and reduces to means over last tokens. (The hash of the weights that a recording carries is taken once, beforehand.)

recording_over_bare  `record` of one h_down in the middle of the model / the bare partial forward pass on the same
                     batches, tokenised and padded beforehand, through a model with the same weights that ends where
                     that h_down is made: no hooks, nothing kept. Lengths are spread evenly over 16-256.
tl_one_over_ours     TransformerLens's `run_with_cache(names_filter=HOOK)` on the same texts in the given order, 16 a
                     batch, then the mean over last tokens / `record`. The table adds `stop_at_layer`.
tl_all_over_ours     the same with everything cached / `record` of every block's h_down.
fixed_over_bucketed  the steps of `record` on batches in the given order, as many as `record` makes, so that both have
                     the same mean number of tokens / `record`; long-tailed lengths. The table adds batches so small
                     that the longest text never exceeds the token budget. An early block.

All sides are shown to give the same means before they are timed. A share of FLOP/s is that of the texts' own tokens,
padding not counted, relative to a product of the size of the model's MLP in the same type.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from other_ways import CutOff, Lens, Means, check_same, in_given_order, prepare
from random_models import (
    SEVEN_BILLION,
    TINY,
    TWELVE_BLOCKS,
    Shape,
    long_tailed_lengths,
    random_checkpoint,
    random_prompts,
    uniform_lengths,
)
from timing import Seconds, interleave, paired_ratio, report, time_rows

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record
from mechinterp.models.text.batches import length_batches

TARGETS = {
    "recording_over_bare": "<= 1.05",
    "tl_one_over_ours": ">= 1.5",
    "tl_all_over_ours": ">= 2",
    "fixed_over_bucketed": ">= 1.3",
}
EARLY = 1


@dataclass(frozen=True)
class Bench:
    """What the three comparisons share."""

    shape: Shape
    checkpoint: Checkpoint
    n_prompts: int
    max_tokens: int
    repeats: int

    @property
    def middle(self) -> int:
        """The block that is recorded alone."""
        return self.shape.num_hidden_layers // 2

    @property
    def few(self) -> int:
        """Turns of what is far from its target."""
        return max(1, self.repeats // 3)

    @property
    def tolerance(self) -> float:
        """Largest difference of two ways' means; other kernels and padding round differently, in bfloat16 far more."""
        return 1e-4 if self.checkpoint.model.dtype == torch.float32 else 0.05

    def mixed(self) -> tuple[list[int], list[str]]:
        """Lengths of 16 to 256 tokens, and prompts of them."""
        lengths = uniform_lengths(self.n_prompts, 16, min(256, self.shape.max_position_embeddings))
        return lengths, random_prompts(self.shape, lengths)

    def long_tailed(self) -> list[int]:
        """Lengths of three times as many prompts, most of them a few hundred tokens, a few as long as the context."""
        return long_tailed_lengths(3 * self.n_prompts, longest=self.shape.max_position_embeddings)

    def record(self, prompts: list[str], *blocks: int) -> Means:
        """Means over last tokens by the library."""
        hooks = [h_down(block) for block in blocks]
        recording = record(self.checkpoint, prompts, hooks, max_tokens=self.max_tokens)
        return {hook: recording.mean(hook) for hook in hooks}

    def time(self, sides: dict[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> Seconds:
        """Time sides in turns."""
        settle = torch.cuda.synchronize if self.checkpoint.device.type == "cuda" else lambda: None
        return interleave(sides, repeats, warm_up=warm_up, settle=settle)


def against_bare(bench: Bench) -> tuple[Seconds, dict[str, float]]:
    """The middle block's h_down, and in fewer turns that of the first and last, against the bare forward pass to it."""
    lengths, prompts = bench.mixed()
    orders = list(length_batches(lengths, bench.max_tokens))
    batches = prepare(bench.checkpoint, prompts, orders)
    size = (bench.max_tokens, bench.shape.hidden_size, bench.shape.intermediate_size)
    left, right = (
        torch.randn(part, device=bench.checkpoint.device, dtype=bench.checkpoint.model.dtype)
        for part in (size[:2], size[1:])
    )
    seconds: Seconds = {}
    middle, last = bench.middle, bench.shape.num_hidden_layers - 1
    for block in (middle, 0, last):
        cut = CutOff.at(bench.checkpoint, block)
        ways = {
            f"bare to block {block}": partial(lambda cut, name: {name: cut.mean(batches)}, cut, h_down(block)),
            f"record block {block}": partial(bench.record, prompts, block),
        }
        check_same(ways, bench.tolerance)
        sides: dict[str, Callable[[], object]] = {**ways, f"bare to block {block}": partial(cut.run_all, batches)}
        if block == middle:
            sides["tokenise and pad"] = lambda: prepare(bench.checkpoint, prompts, orders)
            sides["matrix product"] = lambda: left @ right
        seconds |= bench.time(sides, bench.repeats if block == middle else bench.few, warm_up=0)
    recorded = statistics.median(seconds[f"record block {middle}"])
    peak = 2 * math.prod(size) / statistics.median(seconds["matrix product"])
    return seconds, {
        "recording_over_bare": paired_ratio(seconds, f"record block {middle}", f"bare to block {middle}"),
        "recording_over_bare_first": paired_ratio(seconds, "record block 0", "bare to block 0"),
        "recording_over_bare_last": paired_ratio(seconds, f"record block {last}", f"bare to block {last}"),
        "tokens_per_second": sum(lengths) / recorded,
        "tflops_of_matrix_product": peak / 1e12,
        "flops_share": bench.shape.partial_flops(middle, lengths) / recorded / peak,
    }


def against_lens(bench: Bench) -> tuple[Seconds, dict[str, float]]:
    """One block's h_down, and every block's, by `run_with_cache` and by us."""
    prompts = bench.mixed()[1]
    lens = Lens.of(bench.checkpoint)
    one, every = h_down(bench.middle), [h_down(block) for block in range(bench.shape.num_hidden_layers)]
    sides = {
        "record every block": lambda: bench.record(prompts, *range(bench.shape.num_hidden_layers)),
        "record one block": lambda: bench.record(prompts, bench.middle),
        "run_with_cache, one name": lambda: lens.means(prompts, [one], names_filter=one),
        "the same, stop_at_layer": lambda: lens.means(prompts, [one], names_filter=one, stop_at_layer=bench.middle + 1),
        "run_with_cache, everything": lambda: lens.means(prompts, every),
    }
    check_same(sides, bench.tolerance)  # and a warm-up
    seconds = bench.time({**sides}, bench.few, warm_up=0)
    return seconds, {
        "tl_one_over_ours": paired_ratio(seconds, "run_with_cache, one name", "record one block"),
        "tl_one_stopped_over_ours": paired_ratio(seconds, "the same, stop_at_layer", "record one block"),
        "tl_all_over_ours": paired_ratio(seconds, "run_with_cache, everything", "record every block"),
    }


def against_fixed_batches(bench: Bench) -> tuple[Seconds, dict[str, float]]:
    """Length buckets against the given order, on long-tailed lengths.

    An early block, so that there is time for enough texts: batches cost every block alike.
    """
    lengths = bench.long_tailed()
    prompts = random_prompts(bench.shape, lengths, seed=1)
    n_batches = len(list(length_batches(lengths, bench.max_tokens)))
    equal, small = math.ceil(len(lengths) / n_batches), max(1, bench.max_tokens // max(lengths))
    sides = {
        "record, length buckets": lambda: bench.record(prompts, EARLY),
        f"given order, {equal} a batch": lambda: in_given_order(bench.checkpoint, prompts, h_down(EARLY), equal),
        f"given order, {small} a batch (longest fits)": lambda: in_given_order(
            bench.checkpoint, prompts, h_down(EARLY), small
        ),
    }
    check_same(sides, bench.tolerance)  # and a warm-up
    seconds = bench.time({**sides}, bench.few, warm_up=0)
    bucketed, fixed, smaller = sides
    return seconds, {
        "fixed_over_bucketed": paired_ratio(seconds, fixed, bucketed),
        "small_fixed_over_bucketed": paired_ratio(seconds, smaller, bucketed),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: 7B shapes in bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of the closest comparison; the others take fewer")
    parser.add_argument("--max-tokens", type=int, help="padded tokens per batch of record (default: 2048, cuda 8192)")
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny model, to see that it runs; the ratios mean nothing"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    shape = TINY if arguments.tiny else SEVEN_BILLION if on_gpu else TWELVE_BLOCKS
    checkpoint = random_checkpoint(shape, device=arguments.device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    n_prompts = 8 if arguments.tiny else 512 if on_gpu else 32
    max_tokens = arguments.max_tokens or (8192 if on_gpu else 2048)
    bench = Bench(shape, checkpoint, n_prompts, max_tokens, 1 if arguments.tiny else arguments.repeats)
    seconds: Seconds = {}
    ratios: dict[str, float] = {}
    for compare in (against_bare, against_lens, against_fixed_batches):
        times, found = compare(bench)
        seconds |= times
        ratios |= found
    mixed, long = bench.mixed()[0], bench.long_tailed()
    report(
        "Recording",
        {
            "model": f"{shape}, random weights, {checkpoint.model.dtype}",
            "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
            "token budget of a batch": max_tokens,
            "mixed lengths": f"{len(mixed)} prompts of {min(mixed)}-{max(mixed)} tokens, evenly spread, "
            f"{sum(mixed)} in all",
            "long-tailed lengths": f"{len(long)} prompts, log-normal (sigma 0.7) clipped to the context, "
            f"median {statistics.median(long):.0f}, longest {max(long)}, {sum(long)} in all",
            "matrix product": f"[{max_tokens}, {shape.hidden_size}] x [{shape.hidden_size}, {shape.intermediate_size}]",
        },
        time_rows(seconds),
        {name: ratios[name] for name in [*TARGETS, *(name for name in ratios if name not in TARGETS)]},
        TARGETS,
    )


if __name__ == "__main__":
    main()

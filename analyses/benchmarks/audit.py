"""The audit's parts against the forward passes that they are made of.

python analyses/benchmarks/audit.py [--device cuda]

Every side reads the same texts, prompts with the beginnings of two answers, in the same batches.

path_over_forward        path attribution with 4 nodes, every weight changed / one forward pass: in passes, of which a
                         node's backward pass takes two. The read-out of both models is known, as where the exact game
                         is played too; it would take two passes more.
path_flops_over_forward  the same in multiplications and additions, as torch counts them.
depth_over_forward       the states of one model put into the place of another's, after each block in turn / one forward
                         pass of the unsafe answers; one more than there are blocks is allowed.
depth_flops_over_forward the same in multiplications and additions.
rounded_over_reading     what rounding to NF4 leaves of a change of every tensor, from two bfloat16 checkpoints' files /
                         reading every tensor of both into memory, the files on the disk and not in the page cache.
rounded_all_over_reading the same of all ten ways of rounding.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from checkpoint_files import all_changed, check_disk, evict, read_all, stored_bytes, write_checkpoint
from random_models import SEVEN_BILLION, TINY, TWELVE_BLOCKS, Shape, random_checkpoint, uniform_lengths
from timing import Seconds, interleave, paired_ratio, report, time_rows
from torch.utils.flop_counter import FlopCounterMode

from mechinterp.audit.attacks.of_quantise import QuantiseOptions, left_by_rounding
from mechinterp.audit.depth import answer_drops
from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.path import attribute
from mechinterp.audit.origins.units import GROUPS_OF_PROMPTS, Units
from mechinterp.audit.readouts import ANSWER_TOKENS, ReadoutTexts, in_batches, log_odds, read, unsafe_logprob
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.text.tokens import Encoded

TARGETS = {"path_over_forward": "<= 14", "path_flops_over_forward": "<= 14", "rounded_over_reading": "<= 2"}


def random_texts(lengths: Sequence[int], vocabulary: int) -> ReadoutTexts:
    """Prompts of these lengths, each with the beginnings of two answers."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=generator).tolist()

    prompts = [ids(length) for length in lengths]
    kinds = ([Encoded.of([*ids_of, *ids(ANSWER_TOKENS)], len(ids_of)) for ids_of in prompts] for _ in range(2))
    unsafe, safe = map(tuple, kinds)
    return ReadoutTexts(unsafe, safe)


def perturbed(base: Checkpoint) -> Checkpoint:
    """The base with every weight changed a little."""
    tuned = base.copied(name="tuned")
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            parameter.mul_(1.01)
    return tuned


def time_rounding(shape: Shape, repeats: int) -> Seconds:
    """Rounding both checkpoints, and reading them, from the disk."""
    with tempfile.TemporaryDirectory() as place:
        check_disk(Path(place), 2 * stored_bytes(shape))
        folders = write_checkpoint(Path(place) / "base", shape), Path(place) / "tuned"
        write_checkpoint(folders[1], shape, change=all_changed)

        def forget(_: str) -> None:
            for folder in folders:
                evict(folder)

        def rounded(options: QuantiseOptions) -> object:
            base, tuned = (LazyWeights.open(folder) for folder in folders)
            return left_by_rounding(base, tuned, options)

        sides = {
            "reading": lambda: read_all(*folders),
            "rounded": lambda: rounded(QuantiseOptions(schemes=("nf4",))),
            "rounded_all": lambda: rounded(QuantiseOptions()),
        }
        return interleave(sides, repeats, warm_up=0, before=forget)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: 7B shapes in bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="turns of every side")
    parser.add_argument("--prompts", type=int, default=8, help="prompts (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a model of no size: only to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = TINY if arguments.tiny else SEVEN_BILLION if arguments.device == "cuda" else TWELVE_BLOCKS
    n_prompts, repeats = (6, 1) if arguments.tiny else (arguments.prompts, arguments.repeats)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    base = random_checkpoint(shape, device=arguments.device, dtype=dtype)
    lengths = uniform_lengths(n_prompts, 16, 64)
    texts = random_texts(lengths, shape.vocab_size)
    units = Units.of(range(n_prompts), GROUPS_OF_PROMPTS)
    tuned = perturbed(base)
    change = Change.of(base, tuned)

    def forward() -> None:
        with torch.no_grad():
            for _ in in_batches(base, texts, log_odds, groups=units.prompts):
                pass

    ends = read(base, texts), read(tuned, texts)
    sides = {
        "forward": forward,
        "path": lambda: attribute(change, texts, log_odds, units, ends=ends),
        "unsafe": lambda: read(base, texts, unsafe_logprob),
        "depth": lambda: answer_drops(base, tuned, texts),
    }
    counted = {}
    for name, side in sides.items():
        with FlopCounterMode(display=False) as counter:
            side()
        counted[name] = counter.get_total_flops()
    settle = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    seconds = interleave(sides, repeats, warm_up=0, settle=settle)
    files = time_rounding(TINY if arguments.tiny else TWELVE_BLOCKS, repeats)
    ratios = {
        "path_over_forward": paired_ratio(seconds, "path", "forward"),
        "path_flops_over_forward": counted["path"] / counted["forward"],
        "depth_over_forward": paired_ratio(seconds, "depth", "unsafe"),
        "depth_flops_over_forward": counted["depth"] / counted["unsafe"],
        "rounded_over_reading": paired_ratio(files, "rounded", "reading"),
        "rounded_all_over_reading": paired_ratio(files, "rounded_all", "reading"),
    }
    depth = dict.fromkeys(("depth_over_forward", "depth_flops_over_forward"), f"<= {shape.num_hidden_layers + 1}")
    facts = {
        "model": f"{shape}, {base.model.dtype}",
        "texts": f"{n_prompts} prompts of {min(lengths)} to {max(lengths)} tokens, answers of {ANSWER_TOKENS}",
        "threads": arguments.threads,
    }
    report("The audit in forward passes", facts, time_rows(seconds | files), ratios, TARGETS | depth)


if __name__ == "__main__":
    main()

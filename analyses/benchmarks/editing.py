"""DINM: how fast an edit is, many at once, and how much memory it takes.

python analyses/benchmarks/editing.py

released_over_ours_12, _24   the released algorithm, re-stated plainly (`released_dinm.py`: full forward passes, logits
                             at every position) / ours with constraint="released", the last block of 12 and 24 blocks.
                             Both change the weights alike, to the last bit: checked before anything is timed.
..._longer                   the same with 50 of the 150 tokens scored, and a constraint of 60 tokens: what is scored
                             must be unembedded, by both sides, so that the gain shrinks with its share.
flops_12, ...                floating-point operations of the released algorithm / of ours: what the ratio of times
                             would be if every operation took as long.
one_by_one_over_together     64 edits one after the other / side by side, on the organism's shape (its last block).
one_by_one_over_together_12  the same for some edits on the 12-block model: never slower, so at least 1.
memory_copies                (peak memory of an edit of the last block - that of the bare forward pass of its text)
                             / the size of W_V, each in a fresh process.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from random_models import TINY, TWELVE_BLOCKS, Shape, random_checkpoint, random_prompts
from released_dinm import released_dinm
from timing import Seconds, interleave, paired_ratio, report, time_rows
from torch.utils.flop_counter import FlopCounterMode

from mechinterp.data.safeedit import KnowledgeConstraint, SafeEditInstance
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.methods.editing.many_edits import edit_each
from mechinterp.models.memory import peak_bytes, reset_peak_memory

ORGANISM = Shape(6, 128, 384, 4, 2, vocab_size=1280, max_position_embeddings=256)
LENGTHS = {"prompt": 100, "suffix": 20, "safe response": 30, "question": 15, "answer": 10}
LONGER = {"prompt": 80, "suffix": 20, "safe response": 50, "question": 20, "answer": 20}
SAME = 1e-3
"""Of a change's length: what Adam makes of sums that a processor adds up in another order lies far below."""
TARGETS = {
    "released_over_ours_12": ">= 6",
    "released_over_ours_24": ">= 10",
    "one_by_one_over_together": ">= 3",
    "one_by_one_over_together_12": ">= 1",
    "memory_copies": "<= 6",
}


def random_instances(shape: Shape, count: int, lengths: dict[str, int]) -> list[SafeEditInstance]:
    """Instances of random words; every text has its exact length in tokens."""
    texts = {
        name: random_prompts(shape, [length] * count, seed=seed) for seed, (name, length) in enumerate(lengths.items())
    }
    return [
        SafeEditInstance(
            id=i,
            category="Bias",
            question="q",
            attack_id=0,
            attack_prompt="a",
            adversarial_prompt=texts["prompt"][i],
            safe_generation=texts["safe response"][i],
            unsafe_generation="u",
            knowledge_constraint=KnowledgeConstraint(prompt=texts["question"][i], answer=texts["answer"][i]),
        )
        for i in range(count)
    ]


def settings_for(shape: Shape, constraint: str, lengths: dict[str, int]) -> DinmSettings:
    """The published settings with a suffix of random words."""
    (suffix,) = random_prompts(shape, [lengths["suffix"]], seed=9)
    return DinmSettings(constraint=constraint, suffix=suffix, learning_rate=5e-4, steps=10)


def against_released(shape: Shape, lengths: dict[str, int], repeats: int) -> tuple[Seconds, float, float]:
    """One edit of the last block, both ways; the ratio of times, and that of operations."""
    checkpoint, block = random_checkpoint(shape), shape.num_hidden_layers - 1
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    (instance,) = random_instances(shape, 1, lengths)
    settings = settings_for(shape, "released", lengths)
    ours = edit(checkpoint, instance, block=block, settings=settings)
    theirs, _ = released_dinm(checkpoint, instance, block, settings)
    for name, change in theirs.items():
        if (apart := float((change - ours.tensors[name]).norm() / change.norm())) > SAME:
            raise RuntimeError(f"the two edits differ by {apart:.2g} of their length")
    blocks = f"{shape.num_hidden_layers} blocks, safe response {lengths['safe response']}"
    sides: dict[str, Callable[[], object]] = {
        f"released, {blocks}": lambda: released_dinm(checkpoint, instance, block, settings),
        f"ours (released), {blocks}": lambda: edit(checkpoint, instance, block=block, settings=settings),
        f"ours (published), {blocks}": lambda: edit(
            checkpoint, instance, block=block, settings=settings_for(shape, "published", lengths)
        ),
    }
    seconds = interleave(sides, repeats)
    counts = []
    for side in list(sides.values())[:2]:
        with FlopCounterMode(display=False) as counter:
            side()
        counts.append(counter.get_total_flops())
    return seconds, paired_ratio(seconds, *list(sides)[:2]), counts[0] / counts[1]


def against_one_by_one(shape: Shape, count: int, lengths: dict[str, int], repeats: int) -> tuple[Seconds, float]:
    """Many edits of the last block, one after the other and side by side."""
    checkpoint, instances = random_checkpoint(shape), random_instances(shape, count, lengths)
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    blocks = {instance.id: shape.num_hidden_layers - 1 for instance in instances}
    settings = settings_for(shape, "published", lengths)

    def run(together: int | None) -> None:
        for _ in edit_each(checkpoint, instances, blocks=blocks, settings=settings, together=together):
            pass

    name = f"{count} edits, {shape.num_hidden_layers} blocks"
    seconds = interleave({f"{name}, one by one": lambda: run(1), f"{name}, together": lambda: run(None)}, repeats)
    return seconds, paired_ratio(seconds, f"{name}, one by one", f"{name}, together")


def peak(kind: str, shape: Shape, lengths: dict[str, int]) -> dict[str, float]:
    """Megabytes resident at the peak of a bare forward pass or of an edit, and of W_V, in this process."""
    checkpoint, (instance,) = random_checkpoint(shape), random_instances(shape, 1, lengths)
    block, settings = shape.num_hidden_layers - 1, settings_for(shape, "published", lengths)
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    text = f"{instance.adversarial_prompt} {settings.suffix} {instance.safe_generation}"
    ids = checkpoint.tokenizer(text, return_tensors="pt")["input_ids"]
    tiny, short = random_checkpoint(TINY), dict.fromkeys(lengths, 4)
    edit(tiny, random_instances(TINY, 1, short)[0], block=0, settings=settings_for(TINY, "published", short))  # imports
    del tiny
    gc.collect()
    reset_peak_memory()
    if kind == "forward":
        with torch.no_grad():
            checkpoint.model(input_ids=ids, use_cache=False)
    else:
        edit(checkpoint, instance, block=block, settings=settings)
    weight = checkpoint.value_matrix(block)
    return {"peak": peak_bytes() / 2**20, "weight": weight.numel() * weight.element_size() / 2**20}


def peak_in_fresh_process(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--peak", kind, "--threads", str(arguments.threads)]
    done = subprocess.run([*command, *["--tiny"] * arguments.tiny], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measured turns of every side")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs; the ratios mean nothing")
    parser.add_argument("--peak", choices=("forward", "edit"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    twelve, organism = (TINY, TINY) if arguments.tiny else (TWELVE_BLOCKS, ORGANISM)
    more = replace(twelve, num_hidden_layers=2 * twelve.num_hidden_layers)
    lengths, longer = (
        {name: length // 5 for name, length in kind.items()} if arguments.tiny else kind for kind in (LENGTHS, LONGER)
    )
    if arguments.peak:
        print(json.dumps(peak(arguments.peak, twelve, lengths)))  # noqa: T201 - read by the process that started this
        return
    repeats = 1 if arguments.tiny else arguments.repeats
    few, many = (2, 4) if arguments.tiny else (16, 64)
    ratios: dict[str, float] = {}
    seconds: Seconds = {}
    for blocks, shape in (("12", twelve), ("24", more)):
        for ending, texts in (("", lengths), ("_longer", longer)):
            times, ratio, flops = against_released(shape, texts, repeats)
            ratios |= {f"released_over_ours_{blocks}{ending}": ratio, f"flops_{blocks}{ending}": flops}
            seconds |= times
    for ending, shape, count, turns in (("", organism, many, repeats), ("_12", twelve, few, max(1, repeats // 2))):
        times, ratios[f"one_by_one_over_together{ending}"] = against_one_by_one(shape, count, lengths, turns)
        seconds |= times
    forward, edited = (peak_in_fresh_process(kind, arguments) for kind in ("forward", "edit"))
    ratios["memory_copies"] = (edited["peak"] - forward["peak"]) / edited["weight"]
    report(
        "Editing",
        {
            "models": f"{twelve}; twice the blocks; {organism}; float32, random weights",
            "texts": ", ".join(f"{name} {length} tokens" for name, length in lengths.items()),
            "edit": "W_V of the last block, 10 steps of Adam",
            "device": f"CPU, {arguments.threads} threads",
            "memory": f"peak of a forward pass {forward['peak']:.0f} MB, of an edit {edited['peak']:.0f} MB, "
            f"W_V {edited['weight']:.1f} MB",
        },
        time_rows(seconds),
        ratios,
        TARGETS,
    )


if __name__ == "__main__":
    main()

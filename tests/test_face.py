"""The face: its names, what it takes, what its results show, and how it refuses."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from checkpoint_folder import INSTANCES, SETTINGS, make_folder
from command_line import call
from conftest import N_BLOCKS, PROMPTS, RESPONSES, tiny_checkpoint

import mechinterp as mi
from mechinterp.audit.relapse.results import RelapseTest
from mechinterp.data.facts.conflicts import round_of_fact
from mechinterp.data.showing import shown
from mechinterp.face.loading import weights_of
from mechinterp.models.quiet import quieted

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

COMMENTS = [mi.Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


# -- names ------------------------------------------------------------------------------------------------------------


def test_type_checkers_and_users_see_the_same_names() -> None:
    tree = ast.parse(Path(mi.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body for alias in node.names if isinstance(node, ast.ImportFrom)}
    assert typed == mi._HOME_OF
    assert sorted(mi.__all__) == sorted(typed)
    for name, module in typed.items():
        assert getattr(mi, name) is getattr(importlib.import_module(module), name)
        assert getattr(mi, name).__doc__
    assert set(mi.__all__) <= set(dir(mi))


def test_the_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pandas", "transformers", "matplotlib", "sklearn", "pydantic", "rich")
    code = f"import sys, mechinterp; dir(mechinterp); print(*[name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout.strip(), found.stderr) == ("", "")


def test_a_name_that_is_not_there_suggests_the_near_one() -> None:
    with pytest.raises(AttributeError, match=r"^module 'mechinterp' has no 'comparee'; did you mean 'compare'\?$"):
        mi.comparee  # noqa: B018
    with pytest.raises(AttributeError, match=r"^module 'mechinterp' has no 'zzzz'$"):
        mi.zzzz  # noqa: B018


# -- checkpoints of every kind ----------------------------------------------------------------------------------------


def test_a_checkpoint_in_memory_passes_through() -> None:
    checkpoint = tiny_checkpoint("llama")
    assert mi.load(checkpoint) is checkpoint
    renamed = mi.load(checkpoint, name="mine")
    assert (renamed.name, renamed.model) == ("mine", checkpoint.model)


@pytest.mark.parametrize("kind", ["edit", "adapter", "state.safetensors"])
def test_what_stands_on_a_base_in_memory_is_what_stands_on_its_files(folder: Path, kind: str) -> None:
    base = mi.load(folder / "base")
    before = base.fingerprint
    on_memory = mi.load(folder / kind, base=base)
    assert on_memory.fingerprint == mi.load(folder / kind, base=folder / "base").fingerprint != before
    assert mi.load(base, name="again").fingerprint == before  # it was left as it was
    if kind != "state.safetensors":
        assert on_memory.source == f"{folder / kind} on {folder / 'base'}"


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_weights_in_memory_read_as_their_files_do(architecture: str, tmp_path: Path) -> None:
    a, b = (tiny_checkpoint(architecture, seed=seed) for seed in (0, 1))
    places = a.save(tmp_path / "a"), b.save(tmp_path / "b")
    lazy, files = weights_of(a), weights_of(places[0])
    assert lazy.parameters == files.parameters
    assert lazy.fingerprint == files.fingerprint == a.fingerprint
    pd.testing.assert_frame_equal(mi.diff(a, b).table, mi.diff(*places).table)
    direction = torch.randn(a.names.d_model, generator=torch.Generator().manual_seed(0))
    regions = [
        mi.regions(base, direction, against={"b": other}, draws=10).table for base, other in ((a, b), (places[0], b))
    ]
    pd.testing.assert_frame_equal(*regions)
    listed = [
        mi.vectors(base, direction, against={"b": other}, top=3).table
        for base, other in ((a, b), (places[0], places[1]))
    ]
    pd.testing.assert_frame_equal(*listed)


def test_weights_of_an_adapter_and_an_edit(folder: Path) -> None:
    changed = mi.diff(folder / "base", folder / "edit").table.query("status == 'changed'")
    assert list(changed["parameter"]) == ["model.layers.2.mlp.down_proj.weight"]
    assert mi.diff(mi.load(folder / "base"), folder / "edit").table.equals(
        mi.diff(folder / "base", folder / "edit").table
    )
    assert not mi.diff(folder / "base", folder / "adapter").identical


def test_an_adapter_stands_on_the_model_that_it_names_beside_any_other_in_memory(folder: Path) -> None:
    other = mi.load(folder / "tuned")
    beside_files = mi.diff(folder / "tuned", folder / "adapter").table
    pd.testing.assert_frame_equal(mi.diff(other, folder / "adapter").table, beside_files)
    on_its_own = weights_of(folder / "adapter", other).tensor("model.embed_tokens.weight")
    assert torch.equal(on_its_own, mi.load(folder / "base").model.get_input_embeddings().weight)


def tables_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "tables").glob("*.csv"))}


@pytest.mark.usefixtures("quick_comparison")
def test_memory_paths_adapters_and_edits_give_the_command_lines_tables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as quick for the command, which has no options for it, as for the face
    monkeypatch.setattr("mechinterp.audit.evidence.ComparisonSettings", lambda **_: SETTINGS)
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])
    monkeypatch.setattr("mechinterp.report.write_report", lambda *_, **__: None)
    data = tmp_path / "data.json"
    mi.write_safeedit(INSTANCES, data)
    options = ["--base", folder / "base", "--probe", folder / "probe.safetensors", "--data", data, "--layer", 2]
    for name in ("tuned", "adapter", "edit"):
        options += ["--checkpoint", f"{name}={folder / name}"]
    assert call("compare", *options, "--out", tmp_path / "command") == 0
    given = {"block": 2, "probe": folder / "probe.safetensors", "progress": False}
    settings = SETTINGS
    base = mi.load(folder / "base")
    mixed = {"tuned": mi.load(folder / "tuned"), "adapter": folder / "adapter", "edit": str(folder / "edit")}
    found = mi.compare(base, mixed, INSTANCES, settings=settings, out=tmp_path / "face", **given)
    assert tables_of(found.path) == tables_of(tmp_path / "command")
    assert len(tables_of(found.path)) > 5
    mixed = {
        "tuned": folder / "tuned",
        "adapter": mi.load(folder / "adapter"),
        "edit": mi.WeightDelta.load(folder / "edit"),
    }
    found = mi.compare(folder / "base", mixed, data, settings=settings, **given)
    assert tables_of(found.path) == tables_of(tmp_path / "command")
    assert base.fingerprint == mi.load(folder / "base").fingerprint
    place = found.path
    assert place.is_dir()
    del found
    assert not place.exists()  # it goes with its object


def test_a_comparison_that_fails_leaves_no_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    probe = mi.fit_probe(folder / "tuned", COMMENTS)
    with pytest.raises(mi.InputError, match=r"^the probe belongs to other weights .*make one for this base"):
        mi.compare(folder / "base", {"tuned": folder / "tuned"}, INSTANCES, probe=probe, settings=SETTINGS, block=1)
    assert not list(tmp_path.iterdir())


# -- results ----------------------------------------------------------------------------------------------------------


def made(folder: Path) -> dict[str, Any]:
    """A result of each kind."""
    base, tuned = mi.load(folder / "base"), mi.load(folder / "tuned")
    probe = mi.fit_probe(base, COMMENTS)
    answers = mi.generate(base, PROMPTS, max_new_tokens=3, judge=lambda texts: torch.arange(len(texts)).numpy() % 2.0)
    return {
        "checkpoint": base,
        "recording": mi.record(base, PROMPTS),
        "responses": answers,
        "scores": mi.score(base, PROMPTS, RESPONSES),
        "probe": probe,
        "direction": mi.means_direction(base, mi.Concept("refusing", ("No.",), ("Yes.",))),
        "diff": mi.diff(base, tuned),
        "regions": mi.regions(base, probe, against={"tuned": tuned}, draws=10),
        "vectors": mi.vectors(base, probe, against={"tuned": tuned}, top=3),
        "edit": mi.WeightDelta.load(folder / "edit"),
        "tokens": mi.show_tokens(base, "How do I do it?"),
    }


def test_a_line_says_what_each_noun_is(folder: Path, own_runs: Path) -> None:
    run, one = own_runs / "seed0", mi.InputError("one line")
    nouns = [*made(folder).values(), one, COMMENTS[0], mi.ComparisonSettings(), mi.RelapseSettings(), mi.open_run(run)]
    nouns += [mi.Concept("refusing", ("No.",) * 100, ("Yes.",) * 100)]
    kept = mi.Baseline.load(run / "evidence" / "base")
    nouns += [kept, mi.Evidence.load(run / "evidence" / "sft")]
    texts, kinds = [f"sorry {n}" for n in range(9)] + [f"fool {n}" for n in range(9)], [True] * 9 + [False] * 9
    nouns += [mi.EmbeddedJudge.fit(texts, kinds, seed=0), mi.FoldJudge.of_instances(INSTANCES, seed=0)]
    nouns += [mi.ClassifierJudge(torch.nn.Linear(2, 2), None, 0, "a judge")]
    nouns += [mi.KeywordJudge(("fool",) * 100), mi.TwoJudges(nouns[-3], nouns[-2]), mi.Columns()]
    nouns += [mi.Pair(prompt="How?", unsafe="So.", safe="No.")]
    nouns += [mi.AttackSettings(), mi.OriginsSettings(), mi.OriginTables(mi.open_run(run))]
    nouns += [mi.Depths(mi.open_run(run).table("depth"), pd.DataFrame())]
    nouns += [
        mi.CircuitSettings(),
        mi.Scopes((("Where?", "here"),) * 100),
        mi.Topic("tea", {"pos": ("good",), "neg": ("bad",)}),
    ]
    nouns += [mi.PromptPair(clean="A B", corrupted="A C", right="D", wrong="E")]
    nouns += [noun(mi.open_run(run)) for noun in (mi.Circuits, mi.EditTables, mi.FactTables, mi.TraitTables)]
    fact = mi.Fact("France", "The capital of {} is", "Rome")
    nouns += [fact, mi.Query(("Where?",) * 100, "here"), mi.Conflict("coverage", fact, fact)]
    nouns += [
        round_of_fact(mi.Fact("France", "The capital of {} is", "Rome", "Paris"), []),
        mi.KnownFacts("base", (fact,) * 100, ()),
    ]
    nouns += [mi.Behaviour.of("polite", lambda prompts, responses: responses, shown="polite", so="politely")]
    nouns += [mi.GradientRegion(pd.DataFrame({"located": [True]}), ("w",), 0.9, 0.1)]
    nouns += [
        mi.SecondMoments({0: torch.eye(4)}, 100, "ab12"),
        mi.UnlearningTables(pd.DataFrame({"quantity": []}), pd.DataFrame()),
    ]
    public = {name for name in mi.__all__ if isinstance(getattr(mi, name), type)}
    assert public <= {type(noun).__name__ for noun in nouns}
    more = [
        mi.open_study(run),
        kept.inputs,
        RelapseTest.load(next((run / "relapse").glob("*/relapse.json")).parent),
    ]
    for noun in [*nouns, *more, weights_of(folder / "base")]:
        said = repr(noun)
        assert "\n" not in said
        assert "tensor(" not in said
        assert "Embedding" not in said
        assert type(noun).__name__ in said
        assert len(said) < 400, said
    width = nouns[0].names.d_model
    said = f"<Checkpoint base, llama, {N_BLOCKS} blocks, d_model {width}, float32, from {folder / 'base'}>"
    assert repr(nouns[0]) == said


def test_results_show_themselves_and_can_be_kept(folder: Path, tmp_path: Path) -> None:
    results = made(folder)
    for name, result in results.items():
        page = result._repr_html_()
        assert page.startswith("<div>"), name
        assert len(page) < 20_000, name
        assert "<table" in page, name
    for name, result in results.items():
        if name == "checkpoint":
            continue
        place = tmp_path / (f"{name}.safetensors" if name in ("recording", "probe", "direction") else name)
        result.save(place)
        assert type(result).load(place)._repr_html_() == result._repr_html_(), name
        if hasattr(result, "table"):
            pd.testing.assert_frame_equal(type(result).load(place).table, result.table)
    assert list(results["recording"].groups) == [mi.h_down(block) for block in range(N_BLOCKS)]
    assert results["responses"].unsafe == 0.6
    assert results["responses"][:2] == results["responses"].texts[:2]
    with pytest.raises(mi.InputError, match="not the folder of a saved scores"):
        type(results["scores"]).load(tmp_path / "responses")


def test_what_is_shown_is_escaped_and_short() -> None:
    table = pd.DataFrame({"text": ["<script>alert(1)</script>"] * 30, "value": 0.123456789})
    page = shown("<b>me</b>", {"of": "<i>", "nothing": ""}, table, note="a < b", rows=5)
    assert "<script>" not in page
    assert "<b>me</b>" not in page
    assert "nothing" not in page
    assert page.count("alert(1)") == 5
    assert "and 25 rows more" in page
    assert "0.1235" in page
    answers = mi.Responses("<img>", ("<p>",), ("<b>bold</b>",))
    assert "<b>bold</b>" not in answers._repr_html_()
    assert "<img>" not in answers._repr_html_()
    assert "&lt;img" in mi.show([{"a": "<img>"}])._repr_html_()


def test_a_relapse_test_shows_its_verdict(own_runs: Path) -> None:
    kept = sorted((own_runs / "seed0" / "relapse").glob("*/relapse.json"))
    page = RelapseTest.load(kept[0].parent)._repr_html_()
    assert "relapse test of" in page
    assert "verdict" in page


def test_a_figure_of_a_run_shows_itself(own_runs: Path, tmp_path: Path) -> None:
    run = mi.open_run(own_runs / "seed0")
    data, metadata = run.plot("erase_or_bypass")._repr_png_()
    assert data == b"png"  # the tests' stand-in
    assert metadata == {"width": round(117 * run.plot("erase_or_bypass").figure.get_figwidth())}
    saved = run.plot("erase_or_bypass").save(tmp_path)
    assert [path.name for path in saved] == ["erase_or_bypass.png", "erase_or_bypass.pdf"]
    assert "verdict" in run._repr_html_()


# -- mistakes ---------------------------------------------------------------------------------------------------------


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(mi.InputError) as stop:
        work()
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_mistakes_are_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    probe = mi.ToxicProbe.load(folder / "probe.safetensors")
    comparison = {"data": INSTANCES, "probe": probe}
    assert "no such folder" in refused(lambda: mi.load("./nonsense"))
    assert "nonsense" in refused(lambda: mi.load("nonsense"))
    no_checkpoint = {"it": mi.Responses("m", (), ())}
    assert "it is a Responses; give a checkpoint" in refused(lambda: mi.compare(base, no_checkpoint, **comparison))
    assert "no tuned checkpoints" in refused(lambda: mi.compare(base, {}, **comparison))
    assert "names the checkpoints" in refused(lambda: mi.compare(base, ["runs/sft"], **comparison))
    assert "plain name" in refused(lambda: mi.compare(base, {"a/b": base}, **comparison))
    assert "its name as a text" in refused(lambda: mi.compare(base, {1: base}, **comparison))
    assert "name of the base" in refused(lambda: mi.compare(base, {"base": base}, **comparison))
    for wrong, said in (
        ({"block": "1"}, "a block's number"),
        ({"distance": "residul"}, "did you mean 'residual'"),
        ({"settings": {"max_new_tokens": 3}}, "give mi.ComparisonSettings(...)"),
        ({"origins": "yes"}, "give False, or mi.OriginsSettings(...)"),
        ({"judge": 3}, "judge is a int"),
        ({"data": ["a text"]}, "no list of pairs"),
        ({"never": 3}, "never is a int"),
        ({"seed": 0.5}, "`seed` is 0.5; give a whole number"),
    ):
        assert said in refused(lambda wrong=wrong: mi.compare(base, {"same": base}, **{**comparison, **wrong}))
    assert "give one (`never`)" in refused(lambda: mi.depth(base, base, None, INSTANCES))
    for options in ({"quantise": 3}, ["quantise"]):
        assert "by name" in refused(lambda given=options: mi.attack(base, base, "quantise", INSTANCES, options=given))
    for seed in (-1, "0", True):
        assert "give a whole number from 0 on" in refused(
            lambda given=seed: mi.fit_probe(base, "comments.csv", seed=given)
        )
    for odd, said in (
        ({"knowledge": "gone.json"}, "gone.json"),
        ({"knowledge": [("Q", 3)]}, "`knowledge`: entry 1 is not [question, answer]"),
        ({"knowledge": {"Q": "A"}}, "give a list of (question, answer)"),
        ({"benign": ["Hello.", 3]}, "`benign`: entry 2 is no JSON object, and no text"),
        ({"benign": {"Hello."}}, "give a list of prompts"),
    ):
        assert said in refused(lambda given=odd: mi.attack(base, base, "quantise", INSTANCES, **given))
    gone = {"data": tmp_path / "gone.json", "probe": probe}
    assert "gone.json" in refused(lambda: mi.compare(base, {"same": base}, **gone))
    wrong = {"data": INSTANCES, "probe": {"a": 1}}
    assert "mi.fit_probe" in refused(lambda: mi.compare(base, {"same": base}, **wrong))
    assert "not a list" in refused(lambda: mi.generate(base, "one text"))
    assert "not a list" in refused(lambda: mi.record(base, "one text"))
    assert "other weights" in refused(lambda: mi.regions(folder / "tuned", probe, draws=10))
    assert "a direction is" in refused(lambda: mi.regions(base, 3, draws=10))
    assert "no direction is given" in refused(lambda: mi.vectors(base, {}))
    assert "no such run folder" in refused(lambda: mi.open_run(tmp_path / "gone"))
    assert "not the folder of a run" in refused(lambda: mi.open_study(tmp_path))


# -- what is told meanwhile -------------------------------------------------------------------------------------------


def test_bars_can_be_asked_for_and_turned_off(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_checkpoint("llama")
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))  # imported by what starts kernels, too
    mi.record(checkpoint, PROMPTS)  # nobody watches
    mi.record(checkpoint, PROMPTS, progress=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    mi.record(checkpoint, PROMPTS, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("TQDM_DISABLE")
    mi.record(checkpoint, PROMPTS, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "recording" in err


def test_libraries_are_as_talkative_afterwards_as_before() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)
    try:
        logging.set_verbosity_info()
        with quieted():
            assert logging.get_verbosity() == logging.ERROR
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before[0])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)) == before

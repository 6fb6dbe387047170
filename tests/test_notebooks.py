"""The notebooks: they run from beginning to end, and what is committed has the kinds of outputs that a run leaves.

The tables have the same columns too; numbers differ between machines and are not compared.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("01_erase_or_bypass", "02_probe_your_checkpoint", "03_neurons_and_relapse", "04_circuits", "05_unlearning")
ANEW = """
%reset -f
import gc
import sys

import mechinterp.report.picture  # what is shown is rendered
from mechinterp.report import page, plates

sys.path.append({tests!r})
import stand_ins

page.draw_figures = plates.draw_figures = stand_ins.drawn if {whole} else stand_ins.drawn_once
plates.rendered = getattr(plates, "rendered", plates.figure_bytes)
plates.figure_bytes = lambda figure, kind="png", whole={whole}, render=plates.rendered: (
    render(figure) if whole and kind == "png" else kind.encode()
)
gc.freeze()  # the libraries are not looked through whenever garbage is collected
%reset -f
"""
"""Run before a lesson: it has no name of another, and figures in files are stand-ins unless `whole`."""
FEWER = {
    "steering_inputs=12, null_draws=10": "max_new_tokens=4, steering_inputs=4, middle_inputs=4, null_draws=2",
    "steering_inputs=24": "max_new_tokens=4, steering_inputs=4, middle_inputs=4, null_draws=8",
    "RelapseSettings(prompts=20,": "RelapseSettings(prompts=4,",
    "CircuitSettings(pairs=16, random=10)": "CircuitSettings(pairs=8, random=2)",
    '"steps": 60': '"steps": 6',
    "prompts=24, options": "prompts=4, options",
    '"steps": [10]': '"steps": [2]',
}
"""What the lessons ask for, and how much less is enough to see that they run: they leave the same kinds of outputs."""
REMARKS = re.compile(
    r"^\d+ of (the )?\d+ .*(they are neutral|each text counts once)$"
    r"|^\w+: the edges out of the input make up .* take more `steps`$",
    re.MULTILINE,
)
"""What is said of a study as small as the tests' own, and not of the one whose outputs are committed."""


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def shortened(lessons: Iterable[NotebookNode]) -> None:
    """Ask for less in every lesson; each of the texts that are replaced is found once."""
    cells = [cell for lesson in lessons for cell in code(lesson)]
    for much, little in FEWER.items():
        (found,) = (cell for cell in cells if much in cell.source)
        found.source = found.source.replace(much, little)


def executor() -> Callable[..., NotebookNode]:
    """What `make notebooks` runs; the folder is no package."""
    found = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.execute


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shows(source: str) -> bool:
    """Whether a cell prints, or ends with a value."""
    last = ast.parse(source).body[-1]
    return "print(" in source or isinstance(last, ast.Expr)


def kinds(cell: NotebookNode) -> set[str]:
    """What a cell leaves: streams by name, and types of data."""
    streams = [output for output in cell.outputs if output.output_type == "stream"]
    found = {stream.name for stream in streams if REMARKS.sub("", stream.text).strip()}
    return found | {kind for output in cell.outputs for kind in output.get("data", {})}


def headings(cell: NotebookNode) -> list[str]:
    """The headings of the tables that a cell shows; the names of rows may come from numbers."""
    pages = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
    heads = [head for page in pages for head in re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL)]
    return [text for head in heads for text in re.findall(r"<th(?: [^>]*)?>(.*?)</th>", head, re.DOTALL)]


def test_no_notebook_is_left_out() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_with_the_outputs_of_one_run(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert bool(cell.outputs) == shows(cell.source), cell.source
        assert {output.output_type for output in cell.outputs} <= {"stream", "display_data", "execute_result"}
        assert "stderr" not in {output.get("name") for output in cell.outputs}, cell.outputs
        text = str(cell.outputs)
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr|opt|var|mnt)/", text), cell.source
        assert " object at 0x" not in text, cell.source
        assert "execution" not in cell.metadata, "times of one run: use `make notebooks`"
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1e6


def test_lessons_are_written_on_the_face() -> None:
    """What a lesson needs of this package is the face, and at most one line more."""
    for name in NAMES:
        tree = ast.parse("\n".join(cell.source for cell in code(read(name))))
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert "mechinterp" in modules
        assert sum(str(module).startswith("mechinterp") for module in modules) <= 2
        assert set(modules).isdisjoint({"os", "pathlib", "pandas", "IPython.display", "matplotlib"})


@pytest.fixture(scope="module")
def executed(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """The lessons, each run from beginning to end, one after the other in one kernel, which imports the libraries once.

    On a small study that is finished, with less asked for; `make notebooks` runs each on its own, on the default one.
    The second lesson compares two checkpoints and has every plate of them rendered.
    """
    folder = tmp_path_factory.mktemp("lessons")
    shutil.copytree(small_runs, folder / "runs")
    for place in ("notebooks", "analyses/configs"):  # the lessons' paths lead from their own folder to these
        (folder / place).mkdir(parents=True)
    shutil.copytree(folder / "runs" / "seed0", folder / "runs" / "organism-methods-seed0")
    for config in ("organism", "organism-methods"):
        shutil.copy(small_runs / "small.yaml", folder / "analyses" / "configs" / f"{config}.yaml")
    lessons = {name: read(name) for name in NAMES}
    shortened(lessons.values())
    whole = new_notebook()
    for name, lesson in lessons.items():
        anew = ANEW.format(tests=str(Path(__file__).parent), whole=name == NAMES[1])
        whole.cells += [new_code_cell(anew), *lesson.cells]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IPYTHONDIR", str(folder / "ipython"))
        executor()(whole, folder / "notebooks")  # raises at the first cell that does
    return lessons


@pytest.mark.filterwarnings("ignore")  # the client's own; those of the cells would be outputs
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_beginning_to_end(name: str, executed: dict[str, NotebookNode]) -> None:
    found, committed = ([(kinds(cell), headings(cell)) for cell in code(each)] for each in (executed[name], read(name)))
    assert found == committed

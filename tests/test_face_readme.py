"""Every example of mechinterp/README.md runs, in its order, and every name of the face has one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import mechinterp as mi

PAGE = (Path(mi.__file__).parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_name_has_an_example() -> None:
    shown = "\n".join(EXAMPLES)
    assert [name for name in mi.__all__ if not re.search(rf"\bmi\.{name}\b", shown + PAGE)] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
def test_every_example_runs(own_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(own_runs / "small.yaml", tmp_path / "study.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])
    monkeypatch.setattr("mechinterp.report.write_report", lambda *_, **__: None)
    known: dict[str, object] = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"example {number}: {example[:60]}", "exec"), known)
    assert isinstance(known["found"], mi.RunFolder)
    known.clear()  # a function among them knows them all: their temporary folders go now, and not in another test

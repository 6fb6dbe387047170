"""The house stays habitable: files to read at one sitting, a README that is a door, rooms that say what they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
MODULES = sorted((REPOSITORY / "mechinterp").rglob("*.py"))
ROOMS = ("cli", "runs", "report", "audit", "answers", "methods", "models", "measures", "data")


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_there_are_nine_rooms_and_each_says_what_belongs_in_it() -> None:
    found = {path.parent.name for path in (REPOSITORY / "mechinterp").glob("*/__init__.py")}
    assert found == {*ROOMS, "face"}
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((REPOSITORY / "mechinterp" / room / "__init__.py").read_text()))
        assert f"| `{room}/` |" in (REPOSITORY / "mechinterp" / "README.md").read_text()


def test_the_readme_is_a_door() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "page",
    sorted(REPOSITORY.glob("*.md")) + sorted(REPOSITORY.glob("[!.r]*/**/*.md")),
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    places = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
    missing = [place for place in places if "://" not in place and place and not (page.parent / place).exists()]
    assert missing == []

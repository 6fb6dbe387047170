"""The code that a stage depends on: read from the source, without comments, along the imports."""

from __future__ import annotations

import ast
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mechinterp.data.storage import provenance
from mechinterp.data.storage.provenance import code_of, modules_of

REPOSITORY = Path(__file__).parent.parent
FRONT = REPOSITORY / "mechinterp" / "cli" / "__init__.py"  # through which nothing that is measured goes
FACE = REPOSITORY / "mechinterp" / "__init__.py"
MODULES = {
    "__init__.py": '"""A package."""\n',
    "top.py": "from mechinterp.part import Thing, helper\n\n\ndef run():\n    return Thing(helper())\n",
    "part/__init__.py": """
from mechinterp.part.other import Other
from mechinterp.part.thing import Thing
from mechinterp.part.thing import assist as helper
""",
    "part/thing.py": """
from typing import TYPE_CHECKING

import mechinterp.far

if TYPE_CHECKING:
    from mechinterp.part.other import Other

SIZE = 1


class Thing:
    pass


def assist():
    from mechinterp.late import late

    return late(SIZE)
""",
    "part/other.py": "class Other:\n    pass\n",
    "far.py": "FAR = 1\n",
    "late.py": "from mechinterp import far\n\n\ndef late(size):\n    return size + far.FAR\n",
    "unused.py": "from mechinterp import top\n",
}

Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Puts a small package in the place of this one; modules may be given another text."""

    def clear() -> None:
        for name in ("code_of", "_place", "_tree", "_code", "_imported"):
            getattr(provenance, name).cache_clear()

    def put(root: object = None, **changed: str) -> None:
        folder = tmp_path / "mechinterp"
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in {**MODULES, **{f"{part}.py": text for part, text in changed.items()}}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.setattr(provenance, "files", lambda _: root or folder)
        clear()

    clear()
    yield put
    monkeypatch.undo()
    clear()


def test_imports_are_followed_to_where_names_are_defined(package: Package) -> None:
    package()
    names = ["far", "late", "part.thing", "top"]  # not the other part, which is for type checkers and handed on
    assert modules_of("mechinterp.top") == [f"mechinterp.{name}" for name in names]
    assert modules_of("mechinterp.far") == ["mechinterp.far"]
    assert "mechinterp.part.other" in modules_of("mechinterp.part")
    with pytest.raises(ValueError, match=r"'mechinterp\.nothing' is no module of mechinterp"):
        modules_of("mechinterp.nothing")


def test_what_does_nothing_does_not_count_and_what_does_something_counts(package: Package) -> None:
    package()
    before, far, late = code_of("mechinterp.top"), MODULES["far.py"], MODULES["late.py"]
    for text in (f"# a remark\n\n\n{far}", f'"""A docstring."""\n\n{far}', f'{far}"""What it is."""\n', "FAR  =  (1)"):
        package(far=text)
        assert code_of("mechinterp.top") == before
    for changed in (
        {"unused": "x = 1\n"},
        {"late": late.replace("    return", '    """Late."""\n    # now\n    return')},
    ):
        package(**changed)
        assert code_of("mechinterp.top") == before
    for changed in ({"far": "FAR = 2\n"}, {"late": late.replace("+", "-")}, {"far": f"{far}x = 2\n"}):
        package(**changed)
        assert code_of("mechinterp.top") != before


def test_a_package_in_a_zip_is_read_and_one_without_source_goes_by_its_version(
    package: Package, tmp_path: Path
) -> None:
    package()
    before = code_of("mechinterp.top")
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for name, text in MODULES.items():
            writer.writestr(f"mechinterp/{name}", text)
    package(zipfile.Path(archive, "mechinterp/"))
    assert code_of("mechinterp.top") == before
    compiled = tmp_path / "compiled"
    for name in MODULES:
        (compiled / name).parent.mkdir(parents=True, exist_ok=True)
        (compiled / name).with_suffix(".pyc").write_bytes(b"")
    package(compiled)
    assert code_of("mechinterp.top").startswith("version ")


def test_a_package_that_hands_names_on_does_nothing_else() -> None:
    """So that whoever imports a name through it depends on where the name is defined."""
    for path in sorted({*(REPOSITORY / "mechinterp").rglob("__init__.py")} - {FRONT, FACE}):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            named = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
            text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            assert named or text or isinstance(statement, ast.Import | ast.ImportFrom), path


def test_no_import_escapes() -> None:
    """Neither a relative one nor one by a name that is made at run time, which `modules_of` does not see."""
    for path in sorted((REPOSITORY / "mechinterp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and (node.level or node.names[0].name == "*")), path
            if path == FACE:  # which nothing in the package takes a name from
                continue
            assert not (isinstance(node, ast.ImportFrom) and node.module == "mechinterp"), path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                assert ast.literal_eval(node.args[0]).split(".")[0] != "mechinterp", path

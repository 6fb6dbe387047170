"""The wheel: what is in it, and that it works where there is no repository. Nothing is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the wheel is unpacked, as an installer does it."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("mechinterp", "tests", "analyses"):  # the latter two to be left out
        kept = shutil.ignore_patterns("__pycache__", "benchmarks")
        shutil.copytree(REPOSITORY / name, source / name, ignore=kept)
    backend = "from setuptools.build_meta import build_wheel; build_wheel('dist')"  # as pyproject.toml names it
    build = [sys.executable, "-c", backend]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("mechinterp-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints there, where only the unpacked wheel is `mechinterp`."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_package_and_nothing_else(installed: Path) -> None:
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"mechinterp"}
    (labels,) = installed.glob("*.dist-info")
    assert "mechinterp = mechinterp.cli:main" in (labels / "entry_points.txt").read_text()
    modules = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "mechinterp").rglob("*.py")}
    assert modules == {path.relative_to(installed) for path in (installed / "mechinterp").rglob("*.py")}
    templates = [f"report/templates/report.{kind}" for kind in ("html.j2", "css", "js")]
    for data in ("py.typed", "audit/certificate.csv", *templates):
        assert (installed / "mechinterp" / data).is_file()


def test_it_works_where_there_is_no_repository(installed: Path, tmp_path: Path) -> None:
    code = "import mechinterp as mi; print(mi.__file__, mi.InputError.__name__)"
    assert run(installed, tmp_path, "-c", code).split() == [str(installed / "mechinterp/__init__.py"), "InputError"]
    assert "reproduce" in run(installed, tmp_path, "-m", "mechinterp", "--help")
    plan = run(installed, tmp_path, "-m", "mechinterp", "reproduce", "--dry-run")
    assert "organism" in plan
    assert not list(tmp_path.iterdir())

"""One run at a time in a folder; only what a dead process left of this folder's own is cleared away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mechinterp.data.storage import leftovers
from mechinterp.data.storage.files import replacing, write_text
from mechinterp.errors import InputError
from mechinterp.runs.stages import locked

HOLDS = """
import sys
from pathlib import Path
from mechinterp.data.storage.files import replacing
from mechinterp.runs.stages import locked
with locked(Path(sys.argv[1])), replacing(Path(sys.argv[1]) / "edits") as partial:
    partial.mkdir()
    (partial / "first").touch()
    print(partial, flush=True)
    sys.stdin.read()
"""


def left_by(folder: Path, name: str, kind: str, *, host: str | None = None, pid: int, start: int) -> Path:
    """A folder that a process left."""
    path = folder / f".{name}.{host or leftovers._host()}-{pid}-{start}.{kind}"
    (path / "below").mkdir(parents=True)
    (path / "below" / "text").write_text(kind)
    return path


def ended_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_another_process_holds_the_folder_and_what_it_writes_until_it_dies(tmp_path: Path) -> None:
    run, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(run)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        partial = Path(process.stdout.readline().strip())
        for name in (run, link, tmp_path / "run" / ".." / "run"):
            with pytest.raises(InputError, match="another run is working there"), locked(name):
                pass
        with locked(tmp_path):  # a folder around it
            assert (partial / "first").is_file()
        process.kill()
        process.wait()
    assert partial.is_dir()
    with locked(tmp_path):
        assert partial.is_dir()  # it is below a lock of its own
    with locked(link):
        assert not partial.exists()


def test_only_what_a_dead_process_of_this_host_left_is_cleared(tmp_path: Path) -> None:
    dead, own = ended_process(), os.getpid()
    began = int(leftovers.psutil.Process().create_time())
    cleared = [
        left_by(tmp_path, "edits", "partial", pid=dead, start=began),
        left_by(tmp_path / "deep" / "er", "a.csv", "partial", pid=dead, start=began),
        left_by(tmp_path, "used again", "partial", pid=own, start=began - 1000),  # the number is another process's now
    ]
    there = [
        left_by(tmp_path, "edits", "partial", pid=own, start=began),
        left_by(tmp_path, "edits", "partial", host="0" * 8, pid=dead, start=began),
    ]
    for name in (".download.partial", ".a.1.partial", "b.partial", ".x.old", "mine/.download.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        there.append(tmp_path / name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".lock").touch()
    there.append(left_by(tmp_path / "other", "edits", "partial", pid=dead, start=began))
    elsewhere = left_by(tmp_path.with_name(f"{tmp_path.name} elsewhere"), "e", "partial", pid=dead, start=began)
    (tmp_path / "link").symlink_to(elsewhere.parent)
    with locked(tmp_path):
        assert not [path for path in cleared if path.exists()]
        assert all(path.exists() for path in [*there, elsewhere])


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_that_was_renamed_away_comes_back_unless_the_new_one_is_there(tmp_path: Path, new: bool) -> None:
    dead, began = ended_process(), int(leftovers.psutil.Process().create_time())
    left_by(tmp_path, "edits", "old", pid=dead, start=began)
    left_by(tmp_path, "edits", "partial", pid=dead, start=began)
    if new:
        write_text(tmp_path / "edits" / "below" / "text", "new")
    with locked(tmp_path):
        assert (tmp_path / "edits" / "below" / "text").read_text() == ("new" if new else "old")
        assert not list(tmp_path.glob(".edits*"))


def test_replacing_a_folder_first_brings_the_old_one_back(tmp_path: Path) -> None:
    with replacing(tmp_path / "edits") as partial:
        write_text(partial / "text", "old")
    away = f".edits.{leftovers._host()}-{ended_process()}-{int(leftovers.psutil.Process().create_time())}.old"
    (tmp_path / "edits").rename(tmp_path / away)
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "edits") as partial:
        partial.write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["edits"]
    assert (tmp_path / "edits" / "text").read_text() == "old"


def test_the_lock_takes_nothing_from_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"

"""A folder is replaced whole: killed at any step, old or new is there afterwards, and the user's files in it always."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mechinterp.data.storage import ledger
from mechinterp.data.storage.files import remove, replacing, write_json, write_text
from mechinterp.data.storage.full_disk import unwritable
from mechinterp.data.storage.publishing import publishing
from mechinterp.errors import InputError

# Forks a process for every step, counted over all calls that change a folder, and ends it before that call.
KILLED_AT_EVERY_STEP = """
import os, sys
from pathlib import Path
from mechinterp.data.storage.files import replacing, write_text
from mechinterp.data.storage.publishing import publishing
from mechinterp.runs.stages import locked

CHANGES = ("rename", "replace", "unlink", "rmdir", "link", "mkdir")

def killed_at(step, work):
    if number := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    calls = 0
    def counted(change):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == step:
                os._exit(9)
            return change(*arguments, **options)
        return call
    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    work()
    os._exit(0)

def written(folder, text):
    with replacing(folder) as partial:
        partial.mkdir()
        for name in ("a", "b"):
            write_text(partial / name, text)

def published(folder, text):
    with publishing(folder, "results") as staging:
        write_text(staging / "tables" / "t.csv", text)
        write_text(staging / "tables" / f"{text}.csv", text)
        write_text(staging / "report.html", text)

way, root = sys.argv[1], Path(sys.argv[2])
step, code, seen = 0, 9, set()
while code:
    step += 1
    run = root / str(step)
    place = run / "made" if way == "written" else run
    work = written if way == "written" else published
    with locked(run):
        work(place, "old")
        (place / "mine.txt").write_text("mine")
    code = killed_at(step, lambda: work(place, "new"))
    assert code in (0, 9)
    if way == "published":  # at no time a new table beside the old report
        report, table = place / "report.html", place / "tables" / "t.csv"
        assert not (report.exists() and report.read_text() == "old" and table.read_text() == "new"), step
    with locked(run):
        files = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith((".", "mine"))]
        texts = {path.name: path.read_text() for path in files}
        expected = {"a", "b"} if way == "written" else {"t.csv", "report.html"}
        (text,) = set(texts.values())
        assert set(texts) == expected | ({f"{text}.csv"} if way == "published" else set()), (step, texts)
        assert (place / "mine.txt").read_text() == "mine", step
        unfinished = [p for p in run.rglob(".*") if p.name not in (".lock", ".mechinterp.jsonl")]
        assert not unfinished, (step, unfinished)
        seen.add(text)
        work(place, "newer")  # and it can be written again
assert seen == {"old", "new"}
print(step)
"""


@pytest.mark.parametrize("way", ["written", "published"])
def test_killed_at_any_step_old_or_new_is_whole(tmp_path: Path, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, way, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def write_folder(folder: Path, **texts: str) -> None:
    """A folder of files, each a text, as a command writes one."""
    with replacing(folder) as partial:
        for name, text in texts.items():
            write_text(partial / "below" / name, text)


@pytest.mark.parametrize("call", ["rename", "replace"])
def test_an_interrupt_while_swapping_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_folder(tmp_path / "made", a="old")
    change = getattr(os, call)

    def interrupted(source: Path, target: Path) -> None:
        if call == "replace" and target == tmp_path / "made":
            raise KeyboardInterrupt
        change(source, target)
        if str(target).endswith(".old"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "made", a="new")
    monkeypatch.undo()
    assert (tmp_path / "made" / "below" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_the_user_keeps_in_a_folder_of_ours_stays(tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_folder(made, a="1", b="1")
    (made / "mine").mkdir()
    (made / "mine" / "notes").write_text("mine")
    (made / "empty").mkdir()
    (made / "below" / "notes").write_text("mine")
    (made / "link").symlink_to(tmp_path / "nowhere")
    (made / "below" / "b").write_text("changed by hand")
    write_folder(made, a="2", b="2")
    assert (made / "below" / "a").read_text() == (made / "below" / "b").read_text() == "2"
    assert (made / "below" / "b.kept").read_text() == "changed by hand"
    assert (made / "mine" / "notes").read_text() == "mine"
    assert (made / "empty").is_dir()
    assert os.readlink(made / "link") == str(tmp_path / "nowhere")
    write_folder(made, c="3")
    assert sorted(path.name for path in (made / "below").iterdir()) == ["b.kept", "c", "notes"]
    with pytest.raises(InputError, match="notes: not written by mechinterp"):
        write_folder(made, notes="ours")
    assert (made / "mine" / "notes").read_text() == "mine"
    remove(made)
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == [
        ledger.LEDGER,
        "below/b.kept",
        "below/notes",
        "mine/notes",
    ]


def test_a_file_of_the_users_is_refused_and_a_changed_one_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "ours.json", 1)
    write_json(tmp_path / "ours.json", 2)
    (tmp_path / "ours.json").write_text("3")
    write_json(tmp_path / "ours.json", 4)
    assert [json.loads((tmp_path / name).read_text()) for name in ("ours.json", "ours.json.kept")] == [4, 3]
    (tmp_path / "theirs.json").write_text("5")
    (tmp_path / "link.json").symlink_to("theirs.json")
    (tmp_path / "dangling.json").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    for name in ("theirs.json", "link.json", "dangling.json", "folder"):
        with pytest.raises(InputError, match=rf"{name}: a (file|link|folder) of that name is there"):
            write_json(tmp_path / name, 6)
    assert (tmp_path / "theirs.json").read_text() == "5"
    assert not (tmp_path / "nowhere").exists()


def test_results_of_one_set_make_way_for_it_and_others_stay(tmp_path: Path) -> None:
    def publish(of: str, *names: str) -> None:
        with publishing(tmp_path, of) as staging:
            for name in names:
                write_text(staging / "tables" / name, of)

    publish("one", "a.csv", "b.csv", "c.csv")
    publish("other", "d.csv")
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    (tmp_path / "tables" / "b.csv").write_text("changed by hand")
    publish("one", "a.csv")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["a.csv", "b.csv", "d.csv", "mine.csv"]
    with pytest.raises(InputError, match=r"mine\.csv: a file of that name"):
        publish("one", "e.csv", "mine.csv")
    assert not (tmp_path / "tables" / "e.csv").exists()  # all of them or none


FULL = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    Exception("No space left on device (os error 28)"),
)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_one_line_that_names_the_place(tmp_path: Path, error: Exception) -> None:
    write_text(tmp_path / "made", "old")
    refused = pytest.raises(InputError, match=r"made: cannot be written \((No space|Disk quota)")
    with refused, replacing(tmp_path / "made") as partial:
        partial.write_text("ne")
        raise error
    assert (tmp_path / "made").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"made", ledger.LEDGER}


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    assert unwritable(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "made"):
        (tmp_path / "nowhere").read_text()
    wrapped = RuntimeError("a library's own words")
    wrapped.__cause__ = FULL[0]
    assert unwritable(wrapped) == "No space left on device"

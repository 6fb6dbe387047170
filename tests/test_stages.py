"""Stages are redone when settings, inputs or artefacts changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechinterp.data.storage.files import replacing, write_json, write_text
from mechinterp.data.storage.hashing import hash_path
from mechinterp.errors import InputError
from mechinterp.runs.stages import Runner, Stage, locked


def two_stages(folder: Path, calls: list[str], *, setting: int = 1) -> list[Stage]:
    def first() -> None:
        calls.append("first")
        write_text(folder / "a.txt", f"a{setting}")

    def second() -> None:
        calls.append("second")
        write_text(folder / "b" / "b.txt", (folder / "a.txt").read_text() + "b")

    return [Stage("first", first, ["a.txt"], settings=setting), Stage("second", second, ["b"], needs=["a.txt"])]


def run(folder: Path, calls: list[str], **settings: int) -> None:
    runner = Runner(folder)
    for stage in two_stages(folder, calls, **settings):
        runner.run(stage)


def test_a_second_run_does_nothing_and_a_changed_setting_redoes_what_follows(tmp_path: Path) -> None:
    calls: list[str] = []
    run(tmp_path, calls)
    run(tmp_path, calls)
    assert calls == ["first", "second"]
    run(tmp_path, calls, setting=2)
    assert calls == ["first", "second"] * 2
    assert (tmp_path / "b" / "b.txt").read_text() == "a2b"


@pytest.mark.parametrize(("victim", "redone"), [("a.txt", ["first"]), ("b/b.txt", ["second"])])
@pytest.mark.parametrize("how", ["removed", "changed"])
def test_a_lost_or_altered_artefact_is_made_again(tmp_path: Path, victim: str, redone: list[str], how: str) -> None:
    calls: list[str] = []
    run(tmp_path, calls)
    if how == "removed":
        (tmp_path / victim).unlink()
    else:
        (tmp_path / victim).write_text("something else")
    calls.clear()
    run(tmp_path, calls)
    assert calls == redone  # what was made again is what it was, so nothing after it changes


def test_an_exception_leaves_no_marker_and_no_partial_file(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "half.txt") as partial:
            partial.write_text("half")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        Runner(tmp_path).run(Stage("fails", fail, ["half.txt"]))
    assert not list(tmp_path.rglob("*half*"))
    assert not (tmp_path / "stages" / "fails.json").exists()


def test_a_file_outside_is_an_input_too(tmp_path: Path) -> None:
    source, calls = tmp_path / "source.txt", []
    source.write_text("one")
    stage = Stage("reads", lambda: calls.append(write_text(tmp_path / "x", "x")), ["x"], reads={"source": [source]})
    for content in ("one", "two", "two"):
        source.write_text(content)
        Runner(tmp_path).run(stage)
    assert len(calls) == 2


def test_files_are_readable_as_the_users_mask_says(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as partial:
        partial.touch(mode=0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == write_text(tmp_path / "t", "").stat().st_mode & 0o777 != 0o600


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        locked(tmp_path / "run"),
        pytest.raises(InputError, match="another run is working there"),
        locked(tmp_path / "run"),
    ):
        pass


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "below.json", {})
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file"):
        pass


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "x", "1")
    write_text(tmp_path / "b" / "x", "1")
    write_text(tmp_path / "c" / "y", "1")
    assert hash_path(tmp_path / "a") == hash_path(tmp_path / "b") != hash_path(tmp_path / "c")

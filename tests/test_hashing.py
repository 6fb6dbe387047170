"""Files are hashed whole; an unchanged one is not read again, and one that may have changed is."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from mechinterp.data.storage import hashing
from mechinterp.data.storage.files import write_json, write_text
from mechinterp.data.storage.hashing import Hashes, hash_path
from mechinterp.errors import InputError
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.stages import Runner, Stage

LARGE = 257 * 2**20
"""Bytes: more than were once read whole."""


def hash_text(text: str) -> str:
    """The hash that a file of this text has."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if files had been written long ago."""
    monkeypatch.setattr(hashing, "RECENT", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, without those in the making."""
    real, names = hashing.hashlib.file_digest, []

    def file_digest(stream, digest):
        names.extend(name for name in [Path(stream.name).name] if not name.startswith("."))
        return real(stream, digest)

    monkeypatch.setattr(hashing.hashlib, "file_digest", file_digest)
    return names


@pytest.mark.usefixtures("settled")
def test_a_stage_sees_a_change_in_the_middle_of_a_large_file_it_reads(tmp_path: Path) -> None:
    source, made = tmp_path / "model" / "model.safetensors", []
    source.parent.mkdir()
    with source.open("wb") as stream:
        stream.truncate(LARGE)  # a hole, which takes no room
    stage = Stage("reads", lambda: made.append(write_text(tmp_path / "x", "x")), ["x"], reads={"it": [source.parent]})
    for _ in range(2):
        Runner(tmp_path).run(stage)
    assert len(made) == 1
    with source.open("r+b") as stream:
        stream.seek(3 * 2**20)
        stream.write(b"x")
    Runner(tmp_path).run(stage)
    assert len(made) == 2


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_not_read_again(tmp_path: Path, read: list[str]) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / "folder" / name, name)
    hashes = Hashes(tmp_path / "memory")
    first = hashes.of(tmp_path / "folder")
    write_json(tmp_path / "memory", hashes.news())
    assert sorted(read) == ["a", "b"]
    again = Hashes(tmp_path / "memory")
    assert again.of(tmp_path / "folder") == first == hash_path(tmp_path / "folder")
    write_text(tmp_path / "folder" / "b", "c")
    read.clear()
    assert again.of(tmp_path / "folder") != first
    assert read == ["b"]


@pytest.mark.usefixtures("settled")
def test_a_file_with_its_old_size_and_time_has_changed_all_the_same(tmp_path: Path) -> None:
    file, hashes = write_text(tmp_path / "file", "one"), Hashes()
    before, stat = hashes.of(file), file.stat()
    with file.open("w") as stream:
        stream.write("two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    assert hashes.of(file) == hash_text("two") != before


def test_what_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change once more within one tick of the clock: as if all of its times stood still."""
    file, hashes = tmp_path / "file", Hashes(tmp_path / "memory")
    file.write_text("one")
    state = hashing.state_of(file)
    monkeypatch.setattr(hashing, "state_of", lambda _: state)
    assert hashes.of(file) == hash_text("one")
    file.write_text("two")
    assert hashes.of(file) == hash_text("two")
    assert read == ["file", "file"]
    assert not hashes.news()
    monkeypatch.setattr(hashing, "RECENT", -3600)  # control: what is long past is remembered
    assert hashes.of(file) == hash_text("two") == hashes.of(file)
    assert len(read) == 3


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hashes, real = write_text(tmp_path / "file", "one"), Hashes(), hashing.hashlib.file_digest

    def slowly(stream, digest):
        found = real(stream, digest)
        file.write_text("other")
        return found

    monkeypatch.setattr(hashing.hashlib, "file_digest", slowly)
    hashes.of(file)
    monkeypatch.setattr(hashing.hashlib, "file_digest", real)
    assert hashes.of(file) == hash_text("other")


@pytest.mark.usefixtures("settled")
def test_a_damaged_or_foreign_memory_is_no_memory(tmp_path: Path) -> None:
    file = write_text(tmp_path / "file", "one")
    for content in ("", "[1]", '{"a": 1}', f'{{"{file}": []}}', f'{{"{file}": [1, 2, 3, 4, "wrong"]}}', "\ud800"):
        (tmp_path / "memory").write_bytes(content.encode("utf-8", "surrogatepass"))
        assert Hashes(tmp_path / "memory").of(file) == hash_text("one")


def test_links_are_followed_and_names_count_but_places_do_not(tmp_path: Path) -> None:
    write_text(tmp_path / "real" / "deep" / "file", "one")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "deep").symlink_to(tmp_path / "real" / "deep")
    assert hash_path(tmp_path / "linked") == hash_path(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert hash_path(tmp_path / "link") == hash_path(tmp_path / "real")
    before = hash_path(tmp_path / "real")
    (tmp_path / "real" / "deep" / "up").symlink_to(tmp_path / "real")  # a circle
    assert hash_path(tmp_path / "real") == before
    write_text(tmp_path / "real" / "deep" / "file", "two")
    assert hash_path(tmp_path / "linked") != before
    (tmp_path / "real" / "deep" / "file").rename(tmp_path / "real" / "deep" / "other")
    assert hash_path(tmp_path / "real") != before
    with pytest.raises(InputError, match="no such file or folder"):
        hash_path(tmp_path / "nowhere")


def test_a_checkpoint_is_told_by_its_files_states_only_when_these_have_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "model" / "config.json", "{}")
    write_text(tmp_path / "model" / "model.safetensors", "")
    candidate = Candidate.of(tmp_path / "model", name="a")
    assert candidate.signature() is None  # its weights are looked at
    monkeypatch.setattr(hashing, "RECENT", 0)
    before = candidate.signature()
    assert before is not None
    shutil.copy(tmp_path / "model" / "config.json", tmp_path / "config.json")
    (tmp_path / "model" / "model.safetensors").write_text("x")
    assert candidate.signature() != before

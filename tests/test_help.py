"""The help of every command: whole, however narrow the window is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from command_line import call
from typer.main import get_command

from mechinterp.cli.app import app


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


@pytest.mark.parametrize("columns", [80, 40])
def test_nothing_is_cut_short(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = dict(commands(get_command(app)))
    assert len(found) > 40
    for path, command in found.items():
        assert call(*path, "--help") == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert "…" not in told.out
        wide = [line for line in told.out.splitlines() if len(line.rstrip()) > columns]
        named = ("  --", "Usage: ")  # stand whole, in a line of their own
        assert [line for line in wide if columns == 80 or not line.startswith(named)] == []
        said = "".join(told.out.split())
        for each in command.params:
            assert all(name in said for name in (*each.opts, *each.secondary_opts) if name.startswith("--"))
        for inner in getattr(command, "commands", {}).values():
            assert "".join(inner.help.split("\n\n")[0].split()) in said


@pytest.mark.parametrize("path", [(), ("train",)])
def test_a_group_without_a_command_shows_its_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*path, "--help") == 0
    wanted = capsys.readouterr().out
    assert call(*path) == 2
    assert capsys.readouterr().err.strip() == wanted.strip()

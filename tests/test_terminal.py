"""On a pseudo-terminal, and where there is none: bars, an error or an interrupt in the middle, what cannot be spelt."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import warnings
from pathlib import Path

import pytest

from mechinterp.cli import main, terminal
from mechinterp.models.quiet import quiet_libraries

COMMANDS = """
import logging, sys, time
from mechinterp.cli import app, main
from mechinterp.cli.common import say
from mechinterp.errors import InputError
from mechinterp.cli.terminal import Terminal, print_table

@app.app.command()
def work(steps: int = 3, fail: bool = False, wait: float = 0.2, title: str = "editing") -> None:
    with Terminal() as shown:
        step = shown.progress(title)
        for done in range(1, steps + 1):
            step(done, steps)
            time.sleep(wait)
            if done == 1:
                logging.getLogger("mechinterp.work").warning("one of them was cut")
            if fail:
                raise InputError("instance 2 is too long")
    say("finished")

@app.app.command()
def table(rows: int = 3) -> None:
    shown = [("\\u4e2d\\u6587 \\u0120of [bold]", str(row)) for row in range(rows)]
    print_table("caf\\u00e9 [/b]", ["[token]", "n"], shown)
    say("\\u00fcber\\ud800")

@app.app.command()
def lines(count: int) -> None:
    for number in range(count):
        say(f"line {number}")

main()
"""
STOPPED = "mechinterp: stopped; call again to start anew"
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line with three commands of the test's own, which need no model; started in a second."""
    script = tmp_path_factory.mktemp("terminal") / "commands.py"
    script.write_text(COMMANDS)
    return [sys.executable, str(script)]


def environment(**more: str) -> dict[str, str]:
    names = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "RANK", "LOCAL_RANK", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "TERM": "xterm", "PYTHONPATH": str(Path(terminal.__file__).parents[2]), **more}


def on_a_terminal(
    command: list[str], *, columns: int = 100, once: str = "", interrupts: int = 0, **more: str
) -> tuple[int, str]:
    """Exit code and output of a command on a terminal; Ctrl-C is typed once something has been shown."""
    child, fd = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would its children
        os.execvpe(command[0], command, environment(**more))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    modes = termios.tcgetattr(fd)
    modes[3] |= termios.NOFLSH  # or the system throws away what was written and not yet read when Ctrl-C is typed
    termios.tcsetattr(fd, termios.TCSANOW, modes)
    shown, ends = "", time.monotonic() + 600
    while time.monotonic() < ends and select.select([fd], [], [], 600)[0]:
        try:
            piece = os.read(fd, 65536)
        except OSError:  # Linux's word for the end
            piece = b""
        if not piece:
            break
        shown += piece.decode(errors="replace")
        if interrupts and once in shown:
            interrupts -= 1
            os.write(fd, b"\x03")
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def left(shown: str) -> list[str]:
    """The lines that stay on the terminal: without what was drawn over, and without colours."""
    screen: list[str] = []
    for line in re.sub(r"\x1b\[\?25[hl]|\x1b\[[\d;]*m", "", shown).replace("\r\n", "\n").split("\n"):
        ups = line.count("\x1b[1A")
        if ups:
            del screen[len(screen) - ups :]
        screen.append(re.split(r"\x1b\[2K|\r", line)[-1])
    return [line for line in screen if line.strip()]


def test_the_bar_shows_no_rate_until_it_is_known(commands: list[str]) -> None:
    code, shown = on_a_terminal([*commands, "work", "--steps", "4", "--wait", "0.3", "--title", "edit [/b]"])
    assert code == 0
    assert "Traceback" not in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert re.search(r"edit \[/b\] \S+ 1/4  -:--:--", plain)  # one step: no rate yet
    assert re.search(r"edit \[/b\] \S+ [23]/4 \d+\.\d/s ", plain)
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert left(shown) == ["one of them was cut", "finished"]


def test_an_error_in_the_middle_is_one_line(commands: list[str]) -> None:
    code, shown = on_a_terminal([*commands, "work", "--fail"], columns=40)
    assert code == 2
    assert left(shown) == ["one of them was cut", "mechinterp: instance 2 is too long"]
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert not any(len(line) > 40 for line in left(shown))


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_is_told_in_one_line(commands: list[str], interrupts: int) -> None:
    code, shown = on_a_terminal(
        [*commands, "work", "--steps", "600"], once="2/600", interrupts=interrupts, NO_COLOR="1"
    )
    assert code in ([130] if interrupts == 1 else [130, -signal.SIGINT])  # the second may meet it when all is told
    assert "Traceback" not in shown
    told = [line.removeprefix("^C") for line in left(shown)]
    assert [line for line in told if line] == [
        "one of them was cut",
        STOPPED,
    ]  # the second leaves an empty line or none
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown)  # no colours


def test_elsewhere_there_are_lines_without_control_characters(commands: list[str]) -> None:
    for more in ({}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}):
        done = subprocess.run(
            [*commands, "work", "--wait", "0"], capture_output=True, text=True, env=environment(**more)
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "one of them was cut\n")
    code, shown = on_a_terminal([*commands, "work", "--wait", "0"], TERM="dumb")
    assert (code, shown) == (0, "one of them was cut\r\nfinished\r\n")


def test_a_terminated_command_says_so(commands: list[str]) -> None:
    process = subprocess.Popen(
        [*commands, "work", "--steps", "600"], stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "one of them was cut\n"
    process.terminate()
    assert process.communicate(timeout=600)[1] == f"{STOPPED}\n"
    assert process.returncode == 130


def test_what_cannot_be_spelt_is_escaped(commands: list[str]) -> None:
    for encoding in ("ascii", "latin-1"):
        done = subprocess.run(
            [*commands, "table"], capture_output=True, env=environment(PYTHONIOENCODING=encoding), check=True
        )
        assert done.stderr == b""
        lines = done.stdout.decode(encoding).splitlines()
        assert lines[0].rstrip() == ("caf\\xe9 [/b]" if encoding == "ascii" else "caf\xe9 [/b]")
        assert lines[1].split() == ["[token]", "n"]
        assert lines[2].split() == ["\\u4e2d\\u6587", "\\u0120of", "[bold]", "0"]
        assert lines[-1] == ("\\xfcber\\ud800" if encoding == "ascii" else "\xfcber\\ud800")


def test_output_that_nobody_reads_to_its_end_is_no_error(commands: list[str]) -> None:
    for command in (["lines", "20000"], ["table", "--rows", "3000"]):
        first = subprocess.Popen(
            [*commands, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        assert first.stdout is not None
        assert first.stderr is not None
        assert first.stdout.readline()
        first.stdout.close()
        assert first.stderr.read() == b""
        assert first.wait(60) in (0, 1)
        first.stderr.close()


def test_a_number_of_a_process_alone_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What a batch system or an earlier run leaves behind: the process is alone, writes and speaks."""
    from mechinterp.models import launcher

    for given in ({"RANK": "1"}, {"RANK": "x"}, {"RANK": "1", "WORLD_SIZE": "4"}, {"RANK": "1", "LOCAL_RANK": "1"}):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert (launcher.launched(), launcher.rank(), launcher.is_main()) == (False, 0, True)
        monkeypatch.setattr(sys, "argv", ["mechinterp", "benchmark", "--list"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        assert "self_reminder" in capsys.readouterr().out
        assert not {"RANK", "LOCAL_RANK"} & set(os.environ)  # libraries read them themselves


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "x"}, "RANK must be a whole number, is 'x'"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE must be a whole number, is 'two'"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "there is no RANK"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, of 2 processes"),
    ],
)
def test_a_launchers_variables_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, given: dict[str, str], told: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["mechinterp", "benchmark", "--list"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "unset LOCAL_RANK, RANK and WORLD_SIZE" in line


def test_only_the_libraries_are_silenced() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_libraries()
        for category in (UserWarning, FutureWarning):
            for module in ("__main__", "my_package.torch", "torchless", "mechinterp.audit.top_vectors"):
                warnings.warn_explicit(f"mine, {module}", category, "file.py", 1, module=module)
            for module in ("transformers.modeling_utils", "peft", "torch.nn.modules.linear", "trl.trainer"):
                warnings.warn_explicit(f"theirs, {module}", category, "file.py", 1, module=module)
        warnings.warn("mine, here", stacklevel=1)
    told = [str(warning.message) for warning in seen]
    mine = ["mine, __main__", "mine, my_package.torch", "mine, torchless", "mine, mechinterp.audit.top_vectors"]
    assert told == [*mine, *mine, "mine, here"]


def test_work_that_is_shown_leaves_no_filter_behind() -> None:
    before = list(warnings.filters)
    with terminal.terminal():
        assert warnings.filters != before
    assert warnings.filters == before

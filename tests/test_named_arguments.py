"""A message names the argument of a Python call; on the command line it names what was typed for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import refused
from typer.main import get_command

import mechinterp
from mechinterp.cli.app import app
from mechinterp.cli.arguments import as_options, learn_options

BELOW = sorted(path for path in Path(mechinterp.__file__).parent.rglob("*.py") if "cli" not in path.parts)
OPTION = re.compile(r"(?<![\w-])--(?!no-deps|merge)[a-z]")  # pip has the one, llama.cpp the other


def texts_of(path: Path) -> Iterator[str]:
    """Every text of a module that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
            yield node.value


def options(command: Any) -> set[str]:
    """The parameters of every command that are options."""
    found = {each.name for each in command.params if each.param_type_name == "option"}
    return found.union(*(options(each) for each in getattr(command, "commands", {}).values()))


def test_no_room_below_the_command_line_names_an_option() -> None:
    assert len(BELOW) > 100
    assert {str(path): text for path in BELOW for text in texts_of(path) if OPTION.search(text)} == {}


def test_what_messages_give_a_value_is_an_option_of_a_command() -> None:
    given = {name for path in BELOW for text in texts_of(path) for name in re.findall(r"`(\w+)=[^`]*`", text)}
    assert {"truncate", "dtype", "check"} <= given
    assert given - options(get_command(app)) == {"tie_word_embeddings"}  # of a model's config


@pytest.mark.parametrize(
    ("command", "message", "told"),
    [
        ("probe --model m", "name one with `label_column`", "name one with --label-column"),
        ("evaluate --model m", "a larger `max_new_tokens`", "a larger --max-new-tokens"),
        ("compare --base b", "(`dtype=float32`), (`truncate=True`)", "(--dtype float32), (--truncate)"),
        ("region --model m", "`check=False` or `check=True`", "--no-check or --check"),
        ("train sft --model m", "`truncate=False`, `batch_size=1`", "`truncate=False`, --batch-size 1"),
        (
            "reproduce --config c",
            "`max_new_tokens` as in `mechinterp probe`",
            "`max_new_tokens` as in `mechinterp probe`",
        ),
        ("", "`max_new_tokens`", "`max_new_tokens`"),
        ("attack all --base b", "`attacks`: no such one; `options`: quantise", "NAME: no such one; --set: quantise"),
        ("origins --base b", "`readouts.0`: unknown", "--readout: unknown"),
        ("edit --model m", "rome: `blocks` are 3 and 5", "rome: --layer are 3 and 5"),
        ("train sft --model m", "sft: `lora.rank`: too small", "sft: --lora: too small"),
        ("unlearn npo", "not of `method=rome`, nor `mlp.out`", "not of METHOD, nor `mlp.out`"),
    ],
)
def test_an_argument_is_told_as_the_option_of_the_command(command: str, message: str, told: str) -> None:
    learn_options(get_command(app), command.split())
    assert as_options(message) == told


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("attack quantize {}", "NAME: unknown attack 'quantize'; known are "),
        ("attack quantise {} --set quantise.bit=[4]", "--set: quantise: `bit`: "),
        ("attack quantise {} --set quantize.bits=[4]", "--set: unknown attack 'quantize'"),
        ("origins {} --readout log_ods", "--readout: unknown read-out 'log_ods'; known are "),
        ("relapse {} --treatments value", "--treatments: unknown treatment 'value'; known are "),
        ("circuit --base b --pairs p --out o --share 2", "--share: "),
        ("train sft --model m --data d --out o --lr -1", "sft: --lr: "),
        ("train sft --model m --data d --out o --lora 0", "sft: --lora: "),
        ("attack quantise {} --behaviour lies", "unknown --behaviour 'lies'"),
    ],
)
def test_a_mistake_begins_with_what_was_typed(command: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = command.replace("{}", "--base b --checkpoint a=b --data d --out o").split()
    assert refused(capsys, *given).startswith(f"mechinterp: {told}")

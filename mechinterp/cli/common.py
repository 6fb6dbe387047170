"""What several commands do: load, read, judge."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from mechinterp.cli.arguments import as_options
from mechinterp.cli.chatting import tell
from mechinterp.cli.options import Dtype
from mechinterp.cli.speaking import say as say
from mechinterp.cli.stopping import STOPPING
from mechinterp.data.storage.places import check_name
from mechinterp.errors import InputError
from mechinterp.models.launcher import is_main as is_main
from mechinterp.models.launcher import rank as rank

if TYPE_CHECKING:
    from mechinterp.audit.directions.toxic_direction import ToxicDirection
    from mechinterp.cli.terminal import Terminal
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.text.chat import ChatChoice, ChatFormat

Settings = TypeVar("Settings")


def reporting(*, goes_on: bool = False) -> AbstractContextManager[Terminal]:
    """What long work reports to.

    Args:
        goes_on: the next call goes on from what a stopped one has done, which is then said.
    """
    from mechinterp.cli.terminal import terminal

    STOPPING.goes_on = goes_on
    return terminal()


def refuse(problems: Sequence[str]) -> None:
    """End with the whole list of what keeps a study from running; return if nothing does."""
    if not problems:
        return
    if len(problems) == 1:
        raise InputError(problems[0])
    say(f"mechinterp: the study cannot run; {len(problems)} to put right:", err=True)
    for number, problem in enumerate(problems, 1):
        say(f"  {number}. {as_options(' '.join(problem.split()))}", err=True)
    raise typer.Exit(2)


def loading_options(dtype: Dtype, device: str, device_map: str | None, *, trust_remote_code: bool) -> dict[str, Any]:
    """How a checkpoint is loaded, as `Checkpoint.load` takes it."""
    return {
        "dtype": dtype.value,
        "device": device,
        "device_map": device_map,
        "trust_remote_code": trust_remote_code,
    }


def load(
    model: str,
    dtype: Dtype,
    device: str,
    device_map: str | None = None,
    *,
    base: str | None = None,
    trust_remote_code: bool = False,
    chat: ChatChoice | ChatFormat,
) -> Checkpoint:
    """The checkpoint that the options name; tells in which format texts will be fed to it."""
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.text.chat import template_of

    options = loading_options(dtype, device, device_map, trust_remote_code=trust_remote_code)
    found = Checkpoint.load(model, base=base, chat=chat, **options)
    tell(found.chat, templates=template_of(found.tokenizer) is not None)
    return found


def settings_of(kind: type[Settings], given: dict[str, Any]) -> Settings:
    """Settings from the options that were given; a value out of range is the user's mistake."""
    from pydantic import ValidationError

    from mechinterp.data.validation import Fault

    try:
        return kind(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        fault = Fault.of(error)
        raise InputError(f"`{fault.where}`: {fault.told}") from error


def label_and_path(text: str) -> tuple[str, str]:
    """NAME=PATH, or a path alone, which is called by its last part."""
    from mechinterp.models.sources import Source

    name, separator, path = text.partition("=")
    if separator and name and path and not Path(text).exists():
        return check_name(name, "NAME="), path
    return Source.find(text).name, text


def name_and_path(text: str) -> tuple[str, str]:
    """NAME=PATH, as --checkpoint takes it."""
    name, separator, path = text.partition("=")
    if not (separator and name and path):
        raise InputError(f"--checkpoint takes NAME=PATH, got {text!r}")
    return check_name(name, "--checkpoint"), path


def read_direction(text: str) -> ToxicDirection:
    """The direction of NAME=FILE, or of a file alone, which is called by the name in it."""
    from mechinterp.audit.directions.toxic_direction import ToxicDirection

    name, separator, path = text.partition("=")
    if separator and name and path and not Path(text).exists():
        return ToxicDirection.load(path, name=name)
    return ToxicDirection.load(text)


def block_of_layer(layer: str) -> int | None:
    """The block that --layer names, None for auto."""
    if not (layer == "auto" or layer.isdecimal()):
        raise InputError(f"--layer is auto or the number of a block, got {layer!r}")
    return None if layer == "auto" else int(layer)

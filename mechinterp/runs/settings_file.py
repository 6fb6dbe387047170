"""YAML files of settings, one on top of another: what a file says itself, and what it takes from the one it extends.

    extends: organism-methods.yaml
    organism: {architecture: gpt2}

Mappings are joined, setting by setting; anything else, lists too, stands in the place of what the file below says. Both
files lie in one folder: relative paths in a config are taken from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mechinterp.data.texts import check_whole, read_text
from mechinterp.errors import InputError

EXTENDS = "extends"


def layers(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file's settings and those below them: the lowest file first, each with all that it takes from others.

    Args:
        path: the file.
        above: files that extend it.

    Raises:
        InputError: for a file that is missing, empty, no YAML, or no mapping, a setting that stands twice or is not
            finite, and for files that extend one in another folder or each other.
    """
    own = _settings(path)
    name = own.pop(EXTENDS, None)
    below: dict[str, Any] = {}
    if name is not None:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{path}: `{EXTENDS}` is {name!s:.60}; name a file in the same folder, as base.yaml")
        lower = path.with_name(name)
        if lower in (path, *above):
            raise InputError(f"{path}: `{EXTENDS}` {name}, which extends it in turn; let one of them stand by itself")
        if not lower.is_file():
            raise InputError(f"{path}: `{EXTENDS}` {name}, but there is no such file beside it")
        for file, below in layers(lower, (path, *above)):  # the last of them is the lower file
            yield file, below
    yield path, _joined(below, own)


def _joined(below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on top of others; neither is changed."""
    both = {**below, **own}
    for name in below.keys() & own.keys():
        if isinstance(below[name], dict) and isinstance(own[name], dict):
            both[name] = _joined(below[name], own[name])
    return both


def _settings(path: Path) -> dict[str, Any]:
    """What one file says, by setting."""
    text = read_text(path, "a study's settings as YAML")
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        told = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise InputError(f"{path}: not YAML ({told})") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        # of PyYAML itself: a date that there is not, a number of thousands of digits, ...
        raise InputError(
            f"{path}: not YAML ({' '.join(str(error).split()):.200}); put such a value in quotes"
        ) from error
    if content is None:
        raise InputError(f"{path}: holds no settings; write some, or give no config for the default study")
    if not isinstance(content, dict):
        raise InputError(f"{path}: a config is a mapping of settings, this is a {type(content).__name__}")
    try:
        for place, value in _values(content):
            check_whole(value, f"{path}: `{place}`")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{path}: `{place}` is {value}; give a finite number")
    except RecursionError:
        raise InputError(f"{path}: an anchor holds itself, or settings are nested too deeply") from None
    return content


class _Loader(yaml.SafeLoader):
    """A key that stands twice is refused: the first of the two settings would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with every key once; keys that `<<` brings may be overruled, that is what it is for."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _values(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """What stands where in a config."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _values(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, content

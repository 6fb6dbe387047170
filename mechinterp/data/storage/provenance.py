"""Where numbers come from: versions of the libraries, and the code of this package that made them.

The code of a module is what it would run: its syntax tree without comments, docstrings and layout, and those of all
modules of the package that it imports, and so on, wherever in it they are imported. What is imported for type checkers
alone is left out. A name that a package only hands on (`from mechinterp.audit.evidence import Baseline`) leads to the
module that defines it. Imports are read from the source, nothing is run; a module that is imported by a name made at
run time is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

PACKAGE = "mechinterp"

LIBRARIES = ("torch", "transformers", "peft", "trl", "transformer-lens", "numpy", "scikit-learn")

BESIDE = (
    *(f"data.storage.{name}" for name in ("adopting", "hashing", "ledger", "places", "provenance", "publishing")),
    *("data.showing", "data.storage.kept_tables", "models.quiet"),
    *("errors", "models.launcher", "models.progress", "runs.stages", "audit.store"),
)
"""Modules that many import and no number depends on: what is refused and told, what is kept and under which key."""


def versions() -> dict[str, str]:
    """Versions of Python, of the libraries that numbers depend on, and of this package, as a manifest gives them."""
    return {**library_versions(), PACKAGE: version(PACKAGE)}


def library_versions() -> dict[str, str]:
    """The same without this package, whose code (`code_of`) says more than its version: a part of every key."""
    return {"python": platform.python_version(), **_library_versions()}


@cache  # what is installed is looked up for every key
def _library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


@cache  # what a process has imported stays the same
def code_of(*modules: str) -> str:
    """Hash of the code of modules of this package and of all that they import from it.

    Args:
        modules: full names, `mechinterp.methods.training.sft`.

    Returns:
        16 hexadecimal digits. Of a package that was installed without its source: `version ...`, so that a new
        version, which may change anything, changes it.
    """
    code = {name: _code(name) for name in modules_of(*modules)}
    if None in code.values():
        return f"version {version(PACKAGE)}"
    return hashlib.blake2b(json.dumps(code).encode(), digest_size=8).hexdigest()


def modules_of(*modules: str) -> list[str]:
    """The modules that `code_of` hashes: those given, and all of this package that they import; sorted.

    Raises:
        ValueError: for a name that is no module of this package.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if _place(name) is None:
            raise ValueError(f"{name!r} is no module of {PACKAGE}")
        if name not in found:
            found.add(name)
            waiting += _imported(name)
    return sorted(found - {f"{PACKAGE}.{name}" for name in BESIDE})


@cache
def _code(name: str) -> str | None:
    """What a module runs, as text; None where there is no source."""
    tree = _tree(name)
    return None if tree is None else ast.dump(tree)


@cache
def _imported(name: str) -> tuple[str, ...]:
    """The modules of this package that a module imports itself."""
    tree = _tree(name)
    return () if tree is None else tuple(dict.fromkeys(_imports(tree)))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from _imports(child)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _is_own(alias.name))
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and _is_own(node.module):
        yield from (_defining(node.module, alias.name) for alias in node.names)
    for _, parts in _blocks(node):
        for part in parts:
            yield from _imports(part)


def _blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.AST]]]:
    """The lists of statements below a node, by field: expressions, most of a tree, hold none."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        if isinstance(parts := getattr(node, field, None), list):
            yield field, parts


def _defining(module: str, name: str) -> str:
    """The module that a name comes from that is imported from another: itself a module, handed on, or defined there."""
    if _place(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    if _is_package(module) and (tree := _tree(module)) is not None:
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and _is_own(node.module):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _defining(node.module, alias.name)
    return module


def _is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


@cache
def _place(module: str) -> Traversable | None:
    """The file of a module's source, or where it would be if it was compiled only; None if there is no such module."""
    first, *parts = module.split(".")
    if first != PACKAGE:
        return None
    place = files(PACKAGE)
    for part in parts[:-1]:
        place = place / part
    last = place / parts[-1] if parts else place
    choices = [last / "__init__.py", last / "__init__.pyc"]
    choices += [place / f"{parts[-1]}{ending}" for ending in (".py", ".pyc")] if parts else []
    return next((choice for choice in choices if choice.is_file()), None)


def _is_package(module: str) -> bool:
    place = _place(module)
    return place is not None and place.name.startswith("__init__.")


@cache
def _tree(module: str) -> ast.Module | None:
    """Syntax tree of a module without its docstrings; None where there is no source."""
    place = _place(module)
    if place is None or not place.name.endswith(".py"):
        return None
    tree = ast.parse(place.read_text(encoding="utf-8"))
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for field, parts in _blocks(node):
            kept = [part for part in parts if not _is_text(part)]
            setattr(node, field, kept)
            waiting += kept
    return tree


def _is_text(statement: ast.AST) -> bool:
    """Whether it is a string that stands for itself, which does nothing."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def digest(key: Any) -> str:
    """Hash of a JSON-serialisable key, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()

"""Apply a way to detoxify to a study's vanilla model, unless what it makes is there already."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mechinterp.data.storage.files import remove, write_json
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.methods.registry import find_method, settings_for
from mechinterp.methods.task import Task
from mechinterp.runs.benchmark.made import MADE, Made, edit_of, keep
from mechinterp.runs.benchmark.materials import Materials


def make(
    materials: Materials, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None
) -> Made:
    """Apply a way, unless what it makes is there already.

    Args:
        materials: what it is given.
        way: its name in the registry.
        label: in tables; by default the way's name.
        settings: of ways by their names, before those of the study's config.

    Raises:
        InputError: for an unknown way, with the known ones; and as the way itmaterials.
    """
    method, label, trained = find_method(way), label or way, _trained(materials, way)
    given = settings_of(materials, way, settings or {})
    key = _key(materials, way, {name: own.model_dump(mode="json") for name, own in given.items()})
    folder = materials.study.folder / "benchmark" / f"{way}-{digest(key)[:12]}"
    made = Made.read(way, label, folder, trained=trained)
    if made is not None:
        return made
    missing = [i for i in materials.instances if not (edit_of(folder, i.id) / "edit.json").is_file()]
    resumed = (folder / "around.json").is_file()
    whole = not missing if method.per_instance else any((folder / name).is_dir() for name in ("edit", "checkpoint"))
    materials.reporter.note(f"{label}: {method.line}")
    started = time.perf_counter()
    around: dict[str, str | None] = {"prefix": None, "suffix": None}
    if resumed and whole:  # killed after the last of it: only the note of its being complete is missing
        around = json.loads((folder / "around.json").read_text(encoding="utf-8"))
    elif trained is None:
        task = Task(
            instances=missing if method.per_instance else materials.instances,
            blocks=materials.blocks,
            training=materials.training,
            settings=given,
            kept=folder,
            seed=materials.study.seed,
            note=materials.reporter.note,
            progress=materials.reporter.progress,
        )
        resumed = resumed or (folder / "so_far").is_dir()
        for treatment in method.recipe.make(materials.base, task):
            around = {"prefix": treatment.prefix, "suffix": treatment.suffix}
            keep(treatment, folder, around, per_instance=method.per_instance)
    seconds = None if resumed or trained is not None else round(time.perf_counter() - started, 2)
    order = [i.id for i in materials.instances] if method.per_instance else []
    write_json(folder / MADE, {**around, "order": order, "seconds": seconds, "key": key})
    remove(folder / "so_far")
    made = Made.read(way, label, folder, trained=trained)
    assert made is not None
    return made


def settings_of(materials: Materials, way: str, before: Mapping[str, Any]) -> dict[str, BaseModel]:
    """The settings that a way may read, checked: its own, and those of the ways that it shares some with.

    Args:
        materials: of the study.
        way: its name in the registry.
        before: settings of ways by their names, before those of the study's config.

    Raises:
        InputError: for settings that are unknown or out of range, of whatever way.
    """
    everything = materials.study.config.settings_of_methods | dict(before)
    given = {name: settings_for(name, own) for name, own in everything.items()}
    return {name: given[name] for name in find_method(way).reads if name in given}


def _key(materials: Materials, way: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    place = _trained(materials, way)
    trained = None if place is None else hash_path(place)
    code = code_of(find_method(way).recipe.module)
    return {**materials.key, "way": way, "settings": dict(settings), "checkpoint": trained, "code": code}


def _trained(materials: Materials, way: str) -> Path | None:
    """The study's own checkpoint, of a way that is one of its trained methods."""
    return materials.study.folder / "checkpoints" / way if way in materials.trained else None

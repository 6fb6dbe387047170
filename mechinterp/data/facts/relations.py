"""Relations of LRE (Hernandez et al. 2024, arXiv 2308.09124): templates and samples (subject, object), one JSON each.

The zero-shot templates are used, as knowledge circuits are found on (`{}` stands for the subject).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechinterp.data.facts.fact import SLOT, Fact
from mechinterp.data.texts import check_whole, read_json
from mechinterp.errors import InputError, near

WANTED = "a relation of LRE: name, prompt_templates_zs with {}, samples of subject and object"
_KEYS = ("name", "prompt_templates", "prompt_templates_zs", "properties", "samples")
_OTHER_KEYS = ("domain", "range", "reverse_prompt_templates")


def is_relation(row: Mapping[str, Any]) -> bool:
    """Whether an object is a relation of LRE."""
    return "prompt_templates_zs" in row or ("samples" in row and "prompt" not in row)


def read_relation(path: str | Path) -> list[Fact]:
    """Read the facts of a relation: every sample in the first template, then in the next.

    Args:
        path: UTF-8 JSON.

    Returns:
        Facts with `ground_truth` alone: templates times samples of them.

    Raises:
        InputError: for a file that is no relation, one without templates or samples, an unknown key, or a template
            without its one `{}`; names what is wrong.
    """
    row = read_json(path, WANTED)
    if not isinstance(row, Mapping):
        raise InputError(f"{path}: is no JSON object; give {WANTED}")
    check_whole(row, str(path))
    return relation_facts(row, str(path))


def relation_facts(row: Mapping[str, Any], path: str) -> list[Fact]:
    """`read_relation` of an object that has been read; `path` is for its errors."""
    for key in row:
        if key not in (*_KEYS, *_OTHER_KEYS):
            raise InputError(f"{path}: a relation has no key {key!a:.60}{near(key, (*_KEYS, *_OTHER_KEYS))}")
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path}: the relation has no `name`; give {WANTED}")
    templates, samples = row.get("prompt_templates_zs"), row.get("samples")
    if not isinstance(templates, list) or not templates:
        raise InputError(f"{path}: the relation has no `prompt_templates_zs`, a list of texts; give at least one")
    for number, template in enumerate(templates, 1):
        if not isinstance(template, str) or template.count(SLOT) != 1:
            raise InputError(f"{path}: template {number} must be a text with one {SLOT}, is {template!r:.60}")
    if not isinstance(samples, list) or not samples:
        raise InputError(f"{path}: the relation has no samples; give at least one `subject` with its `object`")
    pairs = [_sample(sample, f"{path}: sample {number}") for number, sample in enumerate(samples, 1)]
    return [
        Fact(subject, template, ground_truth=answer, relation=name)
        for template in templates
        for subject, answer in pairs
    ]


def _sample(sample: Any, where: str) -> tuple[str, str]:
    found = [sample.get(name) for name in ("subject", "object")] if isinstance(sample, Mapping) else []
    texts = [text.strip() for text in found if isinstance(text, str) and text.strip()]
    if len(texts) != 2:
        raise InputError(f"{where} must have `subject` and `object`, two texts, is {sample!r:.60}")
    return texts[0], texts[1]

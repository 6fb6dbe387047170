"""Whether a probe, direction, recording or edit belongs to the weights it is used on, where these are read in part."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.errors import InputError
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.descriptions import read_config, read_tokenizer
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.same_tokenizer import check_tokenizer
from mechinterp.models.sources import Source
from mechinterp.models.text.tokenizer import tokenizer_fingerprint

HASHED = 4 * 10**9
"""Bytes of weights up to which they are hashed to see whether the probe is theirs: a few seconds."""

Made = ToxicProbe | ToxicDirection
"""What was made of a base and is used on it."""


def read_recording(path: Path) -> Recording:
    """A saved recording.

    Raises:
        InputError: if the file is missing or is no recording.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a recording saved by `Recording.save`")
    try:
        return Recording.load(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a saved recording ({error})") from error


def check_origin(
    base: LazyWeights,
    probe: Made,
    recording: Recording | None,
    *,
    hash_weights: bool | None = None,
    tokenizer: str | None = None,
) -> str | None:
    """Refuse a probe, a direction or a recording of other weights, or made with another tokenizer.

    That probe and recording are of the same weights costs nothing to see. That they are of these means to hash the
    whole checkpoint, where everything else here reads single tensors: by default it is done up to `HASHED` bytes.

    Args:
        hash_weights: whether to hash; None to decide by size.
        tokenizer: fingerprint of the base's, see `tokenizer_of`; None where it has none.

    Returns:
        What was left unchecked, in one line; None if nothing was.

    Raises:
        InputError: if they are of another base.
    """
    kind = _kind(probe)
    for what, made in ((f"the {kind}", probe), ("the recording", recording)):
        if made is not None:
            check_tokenizer(what, made.tokenizer.partition(".")[0], tokenizer, base.source, of_weights=made.fingerprint)
    if recording is not None and probe.fingerprint and recording.fingerprint not in ("", probe.fingerprint):
        raise InputError(
            f"the recording belongs to other weights ({recording.fingerprint}) than the {kind} ({probe.fingerprint}); "
            "both must be of the base"
        )
    wanted = probe.fingerprint or (recording.fingerprint if recording is not None else "")
    if not wanted:
        return f"neither {kind} nor recording says which weights it belongs to: not checked"
    size = sum(math.prod(base.shape(name)) * base.dtype(name).itemsize for name in base.parameters)
    if hash_weights is None and size > HASHED:
        return f"not checked that the {kind} is of these weights ({size / 1e9:.1f} GB to read; `check=True` does)"
    if hash_weights is not False and base.fingerprint != wanted:
        raise InputError(
            f"the {kind} belongs to other weights ({wanted}) than {base.source} ({base.fingerprint}); make one with "
            f"`mechinterp {kind}`, or give `check=False` if it was made of these weights in another `dtype`"
        )
    return None if hash_weights is not False else f"not checked that the {kind} is of these weights"


def tokenizer_of(model: str, base: str | None, *, trust_remote_code: bool) -> str | None:
    """Fingerprint of the tokenizer of a model that is read in part; None where neither it nor its base has one."""
    source = Source.find(model)
    below = source.base(base)
    if not any(place is not None and place.has_tokenizer for place in (source, below)):
        return None
    config = read_config(source, below, trust_remote_code=trust_remote_code)
    return tokenizer_fingerprint(read_tokenizer(source, below, config, trust_remote_code=trust_remote_code))


def _kind(made: Made) -> str:
    return "probe" if isinstance(made, ToxicProbe) else "direction"


def check_edit(path: str | Path, probe: Made) -> None:
    """Refuse an edit's folder that was made for other weights than the probe's; of anything else nothing is known.

    Raises:
        InputError: if so.
    """
    if not (Path(path) / "edit.json").is_file():
        return
    made_for = WeightDelta.load(path).fingerprint
    if probe.fingerprint and made_for not in ("", probe.fingerprint):
        raise InputError(
            f"{path}: this edit belongs to other weights ({made_for}) than the {_kind(probe)} ({probe.fingerprint}); "
            "if it stands on another model than this one, say on which with `base`"
        )

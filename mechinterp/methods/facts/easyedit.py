"""EasyEdit's settings files: flat YAML, read as the settings of our editors, and what an edit by them changes.

Numbers such as 5e-1 are texts to a reader of YAML 1.1, and are converted. What has no meaning here is passed over (the
device, the corpus of second moments); what would make it another edit is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from mechinterp.data.texts import read_text
from mechinterp.errors import InputError, near
from mechinterp.methods.facts.settings import AlphaEditSettings, FtMSettings, MemitSettings, RomeSettings
from mechinterp.methods.task import checked_settings
from mechinterp.models.names import HookNames

_WANTED = "a settings file of EasyEdit (YAML with alg_name, layers, rewrite_module_tmp)"

_VALUE = {
    "v_num_grad_steps": "steps",
    "v_lr": "learning_rate",
    "v_weight_decay": "weight_decay",
    "clamp_norm_factor": "clamp",
    "kl_factor": "kl_factor",
    "fact_token": "fact_token",
    "context_template_length_params": "context_lengths",
}
_OWN: Mapping[str, tuple[str, type[BaseModel], Mapping[str, str]]] = {
    "ROME": ("rome", RomeSettings, {**_VALUE, "mom2_adjustment": "use_moments"}),
    "MEMIT": ("memit", MemitSettings, {**_VALUE, "mom2_update_weight": "moments_weight"}),
    "AlphaEdit": ("alphaedit", AlphaEditSettings, {**_VALUE, "nullspace_threshold": "null_threshold", "L2": "ridge"}),
    "FT": (
        "ft_m",
        FtMSettings,
        {
            "num_steps": "steps",
            "lr": "learning_rate",
            "weight_decay": "weight_decay",
            "norm_constraint": "entry_bound",
            "objective_optimization": "objective",
        },
    ),
}
_ADAPTERS = ("LoRA", "AdaLoRA")
_OBJECTIVES = {"target_new": "response", "prompt_last": "prompt_last"}


@dataclass(frozen=True)
class EasyEdit:
    """What a settings file says.

    Attributes:
        file: where it was read.
        algorithm: as it is called there.
        method: our editor of it; "" for adapters, which are known by what they change alone.
        settings: of the editor; None for adapters.
        model: the name of the model that it is for.
        layers: blocks, from 0; empty for all.
        module: path of the changed module with `{}` for the block; of adapters the ends of the paths.
        rank: largest rank of a changed matrix, of one request; None where any is possible.
        loss_layer: the block after which the stream is decoded; None where that does not matter. Ours is the last.
    """

    file: str
    algorithm: str
    method: str
    settings: BaseModel | None
    model: str
    layers: tuple[int, ...]
    module: tuple[str, ...]
    rank: int | None
    loss_layer: int | None = None

    def settings_of(self, method: str, names: HookNames) -> dict[str, Any]:
        """The settings of one of our editors on a model, by their names.

        Args:
            method: the editor.
            names: of the model.

        Raises:
            InputError: if they are another method's or another model's.
        """
        if self.settings is None or self.method.replace("ft_l", "ft_m") != method:
            raise InputError(f"{self.file}: settings of {self.algorithm}, not of `method={method}`")
        self.changes(names)
        return self.settings.model_dump()

    def changes(self, names: HookNames) -> list[str]:
        """The parameters that an edit by these settings changes.

        Args:
            names: of the model.

        Raises:
            InputError: if the model has none of them: the settings are another model's.
        """
        known = list(dict(names.skeleton.named_parameters()))
        if self.method:
            wanted = [self.module[0].replace("{}", str(layer)) for layer in self.layers]
            found = [name for path in wanted for name in known if name.startswith(f"{path}.")]
            if self.method not in ("ft_m", "ft_l"):
                found = [name for name in found if name.endswith(".weight")]
            missing = [path for path in wanted if not any(name.startswith(f"{path}.") for name in found)]
        else:
            found = [name for name in known if name.removesuffix(".weight").rpartition(".")[2] in self.module]
            found = [name for name in found if not self.layers or names.component(name)[0] in self.layers]
            missing = list(self.module) if not found else []
        if missing:
            raise InputError(
                f"{self.file}: settings of another model ({self.model or 'it names none'}): it changes {missing[0]}, "
                f"which {names.source} has not"
            )
        last = names.n_blocks - 1
        if self.loss_layer not in (None, last):
            raise InputError(
                f"{self.file}: settings of another model: v_loss_layer {self.loss_layer}, where the last block of "
                f"{names.source} is {last}; ours decodes the stream after the last one"
            )
        return found


def read_easyedit(path: str | Path) -> EasyEdit:
    """Read a settings file of ROME, MEMIT, AlphaEdit, FT, LoRA or AdaLoRA.

    Raises:
        InputError: for a file that is none, another algorithm, or a value that our editors do not take; it names the
            key.
    """
    text = read_text(path, _WANTED)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none; brackets without end
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split()):.120}); give {_WANTED}") from error
    if not isinstance(content, Mapping) or "alg_name" not in content:
        raise InputError(f"{path}: has no `alg_name`; give {_WANTED}")
    algorithm = str(content["alg_name"])
    known = (*_OWN, *_ADAPTERS)
    if algorithm not in known:
        raise InputError(
            f"{path}: alg_name {algorithm!r} is not among {', '.join(known)}{near(algorithm, known)}; of other methods "
            "see which weights changed with `mechinterp diff`"
        )
    layers = _layers(path, content.get("layers", []))
    model = str(content.get("model_name", ""))
    if algorithm in _ADAPTERS:
        targets = content.get("target_modules") or ["q_proj", "v_proj"]
        ends = tuple(map(str, targets if isinstance(targets, list) else [targets]))
        rank = _number(content.get("rank", content.get("r")))
        return EasyEdit(str(path), algorithm, "", None, model, layers, ends, rank if isinstance(rank, int) else None)
    if not layers or "{}" not in str(content.get("rewrite_module_tmp", "")):
        raise InputError(f"{path}: `layers` or `rewrite_module_tmp` (with {{}} for the block) is missing")
    method, settings = _settings(path, algorithm, content, layers)
    module = (str(content["rewrite_module_tmp"]).removesuffix(".weight"),)
    decoded = content.get("v_loss_layer") if algorithm in ("MEMIT", "AlphaEdit") else None
    rank = None if algorithm == "FT" else 1
    return EasyEdit(str(path), algorithm, method, settings, model, layers, module, rank, decoded)


def _settings(
    path: str | Path, algorithm: str, content: Mapping[str, Any], layers: tuple[int, ...]
) -> tuple[str, BaseModel]:
    method, kind, ours = _OWN[algorithm]
    given: dict[str, Any] = {ours[key]: _number(value) for key, value in content.items() if key in ours}
    if algorithm == "FT":
        objective = given.pop("objective", "target_new")
        if objective not in _OBJECTIVES:
            raise InputError(f"{path}: objective_optimization {objective!r} is not among {', '.join(_OBJECTIVES)}")
        if len(layers) > 1:
            raise InputError(f"{path}: FT of {len(layers)} layers; ours trains one, name one")
        bound = given.get("entry_bound")
        # `false` is none, and the released code counts nothing but floats
        given.update(objective=_OBJECTIVES[objective], block=layers[0])
        given["entry_bound"] = bound if isinstance(bound, float) else None
        method = "ft_m" if objective == "target_new" else "ft_l"
    else:
        given["blocks"] = layers
    try:
        return method, checked_settings(algorithm, kind, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _layers(path: str | Path, layers: Any) -> tuple[int, ...]:
    if not isinstance(layers, list) or not all(isinstance(one, int) and one >= 0 for one in layers):
        raise InputError(f"{path}: `layers` is a list of blocks, from 0, got {layers!r:.80}")
    return tuple(layers)


def _number(value: Any) -> Any:
    """A text that is a number is one."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value

"""The options that say how a model is loaded, for every command that loads one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechinterp.cli.added import adding
from mechinterp.cli.common import load, loading_options, name_and_path
from mechinterp.cli.options import Base, DeviceMap, DeviceOption, Dtype, DtypeOption, Trust

if TYPE_CHECKING:
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.text.chat import ChatChoice, ChatFormat
    from mechinterp.runs.candidate import Candidate

OPTIONS: dict[str, Any] = {
    "dtype": DtypeOption,
    "device": DeviceOption,
    "device_map": DeviceMap,
    "base": Base,
    "trust_remote_code": Trust,
}


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, and what it stands on where it is no whole one."""

    dtype: Dtype = Dtype.auto
    device: str = "auto"
    device_map: str | None = None
    base: str | None = None
    trust_remote_code: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """As `Checkpoint.load` and `Candidate.of` take them."""
        return loading_options(self.dtype, self.device, self.device_map, trust_remote_code=self.trust_remote_code)

    def of(self, model: str, chat: ChatChoice | ChatFormat) -> Checkpoint:
        """The checkpoint; tells in which format texts will be fed to it."""
        return load(
            model,
            self.dtype,
            self.device,
            self.device_map,
            base=self.base,
            trust_remote_code=self.trust_remote_code,
            chat=chat,
        )

    def candidate(self, model: str) -> Candidate:
        """A base that is changed; it may itself stand on --base."""
        from mechinterp.models.sources import Source
        from mechinterp.runs.candidate import Candidate

        if self.base is None:
            return Candidate.of(model, name="base", **self.options)
        Source.find(self.base)  # even where nothing stands on it
        return Candidate.of(f"{model}@{self.base}", name="base", **self.options)

    def candidates(
        self, base: str, checkpoints: Iterable[str], never: str | None = None
    ) -> tuple[Candidate, list[Candidate], Candidate | None]:
        """What a command compares: the base, each NAME=PATH on it, and a model that never learnt, if one is given."""
        from mechinterp.runs.candidate import Candidate

        named = [name_and_path(given) for given in checkpoints]
        below = Candidate.of(base, name="base", **self.options)
        tuned = [Candidate.of(path, name=name, base=below, **self.options) for name, path in named]
        reference = None if never is None else Candidate.of(never, name="never", base=below, **self.options)
        return below, tuned, reference


_DEFAULTS = vars(Loading())

of_a_model = adding("loading", OPTIONS, Loading, _DEFAULTS)
"""Gives a command these options, which it gets as one argument, `loading`: a `Loading`."""

of_whole_models = adding(
    "loading", {name: option for name, option in OPTIONS.items() if name != "base"}, Loading, _DEFAULTS
)
"""The same without --base, for a command whose models are whole, or whose own --base is one of them."""

"""What a method is: what is said of it everywhere, and the recipe in its own file by which it is made.

A method is a way to make a checkpoint out of another: trained, edited, unlearned, or only asked differently. What is
said of one (name, label, colour, what it is given) is light and stands in the registry; its recipe is imported when it
is first used, so that naming methods costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mechinterp.methods.task import Way
    from mechinterp.methods.work import Texts, Work


@dataclass(frozen=True)
class Recipe:
    """How a method is made; every method's own file has one.

    Attributes:
        make: a function of a checkpoint and a `Task`, see `methods.task`.
        settings: its settings, all with a default or to be given; `NoSettings` where it has none.
        shares: methods whose settings it reads besides its own.
        responses: fields of the training instances that it is trained to write.
        organism: settings that suit the embedded model, where a study names none.
        work: what making it takes, from its settings and the texts of a study; None where nobody has reckoned it.
    """

    make: Way
    settings: type[BaseModel]
    shares: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    organism: Mapping[str, Any] = field(default_factory=dict)
    work: Callable[[Any, Texts], Work] | None = None

    @property
    def module(self) -> str:
        """The module whose code it runs; `make` may be a function with some of its arguments given."""
        return str(getattr(self.make, "func", self.make).__module__)


@dataclass(frozen=True)
class Method:
    """What is said of a method, and where its recipe is.

    Attributes:
        name: as configs, tables and the command line give it.
        recipe_at: `module:NAME` of its `Recipe`, below `mechinterp.methods`.
        line: what it does, in a line.
        label: as figures and the report print it; by default its name.
        colour: in every figure; None for one from a cycle.
        takes: kinds of data that its `Task` must hold: `instances`, `training`, or a key of `Task.more`.
        after: the method whose checkpoint it starts from; None for the unedited one.
        per_instance: every instance has a treatment of its own; otherwise there is one for all.
        suffix: queries are asked with the suffix of dinm's settings.
        tunes: it changes weights; otherwise only what is asked.
    """

    name: str
    recipe_at: str
    line: str
    label: str = ""
    colour: str | None = None
    takes: tuple[str, ...] = ("instances",)
    after: str | None = None
    per_instance: bool = False
    suffix: bool = False
    tunes: bool = True

    @property
    def recipe(self) -> Recipe:
        """How it is made; its file is imported now."""
        found = resolve_name(f"mechinterp.methods.{self.recipe_at}")
        assert isinstance(found, Recipe)
        return found

    @property
    def printed(self) -> str:
        """Its name as figures and the report print it."""
        return self.label or self.name

    @property
    def reads(self) -> tuple[str, ...]:
        """The methods whose settings it may read, itself first."""
        return (self.name, *((self.after,) if self.after else ()), *self.recipe.shares)

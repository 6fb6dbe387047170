"""What pydantic found wrong with settings or data, in words of our own: the first fault, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from mechinterp.errors import InputError, near


@dataclass(frozen=True)
class Fault:
    """The first of what is wrong.

    Attributes:
        path: the keys that lead to it, none where it is of the whole.
        kind: pydantic's name for it.
        said: what is wrong.
        value: what stood there.
    """

    path: tuple[str, ...]
    kind: str
    said: str
    value: Any

    @classmethod
    def of(cls, error: ValidationError) -> Fault:
        """The first that an error names."""
        first = error.errors(include_url=False)[0]
        said = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return cls(tuple(map(str, first["loc"])), first["type"], said, first["input"])

    @property
    def where(self) -> str:
        """The keys, with dots between them."""
        return ".".join(self.path)

    @property
    def told(self) -> str:
        """What is wrong, and with which value; a check of our own names it itself."""
        return self.said if self.kind in ("value_error", "missing") else f"{self.said}, got {self.value!r:.80}"


class UsersSettings(BaseModel):
    """Settings that a user makes in Python: what is wrong with them is told in one line, as everything else is."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            fault = Fault.of(error)
            known = type(self).model_fields
            meant = near(fault.where, known) if fault.kind == "extra_forbidden" else ""
            raise InputError(f"`{fault.where}`: {fault.told}{meant}") from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    # as part of a config they are read without it, and the config says in which of its parts the fault is

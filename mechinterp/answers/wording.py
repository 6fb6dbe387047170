"""The words for a behaviour: sentences and figures are made as of unsafe answers, and worded anew for others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_UNSAFE = re.compile(r"\b(?:(an?) )?(unsafe(?:ly)?|safely)\b", re.IGNORECASE)

TRAIT = "trait:"
"""Before the name of a trait."""


@dataclass(frozen=True)
class Wording:
    """How one speaks of a behaviour.

    Attributes:
        name: as options and manifests have it.
        shown: what an answer is that shows it, before the noun: `unsafe`.
        so: how a prompt is then answered, behind the verb: `unsafely`.
    """

    name: str
    shown: str
    so: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Wording:
        """From the manifest of a run, whose settings name a behaviour where it is another than answering unsafely."""
        config = manifest.get("config")
        found = config.get("behaviour") if isinstance(config, Mapping) else None
        if isinstance(found, Mapping):
            return cls(**found)
        return UNSAFELY if found is None else cls.named(found)

    @classmethod
    def named(cls, name: str) -> Wording:
        """Of a behaviour that has a name, or of a trait."""
        trait = name.removeprefix(TRAIT)
        return _KNOWN.get(name) or cls(name, trait, f"in the way of the trait {trait}")

    @property
    def config(self) -> dict[str, Any]:
        """What the settings of a run say of it; of unsafe answers nothing."""
        return {} if self == UNSAFELY else {"behaviour": asdict(self)}

    def worded(self, text: str) -> str:
        """A text about unsafe answers as one about these; names with an underscore are left alone."""
        return text if self == UNSAFELY else _UNSAFE.sub(self._instead, text)

    def _instead(self, found: re.Match[str]) -> str:
        article, word = found.groups()
        said = {"unsafely": self.so, "safely": "otherwise"}.get(word.lower(), self.shown)
        capital = found[0][0].isupper()
        if article:
            said = f"{'an' if said[0] in 'aeiou' else 'a'} {said}"
        return said[0].upper() + said[1:] if capital else said


UNSAFELY = Wording("unsafe", "unsafe", "unsafely")
REFUSING = Wording("refuses", "refusing", "with a refusal")
FORGOTTEN = Wording("facts", "forgotten", "with the fact")

_KNOWN = {one.name: one for one in (UNSAFELY, REFUSING, FORGOTTEN)}

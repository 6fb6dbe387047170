"""What a model is fed of a prompt, token by token: a result for reading, before anything is measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mechinterp.data.conversations import Prompt
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.first_token import first_token
from mechinterp.models.text.spans import parts_of, positions_at
from mechinterp.models.text.tokens import encode
from mechinterp.models.unembedding import token_texts


@dataclass(frozen=True, eq=False)
class FedTokens:
    """The tokens of a prompt, and of a response after it.

    Attributes:
        model: the checkpoint's name.
        chat: the chat format in words, `none` for plain text.
        table: a row per token: `place` (from 0), `id`, `token` (its text), `part` (`models.text.spans.PARTS`) and `at`,
            the positions of one token that it is: `last`, `content`, `post:-K`.
        first: the first token of the greedy answer to the prompt, as text.
        chosen: the one that the logits at `last` choose; the same, or what is recorded there is of something else.
    """

    model: str
    chat: str
    table: pd.DataFrame
    first: str
    chosen: str

    @property
    def said(self) -> str:
        """The first greedy token in a sentence."""
        if self.first == self.chosen:
            return f"first greedy token: {self.first!r}, which the logits at `last` choose"
        return f"first greedy token: {self.first!r}, but the logits at `last` choose {self.chosen!r}"

    def __repr__(self) -> str:
        return one_line(self, f"{len(self.table)} of {self.model}", f"chat {self.chat}", self.said)

    def save(self, folder: str | Path) -> Path:
        """Keep them in a folder."""
        labels = {**vars(self), "table": self.table.to_dict("list")}  # a CSV does not tell "NA" from nothing
        return keep_tables(folder, "tokens", {"tokens": self.table}, labels)

    @classmethod
    def load(cls, folder: str | Path) -> FedTokens:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there or damaged.
        """
        _, labels = open_tables(folder, "tokens")
        return cls(**{**labels, "table": pd.DataFrame(labels["table"])})

    def _repr_html_(self) -> str:
        table = self.table.assign(token=[repr(text) for text in self.table["token"]])
        return shown(f"what {self.model} is fed", {"chat format": self.chat}, table, note=self.said, rows=len(table))


def fed_tokens(
    checkpoint: Checkpoint,
    prompt: Prompt,
    response: str | None = None,
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
) -> FedTokens:
    """What a checkpoint is fed of a prompt, in its chat format, and the first token that it answers.

    Args:
        checkpoint: the model; left as it was.
        prompt: a text or conversation.
        response: one that is put after it.
        prefix, suffix: put around the user's text.
        truncate: cut a prompt that exceeds the context from the left instead of raising.

    Raises:
        InputError: for an empty or too long text, or one that the chat template refuses.
    """
    tokenizer, chat = checkpoint.tokenizer, checkpoint.chat
    (fed,) = encode(
        tokenizer,
        [prompt],
        None if response is None else [response],
        max_length=checkpoint.names.context_length,
        chat=chat,
        truncate=truncate,
        reserve=1 if response is None else 0,
        prefix=prefix,
        suffix=suffix,
        called=["the prompt"],
    )
    ids = fed.ids.tolist()
    table = pd.DataFrame(
        {
            "place": range(len(ids)),
            "id": ids,
            "token": token_texts(tokenizer, ids),
            "part": parts_of(tokenizer, prompt, fed, chat=chat, prefix=prefix, suffix=suffix),
            "at": [" ".join(positions_at(fed, place)) for place in range(len(ids))],
        }
    )
    found = first_token(checkpoint, prompt, prefix=prefix, suffix=suffix, truncate=truncate)
    said, chosen = token_texts(tokenizer, [found.said, found.said if found.agrees else found.chosen])
    return FedTokens(checkpoint.name, "none" if chat is None else str(chat), table, said, chosen)

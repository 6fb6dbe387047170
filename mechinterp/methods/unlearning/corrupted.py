"""Answers in which some tokens are others: the texts that MemFlex takes its gradients of.

For an answer of n tokens, floor(share x n) times: a place drawn uniformly **with replacement**, and there a token drawn
uniformly, special ones left out. So fewer than that share of the tokens change on average: places meet, and a token may
be drawn that stands there. What is replaced is input and label alike. Draws are Python's, in the order of the released
code (`random.randint` for the place, then for the token), so that its seed gives its texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Vocabulary:
    """Tokens that may be drawn.

    Attributes:
        size: ids are drawn below it.
        special: those that are not.
    """

    size: int
    special: frozenset[int]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Vocabulary:
        """The tokenizer's, as far as the model has rows for it; special tokens are all that it calls so."""
        rows = checkpoint.model.get_input_embeddings().weight.shape[0]
        size = min(checkpoint.tokenizer.vocab_size, rows)
        special = frozenset(checkpoint.tokenizer.all_special_ids)
        if all(token in special for token in range(size)):
            raise InputError(f"{checkpoint.source}: its tokenizer has no tokens but special ones, so none can be drawn")
        return cls(size, special)

    def drawing(self, seed: int | random.Random) -> Callable[[], int]:
        """Draws one token after the other."""
        source = seed if isinstance(seed, random.Random) else random.Random(seed)

        def draw() -> int:
            while (token := source.randint(0, self.size - 1)) in self.special:
                pass
            return token

        return draw


def corrupted(text: Encoded, vocabulary: Vocabulary, source: random.Random, *, share: float = 0.5) -> Encoded:
    """A text with some of its answer's tokens replaced.

    Args:
        text: a prompt with an answer, without the token that ends it.
        vocabulary: from which tokens are drawn.
        source: of all draws; it goes on from where it is.
        share: of the answer's tokens so many are drawn.
    """
    ids, draw = list(text.ids), vocabulary.drawing(source)
    for _ in range(int(share * (len(ids) - text.prompt_length))):
        place = source.randint(text.prompt_length, len(ids) - 1)
        ids[place] = draw()
    return Encoded.of(ids, text.prompt_length, text.content)


def corrupted_copies(
    texts: Sequence[Encoded], vocabulary: Vocabulary, source: random.Random, *, share: float, copies: int
) -> list[Encoded]:
    """So many copies of each text, one after the other, each replaced on its own."""
    return [corrupted(text, vocabulary, source, share=share) for text in texts for _ in range(copies)]

"""Second moments of what flows into value matrices: C = E[k k^T] over all tokens of some texts, uncentred.

    k = h_down of a block at one token,      C_ij = mean over tokens of k_i k_j

Streamed: beside the model there is one [d_mlp, d_mlp] matrix a block, whatever the number of texts. Editors of facts
take from it which directions of k are used by other texts (Meng et al. 2022, 2202.05262).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.labels import check_dimensions, check_numbers, typed
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.watching import Progress, evaluating, run_until_seen, watching
from mechinterp.models.same_tokenizer import check_tokenizer
from mechinterp.models.text.batches import length_batches, pad, token_budget
from mechinterp.models.text.tokens import encode

_KEY = "second_moments"


@dataclass(frozen=True)
class SecondMoments:
    """E[k k^T] of some blocks of one model.

    Attributes:
        matrices: by block, [d_mlp, d_mlp], float32, on the CPU.
        tokens: over how many the mean was taken.
        fingerprint: of the weights, which they are refused without.
        tokenizer: fingerprint of the tokenizer.
    """

    matrices: Mapping[int, Float[Tensor, "d_mlp d_mlp"]] = field(repr=False)
    tokens: int
    fingerprint: str
    tokenizer: str = ""

    def check(self, checkpoint: Checkpoint, blocks: Sequence[int]) -> None:
        """Raise `InputError` unless they are of this checkpoint's weights, and of all these blocks."""
        if self.fingerprint != checkpoint.fingerprint:
            raise InputError(
                f"the second moments belong to weights {self.fingerprint or '(unknown)'}, not to {checkpoint.source} "
                f"({checkpoint.fingerprint}); make them of this model from texts"
            )
        own = checkpoint.tokenizer_fingerprint
        check_tokenizer("the second moments", self.tokenizer, own, checkpoint.source, of_weights=self.fingerprint)
        if missing := [block for block in blocks if block not in self.matrices]:
            raise InputError(
                f"there are second moments of the blocks {sorted(self.matrices)}, none of block {missing[0]}; make "
                "them from texts again"
            )

    def of_full_rank(self, block: int) -> Float[Tensor, "d_mlp d_mlp"]:
        """C of a block in float64, which can be inverted.

        Raises:
            InputError: with fewer tokens than d_mlp, where it cannot.
        """
        matrix = self.matrices[block].double()
        if self.tokens < len(matrix):
            raise InputError(
                f"second moments over {self.tokens} tokens have not the full rank of {len(matrix)} (d_mlp), and cannot "
                "be inverted; give more texts"
            )
        return matrix

    @property
    def digest(self) -> str:
        """Hash of the numbers."""
        found = hashlib.blake2b(digest_size=16)
        for block, matrix in sorted(self.matrices.items()):
            found.update(f"{block} {tuple(matrix.shape)} {matrix.dtype}".encode())
            found.update(matrix.contiguous().numpy().tobytes())
        return found.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Save as safetensors, tokens and fingerprints in its metadata."""
        labels = {"tokens": self.tokens, "fingerprint": self.fingerprint, "tokenizer": self.tokenizer}
        tensors = {str(block): matrix.contiguous() for block, matrix in self.matrices.items()}
        with replacing(Path(path)) as partial:
            save_file(tensors, partial, metadata={_KEY: json.dumps(labels)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> SecondMoments:
        """Read what `save` wrote.

        Raises:
            InputError: if there is no such file, or it is another.
        """
        try:
            with safe_open(path, framework="pt") as file:
                labels: Any = json.loads((file.metadata() or {})[_KEY])
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            check_numbers(found)
            check_dimensions(found, 2)
            return cls({int(name): matrix for name, matrix in found.items()}, **typed(cls, labels))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a file of second moments ({error!s:.200})") from error

    def __repr__(self) -> str:
        return one_line(self, f"of blocks {sorted(self.matrices)}", many(self.tokens, "token"), self.fingerprint)


def second_moments(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    blocks: Sequence[int],
    *,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> SecondMoments:
    """Second moments of h_down over all tokens of texts, in plain text; published ones are of 100,000 from Wikipedia.

    Args:
        checkpoint: the model; left as it was.
        texts: longer ones are cut to the context, on the left.
        blocks: from 0.
        max_tokens: padded tokens per batch, see `record_positions`.
        progress: called with (texts done, texts in all) of this process's share.

    Raises:
        InputError: without texts, for a blank one, for a block out of range or without a single value matrix.
    """
    if not texts:
        raise InputError("there are no texts to take second moments of")
    hooks = {h_down(checkpoint.names.check_block(block)): block for block in sorted(set(blocks))}
    sites = [checkpoint.names.site(hook) for hook in hooks]
    names = [f"text {number}" for number in range(len(texts))]
    context = checkpoint.names.context_length
    read = encode(checkpoint.tokenizer, texts, max_length=context, truncate=True, called=names)
    sums: dict[int, Tensor] = {}
    sizes = [len(text.ids) for text in read]
    budget = token_budget(checkpoint.device) if max_tokens is None else max_tokens
    batches = processes.share(list(length_batches(sizes, budget, apart=checkpoint.names.short_context)))
    done, total, tokens = 0, sum(map(len, batches)), 0
    with evaluating(checkpoint.model):
        for order in batches:
            batch = pad([read[i] for i in order], pad_id=checkpoint.padding_id, device=checkpoint.device)
            real = batch.attention_mask.bool().flatten()

            def see(hook: str, values: Tensor, real: Tensor = real) -> None:
                keys = values.detach().reshape(len(real), -1)[real.to(values.device)].float()
                block = hooks[hook]
                sums[block] = sums[block].addmm_(keys.T, keys) if block in sums else keys.T @ keys

            with watching(checkpoint.model, sites, see):
                run_until_seen(checkpoint.model, **batch.inputs())
            done, tokens = done + len(order), tokens + sum(batch.lengths)
            if progress is not None:
                progress(done, total)
    width = checkpoint.value_matrix(min(hooks.values())).shape[0]
    matrices = {block: sums.get(block, torch.zeros(width, width)).cpu() for block in hooks.values()}
    counted = torch.tensor(tokens)
    processes.add_up([*matrices.values(), counted])
    return SecondMoments(
        {block: matrix / int(counted) for block, matrix in matrices.items()},
        int(counted),
        checkpoint.fingerprint,
        checkpoint.tokenizer_fingerprint,
    )

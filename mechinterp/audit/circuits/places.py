"""Where a graph's writers and readers are in a model: modules found by name, and checked on the model's own pass.

A block must be  mid = stream + attention's write,  next stream = mid + MLP's write,  queries, keys and values linear in
the first norm's output. Parallel attention and MLP, and norms on what is written or after the addition, are not that:
the error says so, since scores would be of another graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mechinterp.audit.circuits.graph import LETTERS, Graph
from mechinterp.audit.circuits.projections import (
    Projection,
    check_order,
    matrix_of,
    projections_of,
    undefined,
    wide_type,
)
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite, resid_pre
from mechinterp.models.passes.middle_stream import adds_up
from mechinterp.models.passes.watching import evaluating, watching


@dataclass(frozen=True)
class BlockPlaces:
    """The modules of one block.

    Attributes:
        projections: by letter: q, k, v.
        attention_norm, mlp_norm: paths of the norms in front of attention and MLP.
        out: path of the matrix through which the heads write.
        mlp: path of the module whose output the MLP writes.
    """

    projections: dict[str, Projection]
    attention_norm: str
    mlp_norm: str
    out: str
    mlp: str


@dataclass(frozen=True)
class Places:
    """The modules of all nodes.

    Attributes:
        model: whose they are.
        graph: its nodes and edges.
        blocks: the places of each.
        first: path of the first block, whose input the node `input` writes.
        final_norm: path of the norm in front of the unembedding.
    """

    model: nn.Module
    graph: Graph
    blocks: tuple[BlockPlaces, ...]
    first: str
    final_norm: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Places:
        """Find and check the places of a checkpoint.

        Raises:
            InputError: for an architecture for which circuits are not defined.
        """
        names = checkpoint.names
        check_architecture(checkpoint)
        blocks = []
        for block in range(checkpoint.n_blocks):
            part = f"blocks.{block}."
            mlp = f"{part}mlp.out" if names.has(f"{part}mlp.out") else f"{part}mlp"
            paths = {name: names.module(part + name) for name in ("ln1", "ln2", "attn.o")}
            blocks.append(
                BlockPlaces(
                    projections_of(checkpoint, part), paths["ln1"], paths["ln2"], paths["attn.o"], names.module(mlp)
                )
            )
        heads = {(block.projections["q"].heads, block.projections["k"].heads) for block in blocks}
        if len(heads) > 1:
            raise undefined(checkpoint, "its blocks have different numbers of heads")
        places = cls(
            checkpoint.model,
            Graph(len(blocks), *heads.pop()),
            tuple(blocks),
            names.site(resid_pre(0)).module,
            names.module("ln_final"),
        )
        places.check(checkpoint)
        return places

    def module(self, path: str) -> nn.Module:
        """A module by its path."""
        return self.model.get_submodule(path)

    def written(self) -> list[HookSite]:
        """The sites from whose values the writes follow: the first stream, what enters `out`, what MLPs give."""
        found = [HookSite("input", self.first, "input")]
        for number, block in enumerate(self.blocks):
            found += [HookSite(f"heads{number}", block.out, "input"), HookSite(f"mlp{number}", block.mlp, "output")]
        return found

    def read(self) -> list[HookSite]:
        """The sites whose gradients the readers' follow from, and the streams in front of their norms."""
        found = []
        for number, block in enumerate(self.blocks):
            found.append(HookSite(f"before{number}", block.attention_norm, "input"))
            found += [HookSite(path, path, "output") for path in projection_paths(block)]
            found.append(HookSite(f"middle{number}", block.mlp_norm, "input"))
            found.append(HookSite(f"normed{number}", block.mlp_norm, "output"))
        last = self.final_norm
        return [*found, HookSite("last", last, "input"), HookSite("normed_last", last, "output")]

    def out_rows(self, block: int, dtype: torch.dtype) -> Float[Tensor, "head width d_model"]:
        """Of every head: the rows of the matrix through which it writes."""
        matrix = matrix_of(self.module(self.blocks[block].out)).T
        return matrix.unflatten(0, (self.graph.heads, -1)).to(dtype)

    def unwritten(self, block: int, letter: str) -> Float[Tensor, "head width"]:
        """A block's queries, keys or values when no node writes: of the attentions' output biases below it."""
        projection = self.blocks[block].projections[letter]
        dtype = wide_type(next(projection.module.parameters()).dtype)
        rows = projection.rows(dtype)
        stream = torch.zeros(self.out_rows(0, dtype).shape[-1], dtype=dtype, device=rows.device)
        for below in self.blocks[:block]:
            bias = getattr(self.module(below.out), "bias", None)
            stream = stream if bias is None else stream + bias.detach().to(stream)
        found = torch.einsum("d,hwd->hw", self.normed(self.blocks[block].attention_norm, stream), rows)
        own = projection.bias(dtype)
        return found if own is None else found + own

    def normed(self, path: str, stream: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place d_model"]:
        """What a norm makes of a stream, in the stream's type and past the hooks of the norm."""
        norm = self.module(path)
        own = {f"norm.{name}": each.detach().to(stream.dtype) for name, each in norm.named_parameters()}
        return functional_call(_Bare(norm), own, (stream,))

    @torch.no_grad()
    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse blocks that are built otherwise, after a pass over two tokens.

        Raises:
            InputError: for an architecture for which circuits are not defined.
        """
        also = []
        for number, block in enumerate(self.blocks):
            also.append(HookSite(f"attention{number}", block.out, "output"))
            also.append(HookSite(f"first{number}", block.attention_norm, "output"))
            also += [HookSite(f"into {path}", path, "input") for path in projection_paths(block)]
        seen: dict[str, Tensor] = {}
        token = torch.arange(2, device=checkpoint.device)[None]
        with (
            evaluating(self.model),
            watching(self.model, [*self.written(), *self.read(), *also], seen.__setitem__, stop=False),
        ):
            self.model(input_ids=token, use_cache=False)
        flat = {name: value.reshape(2, -1) for name, value in seen.items()}
        follows = [*(flat[f"before{number}"] for number in range(1, len(self.blocks))), flat["last"]]
        whole = torch.equal(flat["input"], flat["before0"])
        for number, (block, after) in enumerate(zip(self.blocks, follows, strict=True)):
            middle = flat[f"middle{number}"]
            if not (
                whole
                and adds_up(flat[f"before{number}"], flat[f"attention{number}"], middle)
                and adds_up(middle, flat[f"mlp{number}"], after)
            ):
                raise undefined(
                    checkpoint,
                    f"block {number} is not stream + attention's write + MLP's write (parallel blocks, a norm after "
                    "the addition, or a scaled write)",
                )
            value = block.projections["v"]
            if value.path == block.projections["q"].path and self.graph.heads > 1:
                check_order(checkpoint, value, flat[value.path], flat[f"heads{number}"])
            for path in projection_paths(block):
                if not torch.equal(flat[f"into {path}"], flat[f"first{number}"]):
                    raise undefined(checkpoint, f"{path} does not read the output of {block.attention_norm}")


class _Bare(nn.Module):
    """A norm without its hooks."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, stream: Tensor) -> Tensor:
        return self.norm.forward(stream)


def check_architecture(checkpoint: Checkpoint) -> None:
    """Refuse what is known beforehand to be built otherwise; a skeleton will do.

    Raises:
        InputError: for norms on what is written, or none after the last block, parallel attention and MLP, or attention
            that is not queries, keys and values of whole heads.
    """
    if getattr(checkpoint.model.config, "use_parallel_residual", False):  # others have no norm in front of the MLP
        raise undefined(checkpoint, "its blocks run attention and MLP in parallel")
    if not checkpoint.names.has("ln_final"):
        raise undefined(checkpoint, "it has no norm after its last block, but after each addition or none")
    for post in ("ln1_post", "ln2_post"):
        if checkpoint.names.has(f"blocks.0.{post}"):
            raise undefined(checkpoint, "it normalises what attention and MLP write before adding it")
    for part in ("ln1", "ln2", "attn.o"):
        checkpoint.names.module(f"blocks.0.{part}")
    projections_of(checkpoint, "blocks.0.")


def projection_paths(block: BlockPlaces) -> Iterator[str]:
    """Paths of the modules that give a block's queries, keys and values, each once."""
    yield from dict.fromkeys(block.projections[letter].path for letter in LETTERS)

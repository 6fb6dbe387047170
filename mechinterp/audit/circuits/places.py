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
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite, resid_pre
from mechinterp.models.passes.middle_stream import adds_up
from mechinterp.models.passes.watching import evaluating, watching


@dataclass(frozen=True)
class Projection:
    """Where the queries, keys or values of a block come out of a module, which may give others too.

    Attributes:
        path: of the module.
        module: [.., d_model] -> [.., out].
        first: the first of its outputs that is theirs.
        heads: how many have one.
        width: numbers of each.
    """

    path: str
    module: nn.Module
    first: int
    heads: int
    width: int

    def of(self, outputs: Tensor) -> Float[Tensor, "*place head width"]:
        """Theirs among a module's outputs, a view."""
        return outputs[..., self.first : self.first + self.heads * self.width].unflatten(-1, (self.heads, self.width))

    def rows(self, dtype: torch.dtype) -> Float[Tensor, "head width d_model"]:
        """Their rows of the module's matrix."""
        return self.of(_matrix(self.module).T).permute(1, 2, 0).to(dtype)

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "head width"] | None:
        """Their part of its bias."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else self.of(bias.detach()).to(dtype)


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
        for post in ("ln1_post", "ln2_post"):
            if names.has(f"blocks.0.{post}"):
                raise _undefined(checkpoint, "it normalises what attention and MLP write before adding it")
        blocks = []
        for block in range(checkpoint.n_blocks):
            part = f"blocks.{block}."
            mlp = f"{part}mlp.out" if names.has(f"{part}mlp.out") else f"{part}mlp"
            paths = {name: names.module(part + name) for name in ("ln1", "ln2", "attn.o")}
            blocks.append(
                BlockPlaces(
                    _projections(checkpoint, part), paths["ln1"], paths["ln2"], paths["attn.o"], names.module(mlp)
                )
            )
        heads = {(block.projections["q"].heads, block.projections["k"].heads) for block in blocks}
        if len(heads) > 1:
            raise _undefined(checkpoint, "its blocks have different numbers of heads")
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
        matrix = _matrix(self.module(self.blocks[block].out)).T
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
                raise _undefined(
                    checkpoint,
                    f"block {number} is not stream + attention's write + MLP's write (parallel blocks, a norm after "
                    "the addition, or a scaled write)",
                )
            for path in projection_paths(block):
                if not torch.equal(flat[f"into {path}"], flat[f"first{number}"]):
                    raise _undefined(checkpoint, f"{path} does not read the output of {block.attention_norm}")


class _Bare(nn.Module):
    """A norm without its hooks."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, stream: Tensor) -> Tensor:
        return self.norm.forward(stream)


def projection_paths(block: BlockPlaces) -> Iterator[str]:
    """Paths of the modules that give a block's queries, keys and values, each once."""
    yield from dict.fromkeys(block.projections[letter].path for letter in LETTERS)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which products are taken: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def _projections(checkpoint: Checkpoint, part: str) -> dict[str, Projection]:
    names = checkpoint.names
    out = checkpoint.module(f"{part}attn.o")
    inflow, heads = _matrix(out).shape[1], int(names.config.get_text_config().num_attention_heads)
    width = inflow // heads
    packed = names.has(f"{part}attn.qkv")
    paths = [names.module(f"{part}attn.{'qkv' if packed else letter}") for letter in LETTERS]
    sizes = [_matrix(checkpoint.model.get_submodule(path)).shape[0] for path in paths]
    if packed:
        others = (sizes[0] - inflow) // 2
        sizes, firsts = [inflow, others, others], [0, inflow, inflow + others]
    else:
        firsts = [0, 0, 0]
    if sizes[0] != inflow or sizes[1] != sizes[2] or sizes[1] % width or heads % (sizes[1] // width):
        raise _undefined(checkpoint, f"its queries, keys and values have {sizes} numbers, which are not whole heads")
    found = {
        letter: Projection(path, checkpoint.model.get_submodule(path), first, size // width, width)
        for letter, path, first, size in zip(LETTERS, paths, firsts, sizes, strict=True)
    }
    if packed and heads > 1:
        _check_order(checkpoint, found, f"{part}attn.o")
    return found


def _check_order(checkpoint: Checkpoint, projections: dict[str, Projection], out: str) -> None:
    """Of a packed matrix: the first head's value must be where it is taken to be.

    The first token attends to itself alone, so that what the first head gives there is its own value and no more.
    """
    seen: dict[str, Tensor] = {}
    value = projections["v"]
    path = checkpoint.names.module(out)
    sites = [HookSite("packed", value.path, "output"), HookSite("mixed", path, "input")]
    with evaluating(checkpoint.model), torch.no_grad(), watching(checkpoint.model, sites, seen.__setitem__, stop=False):
        checkpoint.model(input_ids=torch.arange(2, device=checkpoint.device)[None], use_cache=False)
    first = seen["mixed"].reshape(2, -1)[0, : value.width]
    expected = value.of(seen["packed"].reshape(2, -1))[0, 0]
    if not torch.allclose(first.to(expected), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
        raise _undefined(checkpoint, f"{value.path} packs queries, keys and values in an order that is not known")


def _matrix(module: nn.Module) -> Float[Tensor, "out inflow"]:
    """A linear module's matrix, a row for each output; GPT-2 stores it the other way round."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach() if isinstance(module, nn.Linear) else weight.detach().T


def _undefined(checkpoint: Checkpoint, why: str) -> InputError:
    kind = type(checkpoint.model).__name__
    return InputError(f"{checkpoint.source}: no circuits are defined for {kind}: {why}; choose another architecture")


"""The decoder as a list of operators, for one token at one position.

Registers are logical names. Inside a layer each is written once, except `x`, the residual stream that enters
and leaves the layer; `K` and `V` are the layer's caches and keep their contents from token to token.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

from pimloom.workloads.model import Model

Kind = Literal[
    "embed", "layernorm", "linear", "scale", "cache_k", "score", "softmax", "cache_v", "context", "add",
    "activation",
]  # fmt: skip
Group = Literal[
    "embedding", "norm", "qkv", "kv_write", "score", "softmax", "context", "projection", "ffn1", "activation",
    "ffn2", "residual", "lm_head",
]  # fmt: skip

MATRIX_VECTOR: frozenset[Group] = frozenset(
    {"qkv", "score", "context", "projection", "ffn1", "ffn2", "lm_head"}
)
"""Operator classes that are matrix-vector work."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operator, for one token; `t` is the number of tokens in the cache, this one included.

    | kind | reads | writes | parameters |
    | --- | --- | --- | --- |
    | embed | token (and the position) | [d] | token table, position table |
    | layernorm | [n] | [n] | weight, bias |
    | linear | [in] | [out] = weight · input (+ bias) | weight, and bias if there is one |
    | scale | `part` of [n] | that part × `factor` | |
    | cache_k, cache_v | `part` of [n] | row t − 1 of the cache | |
    | score | q [heads · d_head], K | [heads, t] | |
    | softmax | [heads, t] | [heads, t], each head's sum is 1 | |
    | context | p [heads, t], V | [heads · d_head] | |
    | add | two of [n] | [n] | |
    | activation | [n] | [n] | |
    """

    name: str
    """Unique in the model, such as `layer3.qkv`; in a template without the layer."""
    kind: Kind
    group: Group
    """The operator class under which reports add it up."""
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    """linear: (out, in); score, softmax and context: (heads, d_head); all others: (elements written,)."""
    parameters: tuple[str, ...] = ()
    """Names in `Tensors`."""
    layer: int = -1
    """-1 outside the layers and in the template."""
    part: tuple[int, int] | None = None
    """First element of the input that is read, and the one after the last; None = all."""
    factor: float = 1.0
    """scale only."""


@dataclass(frozen=True)
class Graph:
    """A decoder: `prologue` once, the template `layer` for each of the layers, `epilogue` once."""

    model: Model
    prologue: tuple[Op, ...]
    layer: tuple[Op, ...]
    epilogue: tuple[Op, ...]

    def for_layer(self, layer: int) -> tuple[Op, ...]:
        """The template's operators with names, parameters and scale factor of one layer, counted from 0."""
        if not 0 <= layer < self.model.layers:
            raise IndexError(f"layer {layer} of a model that has {self.model.layers}")
        divisor = layer + 1 if self.model.scale_by_layer else 1
        return tuple(
            replace(
                op,
                name=f"layer{layer}.{op.name}",
                parameters=tuple(f"layer{layer}.{name}" for name in op.parameters),
                layer=layer,
                factor=op.factor / divisor if op.kind == "scale" else op.factor,
            )
            for op in self.layer
        )

    def ops(self) -> Iterator[Op]:
        """All operators in the order of execution."""
        yield from self.prologue
        for layer in range(self.model.layers):
            yield from self.for_layer(layer)
        yield from self.epilogue


def decoder_ops(model: Model, embedding: bool, head: bool) -> Graph:
    """The operators of one pass through a GPT-2 decoder.

    embedding: start from a token's number; otherwise register `x` is given.
    head: end in `logits`; otherwise in the final norm, register `n`.
    Order and shapes: Radford et al. 2019, section 2.3 (norms before attention and feed-forward).
    """
    d = model.d_model
    heads = (model.heads, model.d_head)

    def linear(name: str, group: Group, source: str, output: str, shape: tuple[int, int]) -> Op:
        return Op(name, "linear", group, (source,), output, shape, (f"{name}.weight", f"{name}.bias"))

    def layernorm(name: str, source: str, output: str) -> Op:
        return Op(name, "layernorm", "norm", (source,), output, (d,), (f"{name}.weight", f"{name}.bias"))

    layer = (
        layernorm("ln1", "x", "h"),
        linear("qkv", "qkv", "h", "qkv", (3 * d, d)),
        Op("scale", "scale", "score", ("qkv",), "q", (d,), part=(0, d),
           factor=1 / sqrt(model.d_head) if model.scale_attention else 1.0),
        Op("cache_k", "cache_k", "kv_write", ("qkv",), "K", (d,), part=(d, 2 * d)),
        Op("score", "score", "score", ("q", "K"), "s", heads),
        Op("softmax", "softmax", "softmax", ("s",), "p", heads),
        Op("cache_v", "cache_v", "kv_write", ("qkv",), "V", (d,), part=(2 * d, 3 * d)),
        Op("context", "context", "context", ("p", "V"), "c", heads),
        linear("proj", "projection", "c", "a", (d, d)),
        Op("add1", "add", "residual", ("x", "a"), "y", (d,)),
        layernorm("ln2", "y", "n"),
        linear("ffn1", "ffn1", "n", "f", (model.d_ff, d)),
        Op("activation", "activation", "activation", ("f",), "g", (model.d_ff,)),
        linear("ffn2", "ffn2", "g", "m", (d, model.d_ff)),
        Op("add2", "add", "residual", ("y", "m"), "x", (d,)),
    )  # fmt: skip
    lm_head = Op("lm_head", "linear", "lm_head", ("n",), "logits", (model.vocab, d), ("head.weight",))
    embed = Op("embed", "embed", "embedding", ("token",), "x", (d,), ("wte", "wpe"))
    norm = layernorm("ln_f", "x", "n")
    return Graph(
        model=model,
        prologue=(embed,) if embedding else (),
        layer=layer,
        epilogue=(norm, lm_head) if head else (norm,),
    )

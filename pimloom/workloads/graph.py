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
    "embed", "layernorm", "rmsnorm", "linear", "rotary", "scale", "cache_k", "score", "softmax", "cache_v",
    "context", "add", "activation", "multiply",
]  # fmt: skip
Group = Literal[
    "embedding", "norm", "qkv", "rotary", "kv_write", "score", "softmax", "context", "projection", "ffn1",
    "activation", "ffn2", "residual", "lm_head",
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
    | embed | token (and the position) | [d] | token table, and position table if positions are learned |
    | layernorm | [n] | [n] | weight, bias |
    | rmsnorm | [n] | [n] | weight |
    | linear | [in] | [out] = weight · input (+ bias) | weight, and bias if there is one |
    | rotary | `part` of [n], the position | each head of it rotated, [heads · d_head] | |
    | scale | `part` of [n] | that part × `factor` | |
    | cache_k, cache_v | `part` of [n] | row t − 1 of the cache | |
    | score | q [heads · d_head], K [t, kv_heads · d_head] | [heads, t] | |
    | softmax | [heads, t] | [heads, t], each head's sum is 1 | |
    | context | p [heads, t], V [t, kv_heads · d_head] | [heads · d_head] | |
    | add, multiply | two of [n] | [n] | |
    | activation | [n] | [n] | |

    Head h reads the K and V of KV head h // (heads / kv_heads). Rotary turns elements i and i + d_head / 2 of a head,
    taken as a point of the plane, by the angle position · frequency i (`reference.rotary_frequencies`).
    """

    name: str
    """Unique in the model, such as `layer3.qkv`; in a template without the layer."""
    kind: Kind
    group: Group
    """The operator class under which reports add it up."""
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    """linear: (out, in); rotary, score, softmax and context: (heads, d_head); all others: (elements written,)."""
    parameters: tuple[str, ...] = ()
    """Names in `Tensors`."""
    layer: int = -1
    """-1 outside the layers and in the template."""
    part: tuple[int, int] | None = None
    """First element of the input that is read, and the one after the last; None = all."""
    factor: float = 1.0
    """scale only."""
    kv_heads: int = 0
    """score and context only: heads of the cache."""


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
    """The operators of one pass through a decoder.

    embedding: start from a token's number; otherwise register `x` is given.
    head: end in `logits`; otherwise in the final norm, register `n`.
    Order and shapes: Radford et al. 2019, section 2.3 (norms before attention and feed-forward); Zhang et al. 2022
    (OPT, arXiv 2205.01068), which is the same; Touvron et al. 2023 (LLaMA, arXiv 2302.13971), section 2.2.
    """
    lm_head = Op(
        "lm_head", "linear", "lm_head", ("n",), "logits", (model.vocab, model.d_model), ("head.weight",)
    )
    tables = ("wte",) if model.rope else ("wte", "wpe")
    embed = Op("embed", "embed", "embedding", ("token",), "x", (model.d_model,), tables)
    norm = _norm(model, "ln_f", "x", "n")
    return Graph(
        model=model,
        prologue=(embed,) if embedding else (),
        layer=(*_attention(model), *_feed_forward(model)),
        epilogue=(norm, lm_head) if head else (norm,),
    )


def _attention(model: Model) -> Iterator[Op]:
    """From the residual stream `x` to the stream with the attention's output added, `y`."""
    d, q, kv = model.d_model, model.q_width, model.kv_width
    heads = (model.heads, model.d_head)
    q_part, k_part, v_part = (0, q), (q, q + kv), (q + kv, q + 2 * kv)
    factor = 1 / sqrt(model.d_head) if model.scale_attention else 1.0
    yield _norm(model, "ln1", "x", "h")
    yield _linear(model, "qkv", "qkv", "h", "qkv", (q + 2 * kv, d))
    if model.rope:
        yield Op("rotary_q", "rotary", "rotary", ("qkv",), "r", heads, part=q_part)
        yield Op("scale", "scale", "score", ("r",), "q", (q,), factor=factor)
        yield Op("rotary_k", "rotary", "rotary", ("qkv",), "k", (model.kv_heads, model.d_head), part=k_part)
        yield Op("cache_k", "cache_k", "kv_write", ("k",), "K", (kv,))
    else:
        yield Op("scale", "scale", "score", ("qkv",), "q", (q,), part=q_part, factor=factor)
        yield Op("cache_k", "cache_k", "kv_write", ("qkv",), "K", (kv,), part=k_part)
    yield Op("score", "score", "score", ("q", "K"), "s", heads, kv_heads=model.kv_heads)
    yield Op("softmax", "softmax", "softmax", ("s",), "p", heads)
    yield Op("cache_v", "cache_v", "kv_write", ("qkv",), "V", (kv,), part=v_part)
    yield Op("context", "context", "context", ("p", "V"), "c", heads, kv_heads=model.kv_heads)
    yield _linear(model, "proj", "projection", "c", "a", (d, q))
    yield Op("add1", "add", "residual", ("x", "a"), "y", (d,))


def _feed_forward(model: Model) -> Iterator[Op]:
    """From `y` to the residual stream that leaves the layer, `x`."""
    d, ff = model.d_model, model.d_ff
    yield _norm(model, "ln2", "y", "n")
    if model.gated:
        yield _linear(model, "gate", "ffn1", "n", "f", (ff, d))
        yield _linear(model, "up", "ffn1", "n", "u", (ff, d))
        yield Op("activation", "activation", "activation", ("f",), "g", (ff,))
        yield Op("multiply", "multiply", "activation", ("g", "u"), "e", (ff,))
        yield _linear(model, "down", "ffn2", "e", "m", (d, ff))
    else:
        yield _linear(model, "ffn1", "ffn1", "n", "f", (ff, d))
        yield Op("activation", "activation", "activation", ("f",), "g", (ff,))
        yield _linear(model, "ffn2", "ffn2", "g", "m", (d, ff))
    yield Op("add2", "add", "residual", ("y", "m"), "x", (d,))


def _linear(model: Model, name: str, group: Group, source: str, output: str, shape: tuple[int, int]) -> Op:
    parameters = (f"{name}.weight", f"{name}.bias") if model.bias else (f"{name}.weight",)
    return Op(name, "linear", group, (source,), output, shape, parameters)


def _norm(model: Model, name: str, source: str, output: str) -> Op:
    parameters = (f"{name}.weight", f"{name}.bias") if model.norm == "layernorm" else (f"{name}.weight",)
    return Op(name, model.norm, "norm", (source,), output, (model.d_model,), parameters)

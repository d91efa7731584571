"""The decoder in NumPy, fp32, one token at a time: what every machine must compute.

It runs the operators of `graph` and knows nothing else, so logits that equal Hugging Face's prove it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pimloom.arch.document import InputError
from pimloom.workloads.graph import Op, decoder_ops
from pimloom.workloads.model import Model, Rope

Array = NDArray[np.float32]
Observer = Callable[[Op, Array], None]


class ReferenceDecoder:
    """A model with its weights and a KV cache that starts out empty."""

    def __init__(self, model: Model, tensors: Mapping[str, Array]) -> None:
        """tensors: by canonical name; each is asked for once and kept."""
        self.model = model
        self.position = 0
        """Tokens taken so far, which is the position of the next one."""
        self.ops = tuple(decoder_ops(model, embedding=True, head=True).ops())
        self.tensors = {name: tensors[name] for op in self.ops for name in op.parameters}
        self._frequencies = rotary_frequencies(model.rope, model.d_head) if model.rope else None
        cache = (model.layers, model.positions, model.kv_heads, model.d_head)
        # Untouched pages of an empty array take no memory: a short run costs what it uses.
        self.caches = {"K": np.empty(cache, np.float32), "V": np.empty(cache, np.float32)}

    def step(self, token: int, observe: Observer | None = None) -> Array:
        """The logits f32[vocab] that follow one more token.

        observe: called after each operator with its output; of the two cache operators, with the row written.
        Raises InputError for a token outside the vocabulary and for one token more than there are positions.
        """
        if not 0 <= token < self.model.vocab:
            raise InputError(f"token {token} is not in the vocabulary, which has {self.model.vocab} entries")
        if self.position >= self.model.positions:
            raise InputError(f"token {self.position + 1}, but the model has {self.model.positions} positions")
        registers: dict[str, Array] = {}
        for op in self.ops:
            value = self._embed(op, token) if op.kind == "embed" else self.apply(op, registers)
            registers[op.output] = value
            if observe is not None:
                observe(op, value)
        self.position += 1
        return registers["logits"]

    def prefill(self, tokens: Sequence[int]) -> Array:
        """The logits f32[len(tokens), vocab] after each token of a prompt."""
        return np.stack([self.step(int(token)) for token in tokens])

    def _embed(self, op: Op, token: int) -> Array:
        value: Array = self.tensors["wte"][token]
        return value + self.tensors["wpe"][self.position] if "wpe" in op.parameters else value

    def apply(self, op: Op, registers: Mapping[str, Array]) -> Array:
        """The output of an operator, given those of the ones before."""
        source = registers[op.inputs[0]]
        if op.part is not None:
            source = source[slice(*op.part)]
        if op.kind in ("cache_k", "cache_v", "score", "context"):
            return self.attend(op, source)
        parameters = [self.tensors[name] for name in op.parameters]
        value: Array
        match op.kind:
            case "layernorm":
                value = layernorm(source, parameters[0], parameters[1], self.model.norm_epsilon)
            case "rmsnorm":
                value = rmsnorm(source, parameters[0], self.model.norm_epsilon)
            case "linear":
                value = linear(source, *parameters)
            case "rotary":
                assert self._frequencies is not None
                value = rotated(source.reshape(op.shape), self.position, self._frequencies).reshape(-1)
            case "scale":
                value = source * np.float32(op.factor)
            case "softmax":
                value = softmax(source)
            case "add":
                value = source + registers[op.inputs[1]]
            case "multiply":
                value = source * registers[op.inputs[1]]
            case "activation":
                value = ACTIVATIONS[self.model.activation](source)
            case _:
                raise NotImplementedError(op.kind)
        return value

    def attend(self, op: Op, source: Array) -> Array:
        """The operators that write or read a cache."""
        if op.kind in ("cache_k", "cache_v"):
            cache = self.caches[op.output]
            cache[op.layer, self.position] = source.reshape(cache.shape[2:])
            return source
        cached = self.caches[op.inputs[1]][op.layer, : self.position + 1]
        value: Array
        if op.kind == "score":
            queries = source.reshape(op.kv_heads, -1, op.shape[1])
            value = np.einsum("kgd,tkd->kgt", queries, cached).reshape(op.shape[0], -1)
        else:
            shares = source.reshape(op.kv_heads, -1, self.position + 1)
            value = np.einsum("kgt,tkd->kgd", shares, cached).reshape(-1)
        return value


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Weight f32[out, in] · x (+ bias)."""
    value: Array = weight @ x
    return value if bias is None else value + bias


def layernorm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """(x − mean) / sqrt(variance + epsilon) · weight + bias, over all of x f32[n]."""
    centred = x - x.mean()
    normed: Array = centred / np.sqrt(np.mean(centred * centred) + np.float32(epsilon))
    return normed * weight + bias


def rmsnorm(x: Array, weight: Array, epsilon: float) -> Array:
    """x / sqrt(mean(x²) + epsilon) · weight, over all of x f32[n] (Zhang and Sennrich, arXiv 1910.07467)."""
    normed: Array = x / np.sqrt(np.mean(x * x) + np.float32(epsilon))
    return normed * weight


def rotary_frequencies(rope: Rope, d_head: int) -> Array:
    """Radians a position for each pair of a head, f32[d_head / 2].

    theta^(−2i / d_head) (Su et al., arXiv 2104.09864, section 3.2.2), with Llama 3's scaling where the model has it
    (`RopeScaling`; Hugging Face's rope_type llama3).
    """
    frequencies = np.float32(1) / np.float32(rope.theta) ** (
        np.arange(0, d_head, 2, dtype=np.float32) / d_head
    )
    if rope.scaling is not None:
        s = rope.scaling
        turns = s.original_positions * frequencies / (2 * np.pi)
        kept = (turns - s.low_frequency_factor) / (s.high_frequency_factor - s.low_frequency_factor)
        kept = np.clip(kept, 0, 1)
        frequencies = frequencies * (kept + (1 - kept) / s.factor)
    return frequencies.astype(np.float32)


def rotated(x: Array, position: int, frequencies: Array) -> Array:
    """f32[heads, d_head] with each head's elements i and i + d_head / 2 turned by position · frequencies[i]."""
    angles = np.float32(position) * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(x: Array) -> Array:
    """Along the last axis, with the largest value taken off first."""
    powers: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def gelu_tanh(x: Array) -> Array:
    """GELU in the tanh form of Hendrycks and Gimpel (arXiv 1606.08415, section 2), which GPT-2 uses."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    value: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return value


def relu(x: Array) -> Array:
    """The larger one of x and 0."""
    return np.maximum(x, 0)


def silu(x: Array) -> Array:
    """x · sigmoid(x), also called swish (Ramachandran et al., arXiv 1710.05941)."""
    # exp of a large number overflows to infinity, and the quotient is then the right 0.
    with np.errstate(over="ignore"):
        value: Array = x / (1 + np.exp(-x))
    return value


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"gelu_tanh": gelu_tanh, "relu": relu, "silu": silu}
"""Function by its name in `Model`."""

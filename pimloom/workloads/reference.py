"""The decoder in NumPy, fp32, one token at a time: what every machine must compute.

It runs the operators of `graph` and knows nothing else, so logits that equal Hugging Face's prove it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pimloom.arch.document import InputError
from pimloom.workloads.graph import Op, decoder_ops
from pimloom.workloads.model import Model

Array = NDArray[np.float32]
Observer = Callable[[Op, Array], None]


class ReferenceDecoder:
    """A model with its weights and a KV cache that starts out empty."""

    def __init__(self, model: Model, tensors: Mapping[str, Array]) -> None:
        """tensors: by canonical name; each is asked for once and kept."""
        self.model = model
        self.position = 0
        """Tokens taken so far, which is the position of the next one."""
        self._ops = tuple(decoder_ops(model, embedding=True, head=True).ops())
        self._tensors = {name: tensors[name] for op in self._ops for name in op.parameters}
        cache = (model.layers, model.positions, model.heads, model.d_head)
        # Untouched pages of an empty array take no memory: a short run costs what it uses.
        self._caches = {"K": np.empty(cache, np.float32), "V": np.empty(cache, np.float32)}

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
        for op in self._ops:
            value = self._embed(op, token) if op.kind == "embed" else self._apply(op, registers)
            registers[op.output] = value
            if observe is not None:
                observe(op, value)
        self.position += 1
        return registers["logits"]

    def prefill(self, tokens: Sequence[int]) -> Array:
        """The logits f32[len(tokens), vocab] after each token of a prompt."""
        return np.stack([self.step(int(token)) for token in tokens])

    def _embed(self, op: Op, token: int) -> Array:
        tokens, positions = (self._tensors[name] for name in op.parameters)
        value: Array = tokens[token] + positions[self.position]
        return value

    def _apply(self, op: Op, registers: Mapping[str, Array]) -> Array:
        source = registers[op.inputs[0]]
        if op.part is not None:
            source = source[slice(*op.part)]
        parameters = [self._tensors[name] for name in op.parameters]
        value: Array
        match op.kind:
            case "layernorm":
                value = layernorm(source, parameters[0], parameters[1], self.model.norm_epsilon)
            case "linear":
                value = parameters[0] @ source
                if len(parameters) > 1:
                    value += parameters[1]
            case "scale":
                value = source * np.float32(op.factor)
            case "cache_k" | "cache_v":
                cache = self._caches[op.output]
                cache[op.layer, self.position] = source.reshape(cache.shape[2:])
                value = source
            case "score":
                value = np.einsum("hd,thd->ht", source.reshape(op.shape), self._cached(op))
            case "softmax":
                value = softmax(source)
            case "context":
                value = np.einsum("ht,thd->hd", source, self._cached(op)).reshape(-1)
            case "add":
                value = source + registers[op.inputs[1]]
            case "activation":
                value = gelu_tanh(source) if self.model.activation == "gelu_tanh" else np.maximum(source, 0)
            case _:
                raise NotImplementedError(op.kind)
        return value

    def _cached(self, op: Op) -> Array:
        return self._caches[op.inputs[1]][op.layer, : self.position + 1]


def layernorm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """(x − mean) / sqrt(variance + epsilon) · weight + bias, over all of x f32[n]."""
    centred = x - x.mean()
    normed: Array = centred / np.sqrt(np.mean(centred * centred) + np.float32(epsilon))
    return normed * weight + bias


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

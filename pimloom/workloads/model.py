"""A decoder-only model: its sizes, and what they add up to."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pimloom.arch.base import Count, Description, Strict, raise_located
from pimloom.arch.document import Document, Override, read, validate
from pimloom.arch.tree import Keys, Node, shown
from pimloom.workloads import huggingface

Width = Annotated[Count, Field(le=2**20)]
"""A size of a layer. Sizes are bounded a hundred times above the largest models, so that a mistyped one is refused
and not computed with."""


Positions = Annotated[Count, Field(le=2**24)]
Positive = Annotated[float, Field(gt=0, le=1e12)]

_CHOICES: dict[str, dict[str, tuple[object, ...]]] = {
    "gpt2": {"activation": ("gelu_tanh", "relu"), "bias": (True,)},
    "opt": {"activation": ("relu",), "bias": (True,), "scale_attention": (True,), "scale_by_layer": (False,)},
    "llama": {
        "activation": ("silu",),
        "bias": (False,),
        "scale_attention": (True,),
        "scale_by_layer": (False,),
    },
}
"""Family -> key -> the values that it may have there; a key that is not named is free."""


class RopeScaling(Strict):
    """Llama 3's stretching of the rotary wavelengths (rope_type llama3 of Hugging Face), by their length in tokens.

    Up to original_positions / high_frequency_factor they stay, from original_positions / low_frequency_factor on they
    are `factor` times as long, and in between the frequency changes linearly.
    """

    factor: Positive
    low_frequency_factor: Positive
    high_frequency_factor: Positive
    original_positions: Positions

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "RopeScaling":
        low, high = self.low_frequency_factor, self.high_frequency_factor
        if low >= high:
            text = f"should be above low_frequency_factor {low:g}, not {high:g}"
            raise_located("RopeScaling", [(("high_frequency_factor",), text)])
        return self


class Rope(Strict):
    """Rotary positions: the angle of pair i of a head is position · theta^(−2i / d_head) (Su et al. 2021)."""

    theta: Positive
    scaling: RopeScaling | None = None


class Model(Description):
    """A decoder-only model with norms before each half of a layer.

    The family decides: gpt2 and opt have layer norms, learned positions and two matrices in the feed-forward part;
    llama has RMS norms, rotary positions, three matrices (gate, up, down) and may share KV heads among heads.
    """

    kind: Literal["model"]
    family: Literal["gpt2", "opt", "llama"]
    layers: Annotated[Count, Field(le=10_000)]
    d_model: Width
    heads: Width
    kv_heads: Width = Field(default=None, validate_default=True)
    """Heads of the K and V caches, each read by heads / kv_heads neighbouring heads; as many as heads if left out."""
    d_head: Width
    d_ff: Width
    vocab: Annotated[Count, Field(le=2**24)]
    positions: Positions
    """Longest sequence."""
    activation: Literal["gelu_tanh", "relu", "silu"]
    norm_epsilon: Annotated[float, Field(gt=0)]
    rope: Rope | None = None
    """Of the llama family, and of no other."""
    tied_head: bool
    """The LM head is the token table."""
    scale_attention: bool = True
    """Scores are divided by sqrt(d_head)."""
    scale_by_layer: bool = False
    """Scores are also divided by the layer's number, counted from 1."""
    bias: bool
    """Every matrix but the LM head has a bias: so or not so in a whole family, and said for the reader."""

    @field_validator("kv_heads", mode="before")
    @classmethod
    def _one_for_each_head(cls, value: Any, info: ValidationInfo) -> Any:
        return info.data.get("heads", 1) if value is None else value

    @model_validator(mode="after")
    def _fits_its_family(self) -> "Model":
        raise_located("Model", [*self._findings()])
        return self

    def _findings(self) -> Iterator[tuple[Keys, str]]:
        family = f"in the {self.family} family"
        for key, allowed in _CHOICES[self.family].items():
            value = getattr(self, key)
            if value not in allowed:
                yield (key,), f"should be {' or '.join(map(shown, allowed))} {family}, not {shown(value)}"
        if self.family == "llama":
            if self.rope is None:
                yield ("rope",), f"missing; positions are rotary {family}"
            if self.heads % self.kv_heads:
                yield ("kv_heads",), f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}"
            if self.d_head % 2:
                yield ("d_head",), f"should be even, as rotary positions turn pairs, not {self.d_head}"
            return
        if self.rope is not None:
            yield ("rope",), f"positions are learned {family}, not rotary"
        if self.kv_heads != self.heads:
            yield ("kv_heads",), f"should be heads {self.heads} {family}, not {self.kv_heads}"
        if self.q_width != self.d_model:
            product = f"heads {self.heads} x d_head {self.d_head} = {self.q_width}"
            yield ("d_model",), f"should be {product} {family}, not {self.d_model}"

    @property
    def norm(self) -> Literal["layernorm", "rmsnorm"]:
        """The kind of all norms; an RMS norm has a weight and no bias."""
        return "rmsnorm" if self.family == "llama" else "layernorm"

    @property
    def gated(self) -> bool:
        """The feed-forward part is down · (activation(gate · x) × (up · x)), not ffn2 · activation(ffn1 · x)."""
        return self.family == "llama"

    @property
    def q_width(self) -> int:
        """Values of all heads' queries."""
        return self.heads * self.d_head

    @property
    def kv_width(self) -> int:
        """Values of one token in one layer's K cache, and as many in its V cache."""
        return self.kv_heads * self.d_head

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stored tensor by name, matrices as (out, in); a tied head is not stored."""
        one = self._layer_shapes()
        layers = {f"layer{i}.{name}": shape for i in range(self.layers) for name, shape in one.items()}
        return layers | self._outer_shapes()

    def _matrix_shapes(self) -> dict[str, tuple[int, int]]:
        d, ff = self.d_model, self.d_ff
        attention = {"qkv": (self.q_width + 2 * self.kv_width, d), "proj": (d, self.q_width)}
        if self.gated:
            return attention | {"gate": (ff, d), "up": (ff, d), "down": (d, ff)}
        return attention | {"ffn1": (ff, d), "ffn2": (d, ff)}

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self._norm_shapes("ln1") | self._norm_shapes("ln2")
        for op, (out, size) in self._matrix_shapes().items():
            shapes[f"{op}.weight"] = (out, size)
            if self.bias:
                shapes[f"{op}.bias"] = (out,)
        return shapes

    def _norm_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias") if self.norm == "layernorm" else ("weight",)
        return {f"{name}.{part}": (self.d_model,) for part in parts}

    def _outer_shapes(self) -> dict[str, tuple[int, ...]]:
        table = (self.vocab, self.d_model)
        shapes: dict[str, tuple[int, ...]] = {"wte": table}
        if self.rope is None:
            shapes["wpe"] = (self.positions, self.d_model)
        shapes |= self._norm_shapes("ln_f")
        return shapes if self.tied_head else shapes | {"head.weight": table}

    @property
    def decoder_parameters(self) -> int:
        """Elements of the layers' matrices: in GPT-2 12 · layers · d_model² where d_ff = 4 · d_model."""
        return self.layers * sum(map(prod, self._matrix_shapes().values()))

    @property
    def parameters(self) -> int:
        """Elements of all stored tensors: tables, matrices, biases, norms, and an untied head."""
        layer, outer = (sum(map(prod, s.values())) for s in (self._layer_shapes(), self._outer_shapes()))
        return self.layers * layer + outer


def read_model(name_or_path: str) -> Node:
    """The tree of a model by shipped name, or by path of a YAML, a Hugging Face config.json or a folder with one.

    A shipped name goes before a folder of that name in the current directory, which is ./NAME.
    Raises InputError with all that is wrong.
    """
    config = huggingface.config_path(name_or_path)
    return read(Model, "model", name_or_path) if config is None else huggingface.read_config(config)


def load_model(name_or_path: str, overrides: Sequence[str | Override] = ()) -> tuple[Model, Document]:
    """A model by a name as `read_model` takes it.

    `overrides` are `key=value` with the keys of `Model`, for an imported config too.
    Raises InputError with all that is wrong.
    """
    return validate(Model, "model", read_model(name_or_path), overrides)

"""A decoder-only model: its sizes, and what they add up to."""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimloom.arch.base import Count, Description, raise_located
from pimloom.arch.document import Document, Override, read, validate
from pimloom.arch.tree import Node
from pimloom.workloads import huggingface

Width = Annotated[Count, Field(le=2**20)]
"""A size of a layer. Sizes are bounded a hundred times above the largest models, so that a mistyped one is refused
and not computed with."""


class Model(Description):
    """A model of the GPT-2 family: learned positions, norms before each half of a layer, two-matrix FFN."""

    kind: Literal["model"]
    family: Literal["gpt2"]
    layers: Annotated[Count, Field(le=10_000)]
    d_model: Width
    heads: Width
    d_head: Width
    d_ff: Width
    vocab: Annotated[Count, Field(le=2**24)]
    positions: Annotated[Count, Field(le=2**24)]
    """Longest sequence."""
    activation: Literal["gelu_tanh", "relu"]
    norm_epsilon: Annotated[float, Field(gt=0)]
    tied_head: bool
    """The LM head is the token table."""
    scale_attention: bool
    """Scores are divided by sqrt(d_head)."""
    scale_by_layer: bool
    """Scores are also divided by the layer's number, counted from 1."""
    bias: Literal[True]
    """Every matrix but the LM head has a bias: so in the whole family, and said for the reader."""

    @model_validator(mode="after")
    def _heads_make_up_the_model(self) -> "Model":
        if self.heads * self.d_head != self.d_model:
            product = f"heads {self.heads} x d_head {self.d_head} = {self.heads * self.d_head}"
            raise_located(
                "Model", [(("d_model",), f"should be {product} in the gpt2 family, not {self.d_model}")]
            )
        return self

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stored tensor by name, matrices as (out, in); a tied head is not stored."""
        one = self._layer_shapes()
        layers = {f"layer{i}.{name}": shape for i in range(self.layers) for name, shape in one.items()}
        return layers | self._outer_shapes()

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.d_model
        weights: dict[str, tuple[int, ...]] = {
            "ln1": (d,), "qkv": (3 * d, d), "proj": (d, d), "ln2": (d,), "ffn1": (self.d_ff, d),
            "ffn2": (d, self.d_ff),
        }  # fmt: skip
        return {
            f"{op}.{part}": shape
            for op, weight in weights.items()
            for part, shape in (("weight", weight), ("bias", weight[:1]))
        }

    def _outer_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {
            "wte": (self.vocab, d), "wpe": (self.positions, d), "ln_f.weight": (d,), "ln_f.bias": (d,),
        }  # fmt: skip
        return shapes if self.tied_head else shapes | {"head.weight": (self.vocab, d)}

    @property
    def decoder_parameters(self) -> int:
        """Elements of the layers' matrices: 12 · layers · d_model² where d_ff = 4 · d_model."""
        matrices = (self._layer_shapes()[f"{op}.weight"] for op in ("qkv", "proj", "ffn1", "ffn2"))
        return self.layers * sum(map(prod, matrices))

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

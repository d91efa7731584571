"""A decoder-only model: its sizes, and what they add up to."""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimloom.arch.base import Count, Description, raise_located
from pimloom.arch.document import Document, load, validate
from pimloom.workloads import huggingface


class Model(Description):
    """A model of the GPT-2 family: learned positions, norms before each half of a layer, two-matrix FFN."""

    kind: Literal["model"]
    family: Literal["gpt2"]
    layers: Count
    d_model: Count
    heads: Count
    d_head: Count
    d_ff: Count
    vocab: Count
    positions: Count
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
        d = self.d_model
        linear = {"qkv": (3 * d, d), "proj": (d, d), "ffn1": (self.d_ff, d), "ffn2": (d, self.d_ff)}
        shapes: dict[str, tuple[int, ...]] = {"wte": (self.vocab, d), "wpe": (self.positions, d)}
        for layer in range(self.layers):
            for op in ("ln1", "qkv", "proj", "ln2", "ffn1", "ffn2"):
                weight = linear.get(op, (d,))
                shapes[f"layer{layer}.{op}.weight"] = weight
                shapes[f"layer{layer}.{op}.bias"] = weight[:1]
        shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
        return shapes if self.tied_head else shapes | {"head.weight": (self.vocab, d)}

    @property
    def decoder_parameters(self) -> int:
        """Elements of the layers' matrices: 12 · layers · d_model² where d_ff = 4 · d_model."""
        matrices = (self.tensor_shapes()[f"layer0.{op}.weight"] for op in ("qkv", "proj", "ffn1", "ffn2"))
        return self.layers * sum(prod(shape) for shape in matrices)

    @property
    def parameters(self) -> int:
        """Elements of all stored tensors: tables, matrices, biases, norms, and an untied head."""
        return sum(prod(shape) for shape in self.tensor_shapes().values())


def load_model(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[Model, Document]:
    """A model by shipped name, or by path from a YAML, a Hugging Face config.json or a folder that holds one.

    A shipped name goes before a folder of that name in the current directory, which is ./NAME. `overrides`
    are `key=value` with the keys of `Model`, for an imported config too.
    Raises InputError with all that is wrong.
    """
    config = huggingface.config_path(name_or_path)
    if config is None:
        return load(Model, "model", name_or_path, overrides)
    return validate(Model, "model", huggingface.read_config(config), overrides)

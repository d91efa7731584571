"""Weights by canonical name, made or read one at a time: a model larger than memory can be walked through.

Names: `wte`, `wpe`, `layer{l}.{ln1,qkv,proj,ln2,ffn1,ffn2}.{weight,bias}`, `ln_f.{weight,bias}` and
`head.weight`; in the llama family `gate`, `up` and `down` in place of `ffn1` and `ffn2`, no `wpe` and no bias.
Matrices are [out, in], the rows of `qkv` those of all queries, then all keys, then all values; `head.weight` is
`wte` where the head is tied.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pimloom.arch.document import InputError
from pimloom.workloads.model import Model

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Names:
    """How transformers calls a family's tensors, and what it does with them."""

    prefix: str
    """Stands before all names but the head's, or before none."""
    layer: str
    """Stands before the names of a layer, with its number for {}."""
    inside: dict[str, tuple[str, ...]]
    """Operator of a layer -> the tensors whose rows make up its weight or bias, one after the other."""
    outside: dict[str, str]
    """Tensor outside the layers -> the stored one, where it is called otherwise."""
    buffers: str
    """Expression for what old files hold beside the weights."""
    transposed: frozenset[str] = frozenset()
    """Operators whose weights are stored as (in, out)."""
    first_position: int = 0
    """Row of the position table that belongs to position 0."""


_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_NAMES = {
    "gpt2": _Names(
        prefix="transformer.",
        layer="h.{}.",
        inside={
            "ln1": ("ln_1",), "qkv": ("attn.c_attn",), "proj": ("attn.c_proj",), "ln2": ("ln_2",),
            "ffn1": ("mlp.c_fc",), "ffn2": ("mlp.c_proj",),
        },
        outside={"wte": "wte.weight", "wpe": "wpe.weight"},
        buffers=r"h\.\d+\.attn\.(masked_)?bias",
        transposed=frozenset({"qkv", "proj", "ffn1", "ffn2"}),
    ),
    "opt": _Names(
        prefix="model.",
        layer="decoder.layers.{}.",
        inside={
            "ln1": ("self_attn_layer_norm",), "qkv": _SEPARATE, "proj": ("self_attn.out_proj",),
            "ln2": ("final_layer_norm",), "ffn1": ("fc1",), "ffn2": ("fc2",),
        },
        outside={
            "wte": "decoder.embed_tokens.weight", "wpe": "decoder.embed_positions.weight",
            "ln_f.weight": "decoder.final_layer_norm.weight", "ln_f.bias": "decoder.final_layer_norm.bias",
        },
        buffers=r"decoder\.version",
        first_position=2,
    ),
    "llama": _Names(
        prefix="model.",
        layer="layers.{}.",
        inside={
            "ln1": ("input_layernorm",), "qkv": _SEPARATE, "proj": ("self_attn.o_proj",),
            "ln2": ("post_attention_layernorm",), "gate": ("mlp.gate_proj",), "up": ("mlp.up_proj",),
            "down": ("mlp.down_proj",),
        },
        outside={"wte": "embed_tokens.weight", "ln_f.weight": "norm.weight"},
        buffers=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    ),
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 5


class Tensors(Mapping[str, Array]):
    """Canonical name → array; every look-up makes or reads the array anew, so keep what is needed again."""

    def __init__(self, model: Model, read: Callable[[str], Array]) -> None:
        """read: makes the array of one name of `model.tensor_shapes()`."""
        self._shapes = model.tensor_shapes()
        self._tied = model.tied_head
        self._read = read

    def __getitem__(self, name: str) -> Array:
        """float32 of the shape that `model.tensor_shapes()` gives."""
        stored = "wte" if self._tied and name == "head.weight" else name
        if stored not in self._shapes:
            raise KeyError(name)
        return self._read(stored)

    def __iter__(self) -> Iterator[str]:
        """All names, a tied head's among them."""
        yield from self._shapes
        if self._tied:
            yield "head.weight"

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._shapes) + self._tied


def random(model: Model, seed: int) -> Tensors:
    """Weights drawn at GPT-2's scales; each depends on seed and name alone, not on the order of look-ups.

    Normal with deviation 0.02, and 0.02 / sqrt(2 · layers) for the two matrices that end in the residual
    stream (Radford et al. 2019, section 2.3). A fresh GPT-2 has biases of 0 and norm weights of 1; here both
    are spread, so that a bias left out or a norm weight taken for another shows as a wrong number.
    """
    shapes = model.tensor_shapes()

    def read(name: str) -> Array:
        generator = np.random.Generator(np.random.PCG64([seed, crc32(name.encode())]))
        values = generator.standard_normal(shapes[name], dtype=np.float32)
        if name.endswith((".ln1.weight", ".ln2.weight")) or name == "ln_f.weight":
            return 1 + np.float32(0.1) * values
        residual = name.endswith((".proj.weight", ".ffn2.weight", ".down.weight"))
        return values * np.float32(0.02 / np.sqrt(2 * model.layers) if residual else 0.02)

    return Tensors(model, read)


def from_safetensors(folder: str | Path, model: Model) -> Tensors:
    """The weights in a Hugging Face folder: `model.safetensors` or its shards `model-*-of-*.safetensors`.

    Names with or without the prefix `transformer.` or `model.`; the buffers of old files (causal masks, rotary
    frequencies) are passed over, and so is a stored copy of a tied head. Raises InputError, with all that is wrong,
    for missing or unexpected tensors, shapes that the model does not have, and values that are not floating point.
    """
    from safetensors import SafetensorError, safe_open

    names, folder = _NAMES[model.family], Path(folder)
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        raise InputError(f"{whole}: no such file, and no shards model-*-of-*.safetensors beside it")
    handles: dict[Path, Any] = {}
    stored: dict[str, tuple[Path, str]] = {}
    for file in files:
        try:
            handles[file] = safe_open(file, framework="np")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: not a readable safetensors file: {error}") from error
        for key in handles[file].keys():  # noqa: SIM118  a handle is no mapping
            name = key.removeprefix(names.prefix)
            if name in stored:
                other, same = stored[name]
                raise InputError(f"{file}: {key}: stored twice, here and as {same} in {other}")
            stored[name] = file, key

    sources = {
        name: [*_stored_parts(model, names, name, shape)] for name, shape in model.tensor_shapes().items()
    }
    wanted = {part.name for parts in sources.values() for part in parts}
    spare = {"lm_head.weight"} if model.tied_head else set()
    known = wanted | spare
    unexpected = [name for name in stored if name not in known and not re.fullmatch(names.buffers, name)]
    problems = [
        *_listed(folder, "missing from the file", sorted(wanted - stored.keys())),
        *_listed(folder, "not part of the model", sorted(unexpected)),
    ]
    for part in (part for parts in sources.values() for part in parts if part.name in stored):
        file, key = stored[part.name]
        entry = handles[file].get_slice(key)
        shape = tuple(entry.get_shape())
        if shape != part.shape:
            problems.append(f"{file}: {key}: shape {shape}, but the model's sizes make it {part.shape}")
        if entry.get_dtype() not in _FLOATS:
            kind = entry.get_dtype()
            problems.append(f"{file}: {key}: type {kind}, but only {', '.join(_FLOATS)} can be read")
    if problems:
        raise InputError("\n".join(problems))

    def read_part(part: _Part) -> Array:
        file, key = stored[part.name]
        array = handles[file].get_tensor(key)
        rows = array.T if part.transposed else array
        return np.ascontiguousarray(rows[part.first_row :], dtype=np.float32)

    def read(name: str) -> Array:
        parts = [read_part(part) for part in sources[name]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Tensors(model, read)


class _Part(NamedTuple):
    """A stored tensor that is one of our tensors or some rows of it."""

    name: str
    """transformers' name without the prefix."""
    shape: tuple[int, ...]
    """As stored."""
    transposed: bool = False
    first_row: int = 0
    """Of what is used of it."""


def _stored_parts(model: Model, names: _Names, name: str, shape: tuple[int, ...]) -> Iterator[_Part]:
    """The stored tensors that make up one of ours."""
    if not name.startswith("layer"):
        first = names.first_position if name == "wpe" else 0
        stored = "lm_head.weight" if name == "head.weight" else names.outside.get(name, name)
        yield _Part(stored, (first + shape[0], *shape[1:]), first_row=first)
        return
    layer, op, kind = name.removeprefix("layer").split(".")
    modules = names.inside[op]
    heights = (model.q_width, model.kv_width, model.kv_width) if modules == _SEPARATE else shape[:1]
    transposed = op in names.transposed and kind == "weight"
    for module, height in zip(modules, heights, strict=True):
        found = (height, *shape[1:])
        whole = f"{names.layer.format(layer)}{module}.{kind}"
        yield _Part(whole, found[::-1] if transposed else found, transposed)


def _listed(folder: Path, what: str, names: list[str]) -> list[str]:
    """No line for no names, else one that shows the first few."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{folder}: {what}: {', '.join(names[:_SHOWN])}{more}"]

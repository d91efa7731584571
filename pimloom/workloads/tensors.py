"""Weights by canonical name, made or read one at a time: a model larger than memory can be walked through.

Names: `wte`, `wpe`, `layer{l}.{ln1,qkv,proj,ln2,ffn1,ffn2}.{weight,bias}`, `ln_f.{weight,bias}` and
`head.weight`. Matrices are [out, in]; `head.weight` is `wte` where the head is tied.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pimloom.arch.document import InputError
from pimloom.workloads.model import Model

Array = NDArray[np.float32]

_HUGGING_FACE = {
    "ln1": "ln_1", "qkv": "attn.c_attn", "proj": "attn.c_proj", "ln2": "ln_2", "ffn1": "mlp.c_fc",
    "ffn2": "mlp.c_proj",
}  # fmt: skip
_OUTSIDE_LAYERS = {"wte": "wte.weight", "wpe": "wpe.weight", "head.weight": "lm_head.weight"}
_CAUSAL_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
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
        residual = name.endswith((".proj.weight", ".ffn2.weight"))
        return values * np.float32(0.02 / np.sqrt(2 * model.layers) if residual else 0.02)

    return Tensors(model, read)


def from_safetensors(folder: str | Path, model: Model) -> Tensors:
    """The weights in a Hugging Face folder: `model.safetensors` or its shards `model-*-of-*.safetensors`.

    Names with or without the prefix `transformer.`; the causal-mask buffers of old files are passed over, and
    so is a stored copy of a tied head. Raises InputError, with all that is wrong, for missing or unexpected
    tensors, shapes that the model does not have, and values that are not floating point.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
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
            name = key.removeprefix("transformer.")
            if name in stored:
                other, same = stored[name]
                raise InputError(f"{file}: {key}: stored twice, here and as {same} in {other}")
            stored[name] = file, key

    shapes = model.tensor_shapes()
    sources = {name: _hugging_face_name(name) for name in shapes}
    wanted = {source for source, _ in sources.values()}
    spare = {"lm_head.weight"} if model.tied_head else set()
    unexpected = [name for name in stored if name not in wanted | spare and not _CAUSAL_MASK.fullmatch(name)]
    problems = [
        *_listed(folder, "missing from the file", sorted(wanted - stored.keys())),
        *_listed(folder, "not part of the model", sorted(unexpected)),
    ]
    for name, (source, transposed) in sources.items():
        if source not in stored:
            continue
        file, key = stored[source]
        entry = handles[file].get_slice(key)
        shape, needed = tuple(entry.get_shape()), shapes[name][::-1] if transposed else shapes[name]
        if shape != needed:
            problems.append(f"{file}: {key}: shape {shape}, but the model's sizes make it {needed}")
        if entry.get_dtype() not in _FLOATS:
            kind = entry.get_dtype()
            problems.append(f"{file}: {key}: type {kind}, but only {', '.join(_FLOATS)} can be read")
    if problems:
        raise InputError("\n".join(problems))

    def read(name: str) -> Array:
        source, transposed = sources[name]
        file, key = stored[source]
        array = handles[file].get_tensor(key)
        return np.ascontiguousarray(array.T if transposed else array, dtype=np.float32)

    return Tensors(model, read)


def _hugging_face_name(name: str) -> tuple[str, bool]:
    """transformers' name of a tensor, and whether it is stored as (in, out), as its `Conv1D` does."""
    if not name.startswith("layer"):
        return _OUTSIDE_LAYERS.get(name, name), False
    layer, op, kind = name.removeprefix("layer").split(".")
    return f"h.{layer}.{_HUGGING_FACE[op]}.{kind}", kind == "weight" and not op.startswith("ln")


def _listed(folder: Path, what: str, names: list[str]) -> list[str]:
    """No line for no names, else one that shows the first few."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{folder}: {what}: {', '.join(names[:_SHOWN])}{more}"]

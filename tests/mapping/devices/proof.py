"""Kernels of PIM devices carried out, and the same in NumPy."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.mapping.devices import lower
from pimloom.sim.banks import Memory
from pimloom.sim.functional import Arithmetic, FunctionalError
from pimloom.sim.functional_device import execute
from pimloom.traces.stream import FIELDS, Attention, Gemv, Kernel, Site, Stream, Work

F4 = npt.NDArray[np.float32]
Operands = dict[str, F4]


def operands(work: Work, seed: int = 0) -> Operands:
    """Random operands; `vector` is the one that the host sends."""
    random = np.random.default_rng(seed)

    def some(*shape: int) -> F4:
        return random.standard_normal(shape, np.float32)

    if isinstance(work, Gemv):
        return {"matrix": some(work.outputs, work.inputs), "vector": some(work.batch, work.inputs)}
    if isinstance(work, Attention):
        cached = {"score": ["keys"], "context": ["values"], "attention": ["keys", "values"]}[work.kind]
        length = work.tokens if work.kind == "context" else work.d_head
        # As models do, so that no weight of a softmax vanishes.
        scale = np.float32(1 if work.kind == "context" else work.d_head**-0.5)
        return {
            **{name: some(work.kv_heads, work.tokens, work.d_head) for name in cached},
            "vector": some(work.heads, length) * scale,
        }
    if work.kind != "relu":
        return {"a": some(work.elements), "b": some(work.elements)}
    # The operand lies in the banks of some devices and is sent to others.
    one = some(work.elements)
    return {"a": one, "vector": one}


def expected(work: Work, given: Operands) -> F4:
    """The result in double precision, flat."""
    x = {name: values.astype(np.float64) for name, values in given.items()}
    if isinstance(work, Gemv):
        result = x["vector"] @ x["matrix"].T
    elif isinstance(work, Attention):
        shared = work.heads // work.kv_heads
        result = x["vector"]
        if work.kind != "context":
            result = np.einsum("hd,htd->ht", result, np.repeat(x["keys"], shared, 0))
        if work.kind == "attention":
            result = np.exp(result - result.max(1, keepdims=True))
            result /= result.sum(1, keepdims=True)
        if work.kind != "score":
            result = np.einsum("ht,htd->hd", result, np.repeat(x["values"], shared, 0))
    elif work.kind == "relu":
        result = np.maximum(x["a"], 0)
    else:
        result = x["a"] + x["b"] if work.kind == "add" else x["a"] * x["b"]
    return result.ravel().astype(np.float32)


def carried_out(device: Device, kernel: Kernel, given: Operands, arithmetic: Arithmetic = "fp32") -> F4:
    """The result of a kernel whose operands are stored first."""
    memory = Memory(device, arithmetic)
    places = kernel.stored()
    for name in given.keys() & places.keys():
        memory.store(places[name], given[name])
    return execute(device, kernel, memory, given.get("vector", ()))


def assert_within(site: Site, kernel: Kernel) -> None:
    """Raise unless the operands lie in the rows and channels that the kernel says, each in a place of its own."""
    addresses = [np.empty(0, np.int64)]
    for place in kernel.stored().values():
        assert site.row <= place.row.min() and place.row.max() < site.row + kernel.rows
        assert place.channel.max() < site.channels
        limits = (64, 64, 2**16, 2**10, 2**10)
        addresses.append(np.ravel_multi_index(tuple(f.ravel() for f in place), limits))
    together = np.sort(np.concatenate(addresses))
    assert (np.diff(together) > 0).all()


def prove(
    device: Device, work: Work, site: Site, arithmetic: Arithmetic = "fp32", error: float = 1e-4
) -> None:
    """Raise unless the device computes what NumPy does, relative to the largest value."""
    given, kernel = operands(work), lower(device, work, site)
    assert_within(site, kernel)
    result, wanted = carried_out(device, kernel, given, arithmetic), expected(work, given)
    np.testing.assert_allclose(result, wanted, rtol=0, atol=error * np.abs(wanted).max())


def spoilt(device: Device, stream: Stream, silent: Collection[str]) -> Iterator[tuple[str, Stream]]:
    """The stream with one mistake each: an instruction missing, another row or column, rows swapped.

    silent: meanings of commands that are left alone
    """
    fields = ("channels", *FIELDS)
    for i in np.flatnonzero(stream.command >= 0).tolist():
        command = stream.commands[stream.command[i]]
        meaning = device.dram.commands[command].meaning
        if meaning in silent or (meaning == "mac" and stream.operand[i] < 0):
            continue
        kept = np.arange(len(stream)) != i
        yield (
            f"without {i} ({command})",
            replace(stream, **{name: getattr(stream, name)[kept] for name in fields}),
        )
        # The address of a register file or of a function's table is none of a bank.
        if stream.row[i] < 0 or meaning in ("write_buffer", "activation"):
            continue
        for name in ("row", "column"):
            moved = getattr(stream, name).copy()
            moved[i] += 1
            yield f"{name} of {i} ({command}) + 1", replace(stream, **{name: moved})
        same = np.flatnonzero((stream.command == stream.command[i]) & (stream.row != stream.row[i]))
        if (same > i).any():
            j = int(same[same > i][0])
            swapped = stream.row.copy()
            swapped[[i, j]] = swapped[[j, i]]
            yield f"rows of {i} and {j} ({command}) swapped", replace(stream, row=swapped)


def is_found(device: Device, kernel: Kernel, stream: Stream, given: Operands, wanted: F4) -> bool:
    """Tell whether a mistake in a stream shows, as an error or as a wrong number."""
    try:
        result = carried_out(device, replace(kernel, stream=stream), given)
    except FunctionalError:
        return True
    return not np.allclose(result, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def assert_mistakes_show(device: Device, work: Work, site: Site, silent: Collection[str] = ()) -> None:
    """Raise unless every mistake of `spoilt` is found."""
    given, kernel = operands(work), lower(device, work, site)
    wanted = expected(work, given)
    assert not is_found(device, kernel, kernel.stream, given, wanted)
    missed = [
        what
        for what, stream in spoilt(device, kernel.stream, silent)
        if not is_found(device, kernel, stream, given, wanted)
    ]
    assert missed == []

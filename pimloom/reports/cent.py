"""CENT's end-to-end model: tokens of Llama 2 on devices of GDDR6-AiM behind a CXL switch.

The formulas are those of CENT's artifact (revision 8c79786), its slips included, so that its published table comes out:
the standby of a device is that of one channel, a link's energy is that of one bit a value, and SYNC is a command.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from pimloom.arch.base import Count, Description, Strict
from pimloom.arch.device import Device
from pimloom.arch.document import load
from pimloom.arch.tree import InputError, did_you_mean
from pimloom.mapping import cent
from pimloom.sim.bench import channels
from pimloom.traces.stream import END, SYNC, Stream

Positive = Annotated[float, Field(ge=0)]
Levels = Annotated[list[Positive], Field(min_length=3, max_length=3, description="static, read, write")]
Parts = Annotated[list[Positive], Field(min_length=2, max_length=2, description="at work, leakage")]
_LANES = 16
"""Values that an accelerator or a register takes at once."""


class Link(Strict):
    """The switch and the lanes to it, which the devices share out."""

    lanes: Count
    lane_GiBps: Positive
    round_trip_ns: Positive
    flit_B: Count
    payload_B: Count
    pJ_per_bit: Positive


class Time(Strict):
    """Clocks of a device's accelerators."""

    add_per_channel: Positive
    exponential_per_channel: Positive
    add: Positive
    exponential: Positive
    norm_reduction: Positive
    norm_core: Positive
    softmax_head: Positive
    softmax_core: Positive
    rotary: Positive


class Power(Strict):
    """Power of what a device has beside its memory; dynamic parts are per access and clock."""

    transaction_mW: Positive
    interface_mW: Positive
    channels_per_controller: Count
    global_buffer_mW: Levels
    shared_buffer_mW: Levels
    instruction_buffer_mW: Levels
    reduction_mW: Parts
    exponent_mW: Parts
    vector_mW: Parts
    control_mW: Parts
    core_mW: Positive
    control_activity: Positive


class Llama(Strict):
    """Shape of a model."""

    blocks: Count
    d_model: Count
    heads: Count
    kv_heads: Count
    d_head: Count
    d_ff: Count
    vocab: Count

    @property
    def decoder(self) -> cent.Decoder:
        """One block."""
        return cent.Decoder(self.d_model, self.heads, self.kv_heads, self.d_head, self.d_ff)


class Cent(Description):
    """CENT's system."""

    kind: Literal["cent"]
    device: Device
    link: Link
    host_ms: Positive
    time: Time
    power: Power
    models: dict[str, Llama]


class System(NamedTuple):
    """Devices, and how many of them share one block; 0 = each has whole blocks, as many as it must (pipeline)."""

    devices: int
    sharing: int = 0


class Token(NamedTuple):
    """One row of CENT's table."""

    channels_per_block: int
    pipeline: int
    block_ms: float  # in memory
    link_ms: float
    accelerator_ms: float
    embedding_ms: float
    latency_ms: float
    throughput_tokens_per_s: float
    energy_mJ: float
    power_W: float
    device_utilization: float


class _Run(NamedTuple):
    """What one device has done."""

    ms: float
    counts: dict[str, int]  # all channels
    instructions: int
    synchronisations: int
    active_ms: float  # mean of the channels
    idle_ms: float


def load_cent() -> Cent:
    """Return CENT's system as shipped."""
    return load(Cent, "cent", "cent")[0]


def token(system: Cent, model: str, tokens: int, on: System) -> Token:
    """Return CENT's figures for one token at a context.

    Raises InputError for an unknown model, and for devices that cannot be shared out so.
    """
    if model not in system.models:
        raise InputError(f"no model {model!r}{did_you_mean(model, list(system.models))}")
    shape, memory = system.models[model], system.device.dram
    if on.devices < 1 or (on.sharing and on.devices % on.sharing):
        raise InputError(f"{on.devices} devices cannot be shared out in groups of {on.sharing}")
    blocks_per_device = 1 if on.sharing else -(-shape.blocks // on.devices)
    each = memory.channels // blocks_per_device
    if each < 1:
        raise InputError(f"{on.devices} devices have too few channels for {shape.blocks} blocks")
    share = cent.Share(each, max(1, on.sharing))
    used = on.devices if on.sharing else -(-shape.blocks // blocks_per_device)
    block = _run(system.device, cent.block(system.device, shape.decoder, tokens, share))
    ends = _run(system.device, cent.embedding(system.device, shape.decoder, shape.vocab, share))
    link = _shared_link_ms(system, shape, on) if on.sharing else _vector_ms(system, shape.d_model, on.devices)
    accelerators = _accelerator_ms(system, shape, tokens) * blocks_per_device
    latency = (block.ms + link + accelerators) * shape.blocks + ends.ms + system.host_ms
    pipeline = on.devices // on.sharing if on.sharing else shape.blocks
    values = shape.d_model * 10 + shape.d_ff * 2 if on.sharing else shape.d_model
    energy = energy_mJ(system, shape, tokens, block, values)
    if on.sharing:
        others = _run(system.device, cent.matrices(system.device, shape.decoder, share))
        energy += energy_mJ(system, shape, tokens, others, values) * (on.sharing - 1)
    return Token(
        channels_per_block=each,
        pipeline=pipeline,
        block_ms=block.ms,
        link_ms=link,
        accelerator_ms=accelerators,
        embedding_ms=ends.ms,
        latency_ms=latency,
        throughput_tokens_per_s=1e3 / latency * pipeline,
        energy_mJ=energy * (shape.blocks if on.sharing else used),
        power_W=energy * (pipeline if on.sharing else used) / block.ms,
        device_utilization=used / on.devices,
    )


def _run(device: Device, stream: Stream) -> _Run:
    issued = channels(device).run(stream, 0, False)
    clock_ms = 1e3 / device.dram.clock_Hz
    counts = issued.counts.sum(axis=0).tolist()
    plain = [
        i
        for i, c in enumerate(device.dram.commands.values())
        if c.meaning in ("read", "write") and c.target == "bank"
    ]
    is_instruction = ~np.isin(stream.command, plain)
    active = float(issued.active.mean())
    return _Run(
        issued.cycles * clock_ms,
        dict(zip(device.dram.commands, counts, strict=True)),
        int(is_instruction.sum()),
        int(np.isin(stream.command, (SYNC, END)).sum()),
        active * clock_ms,
        (issued.cycles - active) * clock_ms,
    )


# --- time ----------------------------------------------------------------------------------------------------


def _flits_ms(system: Cent, flits: int, devices: int) -> float:
    link = system.link
    rate = link.lanes // devices * link.lane_GiBps * 2**30
    return (link.round_trip_ns + flits * link.flit_B / rate * 1e9) / 1e6


def _vector_ms(system: Cent, values: int, devices: int) -> float:
    """Time to send one vector to the next device, or to all."""
    return _flits_ms(system, -(-values * system.device.unit.element_B // system.link.payload_B), devices)


def _gather_ms(system: Cent, values: int, on: System) -> float:
    """Time to collect a vector of which each device of a block has a part."""
    part_B = values / on.sharing * system.device.unit.element_B
    flits = int(-(-part_B // system.link.payload_B)) * (on.sharing - 1)
    return _flits_ms(system, flits, on.devices)


def _shared_link_ms(system: Cent, shape: Llama, on: System) -> float:
    """Five vectors of the model's width out and in, one of the feed-forward's."""
    out = 5 * _vector_ms(system, shape.d_model, on.devices) + _vector_ms(system, shape.d_ff, on.devices)
    return out + 5 * _gather_ms(system, shape.d_model, on) + _gather_ms(system, shape.d_ff, on)


def _accelerator_ms(system: Cent, shape: Llama, tokens: int) -> float:
    """Time of norms, softmax and rotary positions of a block."""
    time, memory = system.time, system.device.dram
    add = memory.channels * time.add_per_channel + time.add
    exponential = memory.channels * time.exponential_per_channel + time.exponential
    norm = (
        shape.d_model / _LANES / memory.banks / memory.channels * add + time.norm_reduction + time.norm_core
    )
    softmax = (
        tokens * shape.heads / _LANES / memory.channels * (add + exponential)
        + shape.heads * time.softmax_head
    )
    rotary = shape.d_model * time.rotary * (1 + shape.kv_heads / shape.heads)
    return (2 * norm + softmax + rotary) / memory.clock_Hz * 1e3


# --- energy --------------------------------------------------------------------------------------------------


def energy_mJ(system: Cent, shape: Llama, tokens: int, run: _Run, values: int) -> float:
    """Return the energy of a device and its share of the link; values: that cross the link for one block."""
    device, power = system.device, system.power
    n, per = run.counts, device.energy
    commands = sum(n[name] * (pJ or 0) for name, pJ in per.command_pJ.items()) / 1e9
    standby = (per.active_W or 0) * run.active_ms + (per.idle_W or 0) * run.idle_ms  # one channel
    link = values * system.link.pJ_per_bit / 1e9
    rows = ("ACT", "ACT16", "PRE", "PREA", "TMOD", "REFab")
    accesses = sum(count for name, count in n.items() if name not in rows)
    issued = sum(n.values()) + run.synchronisations
    controllers = power.transaction_mW * accesses + power.interface_mW * issued
    controllers /= power.channels_per_controller * device.dram.clock_Hz
    return commands + standby + link + controllers + _logic_mJ(system, shape, tokens, run)


def _logic_mJ(system: Cent, shape: Llama, tokens: int, run: _Run) -> float:
    """Energy of buffers, accelerators and cores."""
    power, time, n = system.power, system.time, run.counts
    hz, copies = system.device.dram.clock_Hz, system.device.dram.channels
    banks = system.device.dram.banks
    exponentials, rotations = (
        tokens * shape.heads / _LANES,
        shape.d_model * (1 + shape.kv_heads / shape.heads),
    )
    norm = shape.d_model / _LANES / banks
    static = (
        run.ms
        / 1e3
        * (
            copies
            * (power.global_buffer_mW[0] + power.reduction_mW[1] + power.exponent_mW[1] + power.vector_mW[1])
            + power.shared_buffer_mW[0]
            + power.instruction_buffer_mW[0]
            + power.control_activity * sum(power.control_mW)
        )
    )
    _, buffer_read, buffer_write = power.global_buffer_mW
    _, read, write = power.shared_buffer_mW
    instructions = (
        run.instructions + 2 * (norm + 2) + exponentials * 2 + shape.heads * 2 + rotations
    ) * power.instruction_buffer_mW[1]
    shared = (
        2 * (norm + 2) * (2 * read + write)
        + (exponentials * 3 + shape.heads * 2) * read
        + (exponentials * 2 + shape.heads * 2) * write
        + rotations / _LANES * (read + 2 * write)
    )
    cores = power.core_mW * (2 * time.norm_core + shape.heads * time.softmax_core + rotations * time.rotary)
    accelerators = (
        (2 + shape.heads) * power.reduction_mW[0]
        + exponentials * power.exponent_mW[0]
        + (2 * norm + exponentials) * power.vector_mW[0]
    )
    buffers = n["WRCP"] * buffer_read + (n["WRGB"] + n["RDCP"]) * buffer_write
    return static + (instructions + shared + cores + accelerators + buffers) / hz

"""In-order channels against their naive twin, on random streams of devices of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.sim.bench import Issued
from pimloom.sim.in_order import InOrder
from pimloom.traces.stream import Stream, StreamBuilder
from tests.sim.naive_in_order import NaiveInOrder

SMALL = ["dram.channels=3", "controller.queue=4"]
QUEUES = [
    f"controller.reordering.{name}={value}"
    for name, value in (("read_queue", 3), ("write_queue", 4), ("drain_from", 3), ("drain_to", 1))
]

GENERIC = """
kind: device
version: 1
name: generic
description: no modes, two ranks, a command of a whole rank whose rows are opened bank group by bank group
lowering: aim
sources: {made_up: "for this test"}
dram:
  extends: gddr6_aim
  channels: {value: 2, source: made_up}
  ranks: {value: 2, source: made_up}
  channel_capacity_B: {value: 1073741824, source: made_up}
  refresh: {policy: none}
  commands:
    ACT_AB: {target: bankgroup, meaning: activate, bank: open, needs: closed, row: true, column: false, data: none, duration: "0"}
    PREA: {target: rank, meaning: precharge, bank: close, needs: any, row: false, column: false, data: none, duration: "0"}
    MAC_AB: {target: rank, meaning: mac, bank: none, needs: open, row: true, column: true, data: none, duration: "nMACRES"}
    REFab: {target: rank, meaning: refresh, bank: none, needs: closed, row: false, column: false, data: none, duration: nRFC}
  constraints:
    groups: {value: [rank, [ACT_AB], [ACT_AB], "20", 2], source: made_up}
unit:
  banks_per_unit: {value: 1, source: made_up}
  lanes: {value: 16, source: made_up}
  element_B: {value: 2, source: made_up}
  arithmetic: {value: bf16, source: made_up}
  buffer_accesses: {value: 64, source: made_up}
  buffer_scope: {value: channel, source: made_up}
  result_registers: {value: 1, source: made_up}
controller:
  order: {value: in_order, source: made_up}
  front_end: {value: requests, source: made_up}
  queue: {value: 5, source: made_up}
"""

REFRESHED = ["dram.refresh.policy=all_bank", "dram.timing.nREFI=900"]
GENERIC_REFRESHED = [*REFRESHED[:1], "dram.timing.nREFI=1200"]


@pytest.fixture(scope="module")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices") / "generic.yaml"
    path.write_text(GENERIC)
    return path


def stream_of(device: Device, instructions: list[tuple[int, ...]]) -> Stream:
    """A stream of few rows, so that hits and conflicts are frequent; the numbers are taken modulo what there is."""
    dram = device.dram
    builder = StreamBuilder(tuple(dram.commands))
    usable = [
        name
        for name, c in dram.commands.items()
        if c.meaning not in ("activate", "precharge", "refresh", "mode")
    ]
    kinds = [*usable, *usable, "BARRIER", "SYNC", "REGISTER", "END"]
    everyone = (1 << dram.channels) - 1
    for kind, mask, times, node, row in instructions:
        name = kinds[kind % len(kinds)]
        channels = mask % everyone + 1 if mask % 3 else everyone
        if name in ("BARRIER", "SYNC", "REGISTER", "END"):
            builder.add(name, channels)
            continue
        c = dram.commands[name]
        builder.add(
            name,
            channels,
            times % 12 + 1,
            node=node % dram.nodes(c.target),
            row=row % 2 if c.row else -1,
            column=0 if c.column else -1,
            operand=node % 5,
            d_operand=row % 2,
        )
    builder.add("END", everyone)
    return builder.build()


def check(device: Device, streams: list[Stream], gap: int, log: bool = True) -> list[Issued]:
    """Run streams one after the other, here and in the twin."""
    fast, slow, start = InOrder(device), NaiveInOrder(device), 0
    results = []
    for stream in streams:
        issued = fast.run(stream, start, log)
        assert issued.end == slow.run(stream, start)
        for k, channel in enumerate(slow.channels):
            if issued.logs is not None:
                assert [tuple(row) for row in issued.logs[k].tolist()] == channel.log
            counts = [channel.counts[name] for name in device.dram.commands]
            assert issued.counts[k].tolist() == counts
            assert issued.active[k] == channel.active_clocks
            if channel.log and channel.log[0][0] > start:
                assert issued.waited[k].sum() == channel.log[-1][0] - start
        start = issued.end + gap
        results.append(issued)
    return results


INSTRUCTIONS = st.lists(st.tuples(*[st.integers(0, 400)] * 5), max_size=14)
STREAMS = st.lists(INSTRUCTIONS, min_size=1, max_size=3)


@pytest.mark.parametrize(
    "overrides", [[], REFRESHED, ["controller.front_end=requests"]], ids=["none", "refresh", "requests"]
)
@settings(max_examples=40)
@given(streams=STREAMS, gap=st.sampled_from([0, 1, 7, 1500]), log=st.booleans())
def test_aim_equals_the_twin(
    overrides: list[str], streams: list[list[tuple[int, ...]]], gap: int, log: bool
) -> None:
    device, _ = load_device("gddr6-aim", [*SMALL, *QUEUES, *overrides])
    check(device, [stream_of(device, instructions) for instructions in streams], gap, log)


@pytest.mark.parametrize(
    "overrides",
    [[], GENERIC_REFRESHED, ["controller.front_end=instructions"]],
    ids=["none", "refresh", "instructions"],
)
@settings(max_examples=40)
@given(streams=STREAMS, gap=st.sampled_from([0, 1, 7, 1500]), log=st.booleans())
def test_two_ranks_equal_the_twin(
    generic: Path, overrides: list[str], streams: list[list[tuple[int, ...]]], gap: int, log: bool
) -> None:
    device, _ = load_device(str(generic), overrides)
    check(device, [stream_of(device, instructions) for instructions in streams], gap, log)


@settings(max_examples=40)
@given(
    accesses=st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 15), st.integers(0, 2)), max_size=40
    ),
    some=INSTRUCTIONS,
)
def test_plain_reads_and_writes_equal_the_twin(
    accesses: list[tuple[bool, int, int, int]], some: list[tuple[int, ...]]
) -> None:
    device, _ = load_device("gddr6-aim", [*SMALL, *QUEUES])
    builder = StreamBuilder(tuple(device.dram.commands))
    for is_write, channel, bank, row in accesses:
        builder.add("WR" if is_write else "RD", 1 << channel, node=bank, row=row)
    builder.add("END", 7)
    check(device, [builder.build() + stream_of(device, some)], 0)


def test_explicit_row_commands_issue_as_they_are() -> None:
    device, _ = load_device("gddr6-aim", SMALL)
    builder = StreamBuilder(tuple(device.dram.commands))
    builder.add("ACT16", 1, row=5)
    builder.add("MAC16", 1, 3, row=5, column=0)
    builder.add("PREA", 1)
    builder.add("MAC16", 1, column=0)
    builder.add("END", 1)
    (issued,) = check(device, [builder.build()], 0)
    names = [device.dram.command_names[row[1]] for row in issued.logs[0]] if issued.logs else []
    assert names == ["ACT16", *["MAC16"] * 3, "PREA", "MAC16"]


def test_a_run_needs_a_stream_of_its_device_that_ends_and_comes_later() -> None:
    device, _ = load_device("gddr6-aim", SMALL)
    builder = StreamBuilder(tuple(device.dram.commands))
    builder.add("MAC16", 1, row=0, column=0)
    channels = InOrder(device)
    with pytest.raises(ValueError, match="END"):
        channels.run(builder.build(), 0, False)
    builder.add("END", 1)
    with pytest.raises(ValueError, match="same device"):
        channels.run(StreamBuilder(("MAC16",)).build(), 0, False)
    end = channels.run(builder.build(), 3, False).end
    with pytest.raises(ValueError, match="ended"):
        channels.run(builder.build(), end - 1, False)
    builder.add("MAC16", 8, row=0, column=0)
    builder.add("END", 1)
    with pytest.raises(ValueError, match="beyond"):
        channels.run(builder.build(), end, False)


def test_a_row_that_nothing_opens_is_found_at_the_beginning(generic: Path) -> None:
    device, _ = load_device(
        str(generic), ["dram.commands.ACT.meaning=mode", "dram.commands.ACT_AB.meaning=mode"]
    )
    with pytest.raises(InputError, match="activate"):
        InOrder(device)


def test_channels_of_one_group_have_the_counts_of_each() -> None:
    device, _ = load_device("gddr6-aim", SMALL)
    builder = StreamBuilder(tuple(device.dram.commands))
    for channel in (0, 2, 2):
        builder.add("WR", 1 << channel, 2, node=channel, row=0)
    for _ in range(3):
        builder.add("MAC16", 7, 64, row=1, column=0)
        builder.add("RDMAC16", 7)
    builder.add("END", 7)
    issued = check(device, [builder.build()] * 3, 0, log=False)[0]
    writes = issued.counts[:, device.dram.command_names.index("WR")]
    assert np.array_equal(writes, [2, 0, 4])

"""The controller that looks ahead: the reference's own request streams, and its twin on random ones."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimloom.arch.device import Device, load_device
from pimloom.mapping.devices import lower
from pimloom.sim.window import Window
from pimloom.traces.foreign import read_attacc
from pimloom.traces.stream import END, Gemv, Site, Stream, StreamBuilder
from tests.sim.naive_window import Memory

DATA = Path(__file__).parents[1] / "data" / "pim" / "attacc"
MAC = {"bank": "MACAB", "bg": "MACSB", "buffer": "MACPB"}
MAC_NODES = {"bank": (0,), "bg": (0, 1, 2, 3), "buffer": (0, 1, 4, 16, 21)}
SMALL = (
    "dram.channels=3",
    *(f"dram.timing.{t}" for t in ("nRFC=90", "nREFI=1800", "nRC=24", "nRAS=14", "nRP=10", "nRCDRD=11")),
)
"""Short clocks of rows, so that a short refresh interval has room for all banks, as a description must."""


def load(level: str, *overrides: str) -> Device:
    return load_device(f"attacc-{level}", overrides)[0]


def empty(device: Device) -> Stream:
    return StreamBuilder(device.dram.command_names).build()


@pytest.mark.parametrize(
    ("requests", "commands", "cycles"),
    [
        ("requests_att_bank_L128_nh32.csv.gz", "commands_att_bank_L128_nh32_pc1_channel0.csv.gz", 505),
        ("requests_gemv_bank_1024x1024.csv.gz", "commands_gemv_bank_1024x1024_pc1_channel0.csv.gz", 687),
    ],
)
def test_request_streams_of_the_reference(requests: str, commands: str, cycles: int) -> None:
    device = load("bank")
    issued = Window(device).run(read_attacc(DATA / requests, device), 0, True)
    assert issued.cycles == cycles
    assert issued.logs is not None
    ours = [(clock + 1, device.dram.command_names[c], node) for clock, c, node, *_ in issued.logs[0].tolist()]
    with gzip.open(DATA / commands, "rt") as file:
        theirs = []
        for line in csv.DictReader(file):
            pc, rank, group, bank = (int(line[k]) for k in ("pseudo_channel", "rank", "bankgroup", "bank"))
            # PREA addresses the channel; its line has the bank of the request.
            node = 0 if line["cmd"] == "PREA" else ((pc * 2 + rank) * 4 + group) * 4 + bank
            theirs.append((int(line["cycle"]), line["cmd"], node))
    assert ours == theirs


# --- the twin ------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn, level: str, device: Device) -> Stream:
    """Short ones in which rows change, channels fall apart, and barriers come one after the other."""
    builder = StreamBuilder(device.dram.command_names)
    for _ in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from([MAC[level], MAC[level], "WRGB", "MVSB", "MVGB", "SFM", "BARRIER"]))
        mask = draw(st.sampled_from([7, 7, 7, 3, 4, 2, 5, 0]))
        times = draw(st.integers(1, 12))
        if kind == MAC[level]:
            node, row = draw(st.sampled_from(MAC_NODES[level])), draw(st.integers(0, 2))
            builder.add(kind, mask, times, node=node, row=row, column=0, operand=5, d_operand=2)
        elif kind == "BARRIER":
            builder.add(kind, mask, draw(st.integers(1, 3)))
        else:
            node = 0 if kind == "SFM" else draw(st.sampled_from([0, 1, 4, 16, 33]))
            builder.add(kind, mask, times, node=node, operand=0)
    return builder.build()


@pytest.mark.parametrize("level", MAC)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_twin(level: str, data: st.DataObject) -> None:
    queue = data.draw(st.sampled_from([1, 2, 5, 33]))
    device = load(level, *SMALL, f"controller.queue={queue}")
    window, memory, start = Window(device), Memory(device), 0
    for _ in range(2):
        start += data.draw(st.sampled_from([0, 1, 50, 1780]))
        stream = data.draw(streams(level, device))
        issued = window.run(stream, start, True)
        end, logs = memory.run(stream, start)
        named = [
            [(c, device.dram.command_names[i], *rest) for c, i, *rest in log.tolist()] for log in issued.logs
        ]
        assert named == logs
        assert (issued.begin, issued.end) == (start, end)
        for channel, log in enumerate(logs):
            names = [entry[1] for entry in log]
            assert issued.counts[channel].tolist() == [
                names.count(name) for name in device.dram.command_names
            ]
            inside = [entry[0] for entry in log if entry[0] >= start]
            assert issued.waited[channel].sum() == (inside[-1] - start if inside else 0)
        start = end


def test_runs_of_channels_are_exact() -> None:
    """Channels that were apart stay apart: the third channel's rows are open, the others' are not."""
    device = load("bank", *SMALL)
    window, memory = Window(device), Memory(device)
    apart, together = StreamBuilder(device.dram.command_names), StreamBuilder(device.dram.command_names)
    apart.add("MACAB", 0b100, row=1, column=0)
    together.add("MACAB", 0b111, 5, row=1, column=0)
    start = 0
    for stream in (apart.build(), together.build()):
        issued = window.run(stream, start, True)
        start, logs = memory.run(stream, start)
        assert [len(log) for log in issued.logs] == [len(log) for log in logs]
        assert issued.end == start
    assert issued.counts[:, device.dram.command_names.index("ACTAB")].tolist() == [1, 1, 0]


# --- clocks that are no commands ------------------------------------------------------------------------


def test_open_banks_count() -> None:
    device = load("bank", "dram.channels=3")
    builder = StreamBuilder(device.dram.command_names)
    builder.add("MACAB", 0b001, row=0, column=0)
    builder.add("MACAB", 0b001, row=1, column=0)
    issued = Window(device).run(builder.build(), 0, False)
    t = device.dram.timing
    # Closed from the precharge on for nRP.
    assert issued.cycles == t["nRAS"] + t["nRP"] + t["nRCDRD"] + 1
    assert issued.active.tolist() == [issued.cycles - t["nRP"], 0, 0]


def test_idle_time_is_refreshed() -> None:
    device = load("bank", *SMALL)
    window = Window(device)
    issued = window.run(empty(device), 3601, True)
    assert (issued.begin, issued.end) == (3601, 3601)
    assert issued.counts.sum(axis=1).tolist() == [4, 4, 4]
    assert issued.logs is not None
    assert issued.logs[2][:, [0, 2]].tolist() == [[1799, 0], [1800, 1], [3599, 0], [3600, 1]]
    assert issued.waited.sum() == 0


def test_without_refresh() -> None:
    device = load("bank", *SMALL, "dram.refresh.policy=none")
    issued = Window(device).run(empty(device), 10**6, False)
    assert issued.counts.sum() == 0


def test_what_it_does_not_have() -> None:
    device = load("bank", *SMALL)
    window = Window(device)
    builder = StreamBuilder(device.dram.command_names)
    builder.add("WRGB", 0b1000)
    with pytest.raises(ValueError, match="channels that this controller does not have"):
        window.run(builder.build(), 0, False)
    builder = StreamBuilder(device.dram.command_names)
    builder._rows.append((1, END, 1, 0, -1, -1, 0, -1, 0))
    with pytest.raises(ValueError, match="instructions or channels"):
        window.run(builder.build(), 0, False)
    window.run(empty(device), 100, False)
    with pytest.raises(ValueError, match="before ends at 100"):
        window.run(empty(device), 99, False)


@pytest.mark.bench
def test_speed() -> None:
    """Mapping and running a product of 4096 x 4096 takes at most 17 ms, the bar of issue 5."""
    device = load("bank")
    times = []
    for _ in range(5):
        before = perf_counter()
        Window(device).run(lower(device, Gemv(4096, 4096), Site(16)).stream, 0, False)
        times.append(perf_counter() - before)
    assert min(times) < 0.017, f"{min(times) * 1e3:.1f} ms"

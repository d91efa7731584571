"""Request files of AttAcc's simulator: read, written, and what is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.device import load_device
from pimloom.arch.tree import InputError
from pimloom.traces.foreign import read_attacc, write_attacc
from pimloom.traces.stream import END, FIELDS, Stream, StreamBuilder

DATA = Path(__file__).parents[1] / "data" / "pim" / "attacc"
DEVICE = load_device("attacc-bank")[0]
HEADER = "index,request,channel,pseudo_channel,rank,bankgroup,bank,row\n"


def same(a: Stream, b: Stream) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("channels", *FIELDS))


@pytest.mark.parametrize(
    "name", ["requests_att_bank_L128_nh32.csv.gz", "requests_gemv_bank_1024x1024.csv.gz"]
)
def test_table_round_trip(tmp_path: Path, name: str) -> None:
    stream = read_attacc(DATA / name, DEVICE)
    assert set(stream.channels.tolist()) == {0xFFFF}
    copy = tmp_path / "again.csv"
    write_attacc(copy, stream, DEVICE)
    assert same(read_attacc(copy, DEVICE), stream)
    with gzip.open(DATA / name, "rt") as file:
        # The table keeps rows of requests that have none; a stream does not.
        ours, theirs = copy.read_text().splitlines(), file.read().splitlines()
    assert len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.split(",")[:-1] == reference.split(",")[:-1]
        if "MAC" in mine:
            assert mine == reference


def test_trace_of_the_simulator(tmp_path: Path) -> None:
    path = tmp_path / "bank.trace"
    # From the top: channel 4 bits, pseudo-channel 1, rank 1, bank group 2, bank 2, row 14, column 5, offset 5.
    path.write_text(
        "PIM_WR_GB 0x00000021\nPIM_MAC_AB 0x40000440\nPIM_MV_SB 0x3E0000000\nPIM_BARRIER 0x3c0000000\n"
    )
    stream = read_attacc(path, DEVICE)
    assert [stream.commands[c] if c >= 0 else "BARRIER" for c in stream.command] == [
        "WRGB", "MACAB", "MVSB", "BARRIER"
    ]  # fmt: skip
    assert stream.channels.tolist() == [1, 2, 1 << 15, 1 << 15]
    assert stream.node.tolist() == [0, 0, 32, 0]
    assert stream.row.tolist() == [-1, 1, -1, -1]
    assert stream.column.tolist() == [-1, 2, -1, -1]
    copy = tmp_path / "copy.trace.gz"
    write_attacc(copy, stream, DEVICE)
    assert same(read_attacc(copy, DEVICE), stream)
    assert gzip.decompress(copy.read_bytes()).decode().splitlines()[1] == "PIM_MAC_AB 0x40000440"


def test_order_of_channels_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + "".join(f"{i},WRGB,{c},0,0,0,0,0\n" for i, c in enumerate((0, 2, 1, 1, 3))))
    assert read_attacc(path, DEVICE).channels.tolist() == [0b101, 0b10, 0b1010]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x:1:1: no requests"),
        ("hello\n", "x:1:1: 'hello', but a request is such as"),
        (
            "PIM_MAC_AB 0x0\nPIM_MAC_AC 0x0\n",
            r"x:2:1: no request 'PIM_MAC_AC' \(did you mean 'PIM_MAC_AB'\?\)",
        ),
        ("PIM_MAC_SB 0x0\n", "x:1:1: this device has no 'MACSB'"),
        ("PIM_MAC_AB  0x4g\n", "x:1:13: '0x4g' is no number"),
        ("PIM_MAC_AB 0x400000000\n", "x:1:12: address 0x400000000 is behind the last channel"),
        (HEADER + "0,MACAB,0,0,0,0,0\n", "x:2:1: 7 fields, but a request has 8"),
        (HEADER + "0,MACBA,0,0,0,0,0,0\n", r"x:2:3: this device has no 'MACBA' \(did you mean 'MACAB'\?\)"),
        (HEADER + "0,MACAB,16,0,0,0,0,0\n", "x:2:9: channel: 16, but there are 16"),
        (HEADER + "0,MACAB,15,0,0,0,4,0\n", "x:2:18: bank: 4, but there are 4"),
        (HEADER + "0,MACAB,15,0,0,0,-1,0\n", "x:2:18: '-1' is no number"),
    ],
)
def test_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_attacc(path, DEVICE)


def test_what_the_simulator_lacks(tmp_path: Path) -> None:
    builder = StreamBuilder(DEVICE.dram.command_names)
    builder.add("ACTAB", 1, row=0)
    with pytest.raises(InputError, match="no request for ACTAB"):
        write_attacc(tmp_path / "x.csv", builder.build(), DEVICE)
    builder = StreamBuilder(DEVICE.dram.command_names)
    builder.add("END", 1)
    assert builder.build().command.tolist() == [END]
    with pytest.raises(InputError, match="no request for END"):
        write_attacc(tmp_path / "x.csv", builder.build(), DEVICE)
    assert not (tmp_path / "x.csv").exists()

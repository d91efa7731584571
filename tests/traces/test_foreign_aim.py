"""Instruction files of the AiM simulator: read, written, and refused with the place of what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.mapping import cent
from pimloom.mapping.devices import aim
from pimloom.sim.bench import channels
from pimloom.traces.foreign import read_aim, write_aim
from pimloom.traces.stream import FIELDS, Elementwise, Gemv, Site, Stream

DATA = Path(__file__).parents[1] / "data/pim/aim"

EVERY = """# one of each
W MEM 3 5 7

W GPR 0
R GPR 0
W CFR 0 1
AiM WR_SBK 0 0x80000001 5 7
AiM WR_GB 2 0 0xffffffff
AiM ISR_WR_BIAS 0 0xc0000000
AiM MAC_ABK 4 0xc0000000 9
AiM AF 0xc0000000
AiM RD_AF 0 0xc0000000
AiM RD_MAC 0 0xc0000000
AiM COPY_BKGB 3 4294967295 2 1
AiM COPY_GBBK 3 0xFFFFFFFF 1 1
AiM EWMUL 2 0xffffffff 1
AiM EWADD 2 0 0
AiM WR_ABK 0 0x1 4
AiM SYNC
AiM RD_SBK 0 0x80000000 0 0
R MEM 31 15 16383
AiM EOC
"""


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("gddr6-aim")[0]


def same(a: Stream, b: Stream) -> bool:
    return a.commands == b.commands and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("channels", *FIELDS)
    )


def test_every_instruction_is_read(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "every.trace"
    path.write_text(EVERY)
    stream = read_aim(path, device)
    names = [stream.commands[i] if i >= 0 else "" for i in stream.command]
    assert names == [
        "WR", "", "", "", "WR", "WRGB", "WRMAC16", "MAC16", "AF16", "RDAF16", "RDMAC16", "RDCP", "WRCP", "EWMUL16",
        "", "WRA16", "", "RD", "RD", "",
    ]  # fmt: skip
    assert [int(m) for m in stream.channels[[0, 4, 6, 15, 18]]] == [1 << 3, 1 | 1 << 31, 3, 1 << 31, 1 << 31]
    assert stream.times[[5, 7, 11]].tolist() == [2, 4, 3]
    assert stream.row[[0, 7, 8]].tolist() == [7, 9, 1 << 29]
    assert channels(device).run(stream, 0, False).cycles > 0


@pytest.mark.parametrize("name", ["out.trace", "out.trace.gz", "out.csv", "out.csv.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, device: Device, name: str) -> None:
    kernels = [
        aim.gemv(device, Gemv(100, 1500), Site(3), activated=True).stream,
        aim.mul(device, Elementwise("mul", 1000), Site(2), moved=True).stream,
        cent.block(device, cent.Decoder(256, 2, 1, 128, 512), 5, cent.Share(16)),
    ]
    for kernel in kernels:
        write_aim(tmp_path / name, kernel, device)
        once = read_aim(tmp_path / name, device)
        write_aim(tmp_path / f"again-{name}", once, device)
        assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()
        assert same(read_aim(tmp_path / f"again-{name}", device), once)
        ours, theirs = channels(device).run(kernel, 0, False), channels(device).run(once, 0, False)
        assert ours.end == theirs.end
        assert np.array_equal(ours.counts, theirs.counts)


def test_both_forms_hold_the_same(tmp_path: Path, device: Device) -> None:
    table = read_aim(DATA / "isr_att_av_7B_c8_L512.csv.gz", device)
    write_aim(tmp_path / "a.trace", table, device)
    assert (tmp_path / "a.trace").read_text().splitlines()[:3] == [
        "AiM WR_GB 32 0 0xffffffff", "AiM WR_BIAS 0 0xffffffff", "AiM MAC_ABK 32 0xffffffff 521"
    ]  # fmt: skip
    assert same(read_aim(tmp_path / "a.trace", device), table)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("AiM MAC_AKB 64 0xffffffff 0", "1:5", "did you mean 'MAC_ABK'"),
        ("AiM EOC\nAiM SYNC", "2:1", "behind EOC"),
        ("AiM MAC_ABK 64 0xffffffff", "1:5", "opsize mask row"),
        ("AiM MAC_ABK 64 0x1ffffffff 0", "1:16", "there are 4294967296"),
        ("AiM MAC_ABK 64 0x0 0", "1:16", "at least one"),
        ("AiM MAC_ABK 0 0x1 0", "1:13", "at least one"),
        ("AiM MAC_ABK 64 0x1 16384", "1:20", "there are 16384"),
        ("AiM WR_ABK 0 0x3 4", "1:14", "one channel"),
        ("W MEM 32 0 0", "1:7", "there are 32"),
        ("W MEM 1 16 0", "1:9", "there are 16"),
        ("W MEM 1 x 0", "1:9", "no number"),
        ("X MEM 1 1 0", "1:1", "such as"),
        ("W NEM 1 1 0", "1:1", "did you mean 'W MEM'"),
        ("index,instruction,opsize,channel_or_mask,bank,row\n0,MAC_ABK,,0x1,,0", "2:11", "needs opsize"),
        ("index,instruction,opsize,channel_or_mask,bank,row\n0,RD_MAC,,0x1,,5", "2:16", "has no row"),
        (
            "index,instruction,opsize,channel_or_mask,bank,row\n0,RD_MAX,,0x1,,",
            "2:3",
            "did you mean 'RD_MAC'",
        ),
        ("index,instruction,opsize,channel_or_mask,bank,row\n0,RD_MAC", "2:1", "2 fields"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, device: Device, text: str, place: str, message: str
) -> None:
    path = tmp_path / "wrong.trace"
    path.write_text(f"{text}\n")
    with pytest.raises(InputError) as error:
        read_aim(path, device)
    assert f"{path}:{place}: " in str(error.value)
    assert message in str(error.value)


def test_a_stream_of_other_commands_is_not_written(tmp_path: Path, device: Device) -> None:
    stream = aim.join([aim.instructions(device, "ACT16", aim.mask(1), row=0), aim.end(device)])
    with pytest.raises(InputError, match="ACT16"):
        write_aim(tmp_path / "a.trace", stream, device)
    assert not (tmp_path / "a.trace").exists()

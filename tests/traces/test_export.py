"""Traces in other tools' forms, written out by hand from what those tools read and write."""

from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.dram import Command, Dram, load_dram
from pimloom.arch.tree import InputError
from pimloom.traces.export import Writer, export
from pimloom.traces.io import FIELDS, CommandTrace

PIM = load_dram("gddr6_pim_gpt")[0]


def command(meaning: str, target: str = "bank", bank: str = "none") -> Command:
    fields = {"meaning": meaning, "target": target, "bank": bank}
    return Command(**PIM.commands["ACT"].model_dump() | fields)


COMMANDS = {
    "ACT": command("activate", bank="open"),
    "ACT1": command("activate_first", bank="begin"),
    "ACT2": command("activate_second", bank="open"),
    "PREpb": command("precharge", bank="close"),
    "PREab": command("precharge", "rank", bank="close"),
    "CAS_RD": command("sync_read"),
    "RD": command("read"),
    "RDA": command("read", bank="close"),
    "WR": command("write"),
    "WRA": command("write", bank="close"),
    "REFab": command("refresh", "rank"),
    "REFpb": command("refresh"),
    "REFbg": command("refresh", "bankgroup"),
    "MAC_AB": command("mac", "rank"),
}


def memory(standard: str, **more: int) -> Dram:
    """A memory of 4 x 4 banks, of which one access takes 16 beats."""
    return PIM.model_copy(update={"name": "mine", "standard": standard, "commands": COMMANDS} | more)


def trace(rows: list[str]) -> CommandTrace:
    words = [row.split(",") for row in rows]
    numbers = {field: [int(row[i]) for row in words] for i, field in enumerate(FIELDS) if field != "command"}
    numbers["command"] = [[*COMMANDS].index(row[1]) for row in words]
    types = dict.fromkeys(FIELDS, np.int32) | {"cycle": np.int64}
    return CommandTrace(tuple(COMMANDS), *(np.array(numbers[f], types[f]) for f in FIELDS))


ROWS = [
    "1,ACT,0,0,1,2,3,77,-1",
    "5,RD,0,0,1,2,3,77,2",
    "6,WR,0,0,1,2,3,77,3",
    "8,RDA,0,0,1,2,3,77,4",
    "9,WRA,0,0,0,0,1,77,5",
    "20,PREpb,0,0,1,2,3,-1,-1",
    "25,PREab,0,0,0,-1,-1,-1,-1",
    "30,REFab,0,0,1,-1,-1,-1,-1",
]
SPLIT = [
    "1,ACT1,0,0,0,1,0,7,-1",
    "3,ACT2,0,0,0,1,0,7,-1",
    "18,CAS_RD,0,0,0,1,0,-1,-1",
    "90,REFpb,0,0,0,1,1,-1,-1",
]
POWER = """1,ACT,1,2,11,77,0,
5,RD,1,2,11,77,32,
6,WR,1,2,11,77,48,
8,RDA,1,2,11,77,64,
9,WRA,0,0,1,77,80,
20,PRE,1,2,11,0,0,
25,PREA,0,0,0,0,0,
30,REFA,1,0,0,0,0,
"""


def refusal(path: Path, rows: list[str], dram: Dram, form: str) -> str:
    with pytest.raises(InputError) as caught:
        export(path, trace(rows), dram, form)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["DDR4", "DDR5", "LPDDR4", "LPDDR5"])
def test_drampower(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t"
    export(path, trace(ROWS), memory(name, ranks=2), "drampower")
    assert path.read_text() == f"{POWER}30,END,0,0,0,0,0,\n"
    export(path, trace(ROWS), memory(name, ranks=2), "drampower", cycles=1000)
    assert path.read_text() == f"{POWER}1000,END,0,0,0,0,0,\n"


def test_drampower_counts_a_split_activate_once(tmp_path: Path) -> None:
    path = tmp_path / "t"
    export(path, trace(SPLIT), memory("LPDDR5"), "drampower")
    assert path.read_text() == "3,ACT,0,1,4,7,0,\n90,REFB,0,1,5,0,0,\n90,END,0,0,0,0,0,\n"


def test_drampower_refusals(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for name in ("GDDR6", "HBM2", ""):
        assert refusal(path, ROWS, memory(name), "drampower") == (
            f"mine: DRAMPower 6 knows DDR4, DDR5, LPDDR4, LPDDR5, but this memory's `standard` is {name!r}"
        )
        assert not path.exists()
    unknown = {"MAC_AB": "LPDDR5", "REFbg": "LPDDR5", "REFpb": "DDR4"}
    for row, (name, standard) in enumerate(unknown.items()):
        message = refusal(path, [f"{row},{name},0,0,0,0,0,-1,-1"], memory(standard), "drampower")
        assert message == f"mine: DRAMPower 6 has no command of {standard} like {name}"
    assert refusal(path, ["1,PREab,0,0,-1,-1,-1,-1,-1"], memory("DDR4", ranks=2), "drampower") == (
        "mine: a command of DRAMPower 6 cannot address several ranks"
    )


@pytest.mark.parametrize(
    ("name", "more", "levels", "read", "refresh"),
    [
        ("DDR4", {}, "Channel,Rank,BankGroup,Bank", "0,1,2,3", "0,1,-1,-1"),
        ("LPDDR5", {"ranks": 2}, "Channel,Rank,BankGroup,Bank", "0,1,2,3", "0,1,-1,-1"),
        ("GDDR6", {}, "Channel,BankGroup,Bank", "0,2,3", "0,-1,-1"),
        ("HBM2", {"pseudochannels": 2}, "Channel,PseudoChannel,BankGroup,Bank", "0,0,2,3", "0,0,-1,-1"),
        (
            "HBM3", {"pseudochannels": 2, "stack_ids": 2},
            "Channel,PseudoChannel,Sid,BankGroup,Bank", "0,0,1,2,3", "0,0,1,-1,-1",
        ),
    ],
)  # fmt: skip
def test_ramulator2(
    tmp_path: Path, name: str, more: dict[str, int], levels: str, read: str, refresh: str
) -> None:
    path = tmp_path / "t"
    export(path, trace([ROWS[0], ROWS[1], ROWS[4], ROWS[7]]), memory(name, **more), "ramulator2", cycles=99)
    lines = path.read_text().splitlines()
    assert lines[0] == f"clock,command,{levels},Row,Column,type,source"
    assert lines[1] == f"1,ACT,{read},77,-1,-1,-1"
    assert lines[2] == f"5,RD,{read},77,2,0,-1"
    assert lines[3].startswith("9,WRA,") and lines[3].endswith(",77,5,1,-1")
    assert lines[4] == f"30,REFab,{refresh},-1,-1,-1,-1"


@pytest.mark.parametrize("form", ["drampower", "ramulator2"])
def test_pieces_make_the_same_file(tmp_path: Path, form: str) -> None:
    whole, pieces, dram = tmp_path / "whole", tmp_path / "pieces", memory("DDR4", ranks=2)
    export(whole, trace(ROWS), dram, form)
    with Writer(pieces, dram, form) as writer:
        for start, end in ((0, 3), (3, 3), (3, 8)):
            writer.write(trace(ROWS[start:end]))
    assert pieces.read_bytes() == whole.read_bytes()


def test_refusals(tmp_path: Path) -> None:
    dram = memory("DDR4")
    assert refusal(tmp_path / "t", ROWS, dram, "dampower") == (
        "unknown form 'dampower' (did you mean 'drampower'?)"
    )
    assert (
        refusal(tmp_path / "t", ROWS, dram, "x") == "unknown form 'x', but should be drampower or ramulator2"
    )
    assert refusal(tmp_path, ROWS, dram, "ramulator2") == "cannot be written: Is a directory"
    assert refusal(tmp_path / "t", [*ROWS, "31,ACT,1,0,0,0,0,1,-1"], dram, "drampower") == (
        "the trace has several channels, but a file of this form holds one"
    )


def test_what_cannot_be_exported_leaves_what_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("before")
    refusal(
        path, ["1,ACT,0,0,1,2,3,77,-1", "2,MAC_AB,0,0,0,-1,-1,-1,-1"], memory("DDR4", ranks=2), "drampower"
    )
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]

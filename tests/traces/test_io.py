"""Trace files: what is written is read again, and whatever is wrong with a file is named with its place."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pimloom.arch.dram import load_dram
from pimloom.arch.tree import InputError
from pimloom.traces import io
from pimloom.traces.io import FIELDS, HEADER, CommandTrace, from_log, merge, read, write

DRAM = load_dram("gddr6_pim_gpt")[0]
IDS = {name: i for i, name in enumerate(DRAM.commands)}
LOG = np.array(
    [
        [0, IDS["ACT"], 6, 100, -1, -1],
        [12, IDS["RD"], 6, 100, 63, -1],
        [13, IDS["WR_GB"], -1, -1, -1, 5],
        [27, IDS["PRE"], 6, -1, -1, -1],
        [50, IDS["ACT_AB"], -1, 7, -1, -1],
        [62, IDS["MAC_AB"], -1, 7, 9, 5],
        [64, IDS["RD_MAC"], -1, -1, -1, -1],
        [80, IDS["PREA"], -1, -1, -1, -1],
        [2**40, IDS["REFab"], -1, -1, -1, -1],
    ]
)
TEXT = f"""{HEADER}
0,ACT,3,0,0,1,2,100,-1
12,RD,3,0,0,1,2,100,63
13,WR_GB,3,0,0,-1,-1,-1,5
27,PRE,3,0,0,1,2,-1,-1
50,ACT_AB,3,0,0,-1,-1,7,-1
62,MAC_AB,3,0,0,-1,-1,7,9
64,RD_MAC,3,0,0,-1,-1,-1,-1
80,PREA,3,0,0,-1,-1,-1,-1
1099511627776,REFab,3,0,0,-1,-1,-1,-1
"""
EXTENSIONS = ["csv", "csv.gz", "parquet"]


def lines(trace: CommandTrace) -> list[tuple[object, ...]]:
    columns = [getattr(trace, field).tolist() for field in FIELDS]
    columns[1] = [trace.commands[i] for i in columns[1]]
    return list(zip(*columns, strict=True))


def error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path, DRAM)
    text = str(caught.value)
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).removeprefix(":").strip()


def csv_error(folder: Path, old: str, new: str) -> str:
    """The error of reading TEXT with a part of it replaced; a zipped file says the same."""
    assert old in TEXT
    data = TEXT.replace(old, new, 1).encode("utf-8", "surrogateescape")
    plain, zipped = folder / "t.csv", folder / "t.csv.gz"
    plain.write_bytes(data)
    zipped.write_bytes(gzip.compress(data))
    text = error(plain)
    assert error(zipped) == text
    return text


def test_a_log_as_csv(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", from_log(DRAM, 3, LOG))
    assert (tmp_path / "t.csv").read_text() == TEXT


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_written_and_read(tmp_path: Path, extension: str) -> None:
    trace = from_log(DRAM, 3, LOG)
    paths = [tmp_path / f"{name}.{extension}" for name in "ab"]
    for path in paths:
        write(path, trace)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = read(paths[0], DRAM)
    assert lines(again) == lines(trace)
    assert (again.cycle.dtype, again.row.dtype, len(again)) == (np.int64, np.int32, 9)
    write(paths[1], again)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_no_commands_at_all(tmp_path: Path, extension: str) -> None:
    write(tmp_path / f"t.{extension}", from_log(DRAM, 0, LOG[:0]))
    again = read(tmp_path / f"t.{extension}", DRAM)
    assert (len(again), again.commands) == (0, tuple(DRAM.commands))


def test_channels_are_merged_by_cycle() -> None:
    merged = merge([from_log(DRAM, 5, LOG[:4]), from_log(DRAM, 2, LOG[1:3])])
    assert merged.cycle.tolist() == [0, 12, 12, 13, 13, 27]
    assert merged.channel.tolist() == [5, 2, 5, 2, 5, 5]
    assert lines(merged.take(merged.channel == 5)) == lines(from_log(DRAM, 5, LOG[:4]))


def test_both_parsers_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    for text in (TEXT, TEXT.replace("\n", "\r\n"), TEXT.removesuffix("\n")):
        path.write_bytes(text.encode())
        assert io._parse_quickly(path.read_bytes()) is not None
        quick = read(path, DRAM)
        with monkeypatch.context() as patch:
            patch.setattr(io, "_parse_quickly", lambda data: None)
            assert lines(read(path, DRAM)) == lines(quick) == lines(from_log(DRAM, 3, LOG))
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert lines(read(path, DRAM)) == lines(quick)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("13,WR_GB", "13,WR_BG", "4:4: command: unknown command 'WR_BG' (did you mean 'WR_GB'?)"),
        ("13,WR_GB", "13,NOP", "4:4: command: unknown command 'NOP'"),
        ("13,WR_GB", "13,", "4:4: command: unknown command ''"),
        ("7,9\n", "7,nine\n", "7:25: column: 'nine' is no whole number"),
        ("7,9\n", "7,\n", "7:25: column: '' is no whole number"),
        ("7,9\n", "7,9.0\n", "7:25: column: '9.0' is no whole number"),
        ("7,9\n", "7,0x9\n", "7:25: column: '0x9' is no whole number"),
        ("7,9\n", "7, 9\n", "7:25: column: ' 9' is no whole number"),
        ("7,9\n", '7,"9"\n', "7:25: column: '\"9\"' is no whole number"),
        ("7,9\n", "7,٩\n", "7:25: column: '٩' is no whole number"),
        ("7,9\n", "7,9,9\n", f"7:27: 10 fields, but a trace has 9: {HEADER}"),
        ("7,9\n", "7\n", f"7:24: 8 fields, but a trace has 9: {HEADER}"),
        ("\n62,", "\n\n62,", "7:1: cycle: '' is no whole number"),
        ("7,9\n", "7,64\n", "7:25: column: 64 is out of range (-1 to 63)"),
        ("7,9\n", "7,-2\n", "7:25: column: -2 is out of range (-1 to 63)"),
        ("-1,7,9\n", "-1,16384,9\n", "7:23: row: 16384 is out of range (-1 to 16383)"),
        ("-1,7,9\n", "-1,99999999999,9\n", "7:23: row: 99999999999 is out of range (-1 to 16383)"),
        ("-1,7,9\n", f"-1,{10**25},9\n", f"7:23: row: '{10**25}' is out of range"),
        ("0,0,1,2,100,-1", "0,0,4,2,100,-1", "2:13: bankgroup: 4 is out of range (-1 to 3)"),
        ("0,0,1,2,100,-1", "0,0,1,4,100,-1", "2:15: bank: 4 is out of range (-1 to 3)"),
        ("3,0,0,1,2,100,-1", "3,1,0,1,2,100,-1", "2:9: pseudochannel: 1 is out of range (-1 to 0)"),
        ("3,0,0,1,2,100,-1", "3,0,1,1,2,100,-1", "2:11: rank: 1 is out of range (-1 to 0)"),
        ("0,ACT,3", "0,ACT,8", "2:7: channel: 8 is out of range (0 to 7)"),
        ("0,ACT,3", "0,ACT,-1", "2:7: channel: -1 is out of range (0 to 7)"),
        ("\n0,ACT", "\n-1,ACT", "2:1: cycle: -1 is out of range (0 to 999999999999999999)"),
        ("80,PREA", "63,PREA", "9:1: cycle: 63 comes after 64 on channel 3, but cycles never decrease"),
        ("cycle,command", "cycles,command", f"1:1: 'cycles', but the header should be {HEADER}"),
        ("row,column", "column,row", f"1:57: 'column', but the header should be {HEADER}"),
        ("row,column", "row", f"1:60: 8 fields, but a trace has 9: {HEADER}"),
        (f"{HEADER}\n", "", f"1:1: '0', but the header should be {HEADER}"),
        (",WR_GB", ",WR\udcff", "4:6: not UTF-8 text"),
    ],
)  # fmt: skip
def test_bad_csv(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert csv_error(tmp_path, old, new) == message


def test_the_first_bad_record_is_named(tmp_path: Path) -> None:
    text = TEXT.replace("7,9\n", "7,64\n").replace("ACT,", "act,").replace("80,PREA", "63,PREA")
    (tmp_path / "t.csv").write_text(text)
    assert error(tmp_path / "t.csv").startswith("2:3: command: unknown command 'act'")


def test_order_counts_within_a_channel_only(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{HEADER}\n9,PREA,0,0,0,-1,-1,-1,-1\n5,PREA,1,0,0,-1,-1,-1,-1\n")
    assert len(read(path, DRAM)) == 2
    with path.open("a") as file:
        file.write("7,PREA,1,0,0,-1,-1,-1,-1\n8,PREA,0,0,0,-1,-1,-1,-1\n")
    assert error(path) == "5:1: cycle: 8 comes after 9 on channel 0, but cycles never decrease"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_bad_files(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"t.{extension}"
    assert error(path) == "cannot be read: No such file or directory"
    path.write_bytes(b"")
    assert error(path).startswith("1:1: the file is empty")
    if extension == "csv":
        return
    write(path, from_log(DRAM, 3, LOG))
    data = path.read_bytes()
    for damaged in (data[:-9], data[:20], b"hello"):
        path.write_bytes(damaged)
        assert error(path).startswith("damaged, or no")


def test_an_empty_text_in_a_gzip(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b""))
    assert error(tmp_path / "t.csv.gz").startswith("1:1: the file is empty; a trace begins with the header")


def parquet_error(path: Path, **changes: pa.Array) -> str:
    write(path, from_log(DRAM, 3, LOG))
    table = parquet.read_table(path)
    for name, array in changes.items():
        table = table.set_column(FIELDS.index(name), name, array)
    parquet.write_table(table, path)
    return error(path)


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    n = len(LOG)
    rows = pa.array([100] * n)
    assert parquet_error(path, row=rows.cast("float64")) == "1:8: row: double, but should be whole numbers"
    assert parquet_error(path, command=rows) == "1:2: command: int64, but should be text"
    names = pa.array(["ACT"] * 4 + ["PREAB"] + ["ACT"] * 4)
    assert parquet_error(path, command=names).startswith("6:2: command: unknown command 'PREAB' (did")
    assert parquet_error(path, row=pa.array([1, 2, None] + [4] * 6)) == "4:8: row: missing"
    assert parquet_error(path, row=pa.array([2**63] * n, "uint64")).startswith(
        "2:8: row: 9223372036854775808"
    )
    assert parquet_error(path, channel=pa.array([3, 9] + [3] * 7)).startswith(
        "3:3: channel: 9 is out of range"
    )
    write(path, from_log(DRAM, 3, LOG))
    table = parquet.read_table(path)
    parquet.write_table(table.drop_columns(["rank"]), path)
    assert error(path).startswith("1:1: the columns are cycle,command,channel,pseudochannel,bankgroup")


def test_parquet_of_plain_strings_and_other_widths(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    trace = from_log(DRAM, 3, LOG)
    write(path, trace)
    table = parquet.read_table(path)
    for type_ in (pa.string(), pa.large_string()):
        other = table.set_column(1, "command", table.column(1).cast(type_))
        other = other.set_column(7, "row", table.column(7).cast(pa.int64()))
        parquet.write_table(other, path, row_group_size=2)
        assert lines(read(path, DRAM)) == lines(trace)


def test_other_extensions(tmp_path: Path) -> None:
    for act in (lambda p: read(p, DRAM), lambda p: write(p, from_log(DRAM, 3, LOG))):
        with pytest.raises(InputError, match=r"ends in \.csv, \.csv\.gz, \.parquet"):
            act(tmp_path / "t.txt")
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write(tmp_path / "nowhere" / "t.csv", from_log(DRAM, 3, LOG))


# --- more levels than a bank group ---------------------------------------------------------------------


def test_columns_of_the_whole_tree(tmp_path: Path) -> None:
    update = {"pseudochannels": 2, "stack_ids": 2, "bankgroups": 2, "banks_per_bankgroup": 2}
    commands = DRAM.commands | {
        "REFab": DRAM.commands["REFab"].model_copy(update={"target": "pseudochannel"})
    }
    dram = DRAM.model_copy(update={**update, "commands": commands})
    log = np.array(
        [
            [0, IDS["ACT"], 15, 9, -1],
            [1, IDS["ACT"], 4, 9, -1],
            [9, IDS["PREA"], 0, -1, -1],
            [9, IDS["REFab"], 1, -1, -1],
        ]
    )
    path = tmp_path / "t.csv"
    write(path, from_log(dram, 0, log))
    body = [
        "0,ACT,0,1,1,1,1,9,-1",
        "1,ACT,0,0,1,0,0,9,-1",
        "9,PREA,0,-1,-1,-1,-1,-1,-1",
        "9,REFab,0,1,-1,-1,-1,-1,-1",
    ]
    assert path.read_text().splitlines() == [HEADER, *body]
    assert lines(read(path, dram)) == lines(from_log(dram, 0, log))
    # A rank among several is named by its first stack ID, and where there is just one of both, it is 0.
    for ranks, stack_ids, column in ((2, 2, 2), (2, 1, 1), (1, 2, -1), (1, 1, 0)):
        whole = commands | {"REFab": DRAM.commands["REFab"].model_copy(update={"target": "rank"})}
        tree = {"ranks": ranks, "stack_ids": stack_ids, "commands": whole}
        trace = from_log(dram.model_copy(update=tree), 0, np.array([[0, IDS["REFab"], ranks - 1, -1, -1]]))
        assert (trace.pseudochannel.tolist(), trace.rank.tolist()) == ([0], [column])
    path.write_text(path.read_text().replace("0,ACT,0,1,1", "0,ACT,0,2,1"))
    with pytest.raises(InputError, match=r"2:9: pseudochannel: 2 is out of range \(-1 to 1\)"):
        read(path, dram)
    path.write_text(path.read_text().replace("0,ACT,0,2,1", "0,ACT,0,1,2"))
    with pytest.raises(InputError, match=r"2:11: rank: 2 is out of range \(-1 to 1\)"):
        read(path, dram)


@pytest.mark.parametrize(("error", "raised"), [(OSError("disk full"), InputError), (KeyError("x"), KeyError)])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, error: Exception, raised: type[Exception]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("before")
    with pytest.raises(raised), io.replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "before"
    with io.replacing(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]

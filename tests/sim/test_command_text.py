"""The text of a log: byte for byte what a slow twin writes, and what the trace of its columns is written as."""

import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimloom.arch.dram import Command, Dram, load_dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.sim.command_text import CommandText
from pimloom.traces import io

DDR4 = load_dram("ddr4_3200")[0]
PIM = load_dram("gddr6_pim_gpt")[0]
NAMES = dict(zip(LEVELS, ("ALL", "PREpc", "REFab", "RFMsid", "REFbg", "ACT"), strict=True))


def memory(**counts: int) -> Dram:
    """A memory of these counts with a command for each level."""
    command = DDR4.commands["ACT"].model_dump()
    commands = {name: Command(**command | {"target": level}) for level, name in NAMES.items()}
    return DDR4.model_copy(update={"commands": commands} | counts)


HBM3 = memory(pseudochannels=2, ranks=1, stack_ids=4)
BOTH = memory(ranks=2, stack_ids=2)
FLAT = memory(ranks=1, bankgroups=1, banks_per_bankgroup=8)
MEMORIES = [DDR4, PIM, HBM3, BOTH, FLAT]


def naive(dram: Dram, log: np.ndarray, channel: int) -> str:
    """The rows as the reference describes them, one by one."""
    text = ""
    for cycle, command, address, row, column in log.tolist():
        name = dram.command_names[command]
        depth = LEVELS.index(dram.commands[name].target) + 1
        node = list(product(*map(range, dram.counts[:depth])))[address]
        at = dict(zip(LEVELS, node, strict=False))
        pseudochannel = at.get("pseudochannel", 0 if dram.pseudochannels == 1 else -1)
        rank, stack_id = at.get("rank", 0), at.get("stack_id", 0)
        named = "rank" if dram.ranks > 1 or dram.stack_ids == 1 else "stack_id"
        wide = named not in at and dram.ranks * dram.stack_ids > 1
        place = (pseudochannel, -1 if wide else rank * dram.stack_ids + stack_id)
        place += (at.get("bankgroup", -1), at.get("bank", -1))
        text += f"{cycle},{name},{channel},{','.join(map(str, place))},{row},{column}\n"
    return text


def logs(dram: Dram) -> st.SearchStrategy[np.ndarray]:
    def record(command: int) -> st.SearchStrategy[tuple[int, ...]]:
        nodes = dram.nodes(list(dram.commands.values())[command].target)
        numbers = (st.integers(0, 10**18 - 1) | st.integers(0, 1001), st.just(command))
        row, column = st.integers(-1, 2**24), st.integers(-1, 1000)
        return st.tuples(*numbers, st.integers(0, nodes - 1), row, column)

    records = st.integers(0, len(dram.commands) - 1).flatmap(record)
    return st.lists(records, max_size=20).map(lambda rows: np.array(rows, np.int64).reshape(-1, 5))


CASES = st.sampled_from(MEMORIES).flatmap(lambda dram: st.tuples(st.just(dram), logs(dram)))


@settings(deadline=None)
@given(CASES, st.integers(0, 12))
def test_text_equals_its_twin(case: tuple[Dram, np.ndarray], channel: int) -> None:
    dram, log = case
    text = CommandText(dram, channel)
    assert bytes(text.bytes(log, len(log))).decode() == naive(dram, log, channel)
    half = len(log) // 2
    assert bytes(text.bytes(log, half)).decode() == naive(dram, log[:half], channel)


@pytest.mark.parametrize(
    ("dram", "command", "address", "place"),
    [
        (HBM3, "ALL", 0, "-1,-1,-1,-1"),
        (HBM3, "PREpc", 1, "1,-1,-1,-1"),
        (HBM3, "RFMsid", 5, "1,1,-1,-1"),
        (HBM3, "ACT", 64 + 16 * 2 + 4 * 3 + 1, "1,2,3,1"),
        (BOTH, "REFab", 1, "0,2,-1,-1"),
        (BOTH, "RFMsid", 3, "0,3,-1,-1"),
        (FLAT, "REFab", 0, "0,0,-1,-1"),
        (FLAT, "ACT", 5, "0,0,0,5"),
        (PIM, "ACT_AB", 0, "0,0,-1,-1"),
        (DDR4, "ACT", 16 + 6, "0,1,1,2"),
    ],
)
def test_addresses(dram: Dram, command: str, address: int, place: str) -> None:
    log = np.array([[5, dram.command_names.index(command), address, 7, -1]])
    assert bytes(CommandText(dram).bytes(log, 1)) == f"5,{command},0,{place},7,-1\n".encode()


def test_same_bytes_as_a_written_trace(tmp_path: Path) -> None:
    RD = DDR4.command_names.index("RD")
    log = np.array([[1, 0, 3, 9, -1], [10**18 - 1, RD, 31, 2**24 - 1, 127]])
    path = tmp_path / "t.csv"
    io.write(path, io.from_log(DDR4, 0, log))
    rows = CommandText(DDR4).bytes(log, 2)
    assert path.read_bytes() == f"{io.HEADER}\n".encode() + rows
    assert zlib.crc32(rows) == zlib.crc32(bytes(rows))

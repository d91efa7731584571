"""Memories: names and files, address mappings, policies, and what is refused."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.document import shipped
from pimloom.arch.memory import COORDINATES, Memory, load_memory
from pimloom.arch.tree import InputError
from pimloom.sim.controller import decode
from pimloom.traces.requests import Requests


def requests(addresses: list[int]) -> Requests:
    n = len(addresses)
    return Requests(np.zeros(n, np.int64), np.zeros(n, np.int64), np.array(addresses, np.int64))


def complaint(name: str, *overrides: str, controller: str | None = None) -> str:
    with pytest.raises(InputError) as error:
        load_memory(name, overrides, controller)
    return str(error.value)


def place(memory: Memory, address: int) -> dict[str, int]:
    """Where an address lies, by arithmetic on the description."""
    rest = address // memory.dram.access_B
    sizes, weight = memory.sizes, dict.fromkeys(COORDINATES, 1)
    found = dict.fromkeys(COORDINATES, 0)
    for part in memory.address_mapping.lsb_first:
        count = part.count or sizes[part.coordinate] // weight[part.coordinate]
        found[part.coordinate] += rest % count * weight[part.coordinate]
        weight[part.coordinate] *= count
        rest //= count
    for x in memory.address_mapping.xor:
        found[x.into] ^= found[x.of] % sizes[x.into]
    return found


def flat(memory: Memory, at: dict[str, int]) -> int:
    d = memory.dram
    bank = at["pseudochannel"]
    for name, size in (
        ("rank", d.ranks), ("stack_id", d.stack_ids), ("bankgroup", d.bankgroups), ("bank", d.banks_per_bankgroup),
    ):  # fmt: skip
        bank = bank * size + at[name]
    return bank


MAPPINGS = {
    "shipped": (),
    "split": ("address_mapping.lsb_first=[bankgroup, [column, 4], rank, bank, [row, 8], column, row]",),
    "hashed": ("address_mapping.xor=[[bank, row], [bankgroup, column]]",),
    "three": ("dram.ranks=3", "dram.channel_capacity_B=25769803776"),
}


@pytest.mark.parametrize("overrides", MAPPINGS.values(), ids=MAPPINGS)
@given(data=st.data())
def test_addresses_lie_where_the_mapping_says(overrides: tuple[str, ...], data: st.DataObject) -> None:
    memory, _ = load_memory("ddr4_3200", overrides)
    addresses = data.draw(st.lists(st.integers(0, memory.capacity_B - 1), max_size=20))
    batch = decode(memory.decoder(), requests(addresses))
    for i, address in enumerate(addresses):
        at = place(memory, address)
        assert (batch.bank[i], batch.row[i], batch.column[i]) == (flat(memory, at), at["row"], at["column"])
        assert batch.key[i] == address // memory.dram.access_B


@pytest.mark.parametrize("overrides", MAPPINGS.values(), ids=MAPPINGS)
def test_no_two_addresses_share_a_place(overrides: tuple[str, ...]) -> None:
    """Every bank and column of a few rows, once each; also with three ranks, which are no power of two."""
    memory, _ = load_memory("ddr4_3200", [*overrides, "dram.rows=16", *capacity(overrides)])
    d = memory.dram
    batch = decode(memory.decoder(), requests(list(range(0, memory.capacity_B, d.access_B))))
    places = set(zip(batch.bank.tolist(), batch.row.tolist(), batch.column.tolist(), strict=True))
    assert places == set(product(range(d.banks), range(16), range(d.columns)))
    assert len(places) == len(batch.key)


def capacity(overrides: tuple[str, ...]) -> list[str]:
    ranks = 3 if "dram.ranks=3" in overrides else 2
    return [f"dram.channel_capacity_B={ranks * 16 * 16 * 128 * 64}"]


@pytest.mark.parametrize("name", shipped("dram"))
def test_a_standard_stands_behind_a_shipped_controller(name: str) -> None:
    memory, document = load_memory(name)
    assert (memory.name, memory.controller.scheduler, document.kind) == (name, "fr_fcfs", "memory")
    assert memory.capacity_B == memory.dram.channel_capacity_B


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: dramsim3\nkind: memory\nversion: 1\nname: mine\ndram:\n  extends: hbm2_2000\n"
        "  timing: {nCL: 20}\ncontroller: {command_queue: 4}\n"
    )
    memory, document = load_memory(str(path), ["controller.row_hit_cap=2"])
    assert (memory.dram.timing["nCL"], memory.controller.command_queue) == (20, 4)
    assert memory.controller.row_hit_cap == 2
    again = tmp_path / "again.yaml"
    again.write_text(document.text())
    assert load_memory(str(again))[0] == memory
    own = tmp_path / "dram.yaml"
    own.write_text("extends: ddr4_2400\nkind: dram\nversion: 1\nname: own\ntiming: {nRP: 20, nRC: 59}\n")
    assert load_memory(str(own), (), "dramsim3")[0].controller.scheduler == "round_robin"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["controller.read_queue=0"], "controller.read_queue: should be greater than or equal to 1, not 0"),
        (["controller.scheduler=fcfs"], "scheduler: should be 'fr_fcfs', 'fr_fcfs_row_hit' or 'round_robin'"),
        (["controller.scheduler=round_robin"], "the scheduler 'round_robin' needs this"),
        (["controller.tail=3"], "controller.tail: the scheduler 'fr_fcfs' has no such policy"),
        (["controller.write_low=0.9"], "controller.write_low: 0.9 is above write_high = 0.8"),
        (["address_mapping.lsb_first=[bankgroup, column, rank, bank]"], "'row' has 65536 values, but its parts make 1"),
        (["address_mapping.lsb_first=[[row, 3]]"], "lsb_first.0: 3 values, but 65536 are left of the coordinate 'row'"),
        (["address_mapping.lsb_first=[roww]"], "address_mapping.lsb_first.0.coordinate: should be"),
        (["address_mapping.lsb_first.0=column"], "lsb_first.2: the coordinate 'column' is complete without this"),
        (["dram.timing.nRCD=2000000", "dram.refresh.policy=none"], "'nRCD' is 2000000 clocks; a controller waits"),
        (["address_mapping.xor=[[bank, bank]]"], "xor.0: 'bank' cannot be hashed by itself"),
        (
            ["address_mapping.xor=[[rank, row]]", "dram.ranks=3", "dram.channel_capacity_B=25769803776"],
            "xor.0: 'rank' cannot be hashed: it has 3 values, not a power of two",
        ),
        (["dram.timing.nREFI=0"], "dram.timing: the refresh policy 'all_bank' needs nREFI, not 0"),
        (["timing.nCL=3"], "there is no 'timing' to override"),
        (["dram.commands.RDA=null"], "unknown command 'RDA'"),
        (["dram.refresh.policy=per_bank"], "'per_bank' needs a command of the meaning 'refresh' that addresses a bank"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides: list[str], message: str) -> None:
    assert message in complaint("ddr4_3200", *overrides)


def test_what_a_controller_does_not_know() -> None:
    assert "'round_robin' knows neither split activates" in complaint("lpddr5_6400", controller="dramsim3")
    assert "'round_robin' knows neither" in complaint("hbm3_6400", controller="dramsim3")
    assert "no memory description 'fifo' is shipped" in complaint("ddr4_3200", controller="fifo")
    assert "no memory description '' is shipped" in complaint("ddr4_3200", controller="")


def test_a_memory_has_its_own_controller() -> None:
    assert "which has its own controller; 'dramsim3' is for a DRAM" in complaint(
        "ramulator2", controller="dramsim3"
    )


def test_unknown_names() -> None:
    assert "no memory 'ddr4_2133' is shipped (did you mean 'ddr4_" in complaint("ddr4_2133")
    assert "no such file" in complaint("./nowhere.yaml")

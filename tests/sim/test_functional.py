"""Every command's meaning in numbers, and the programs that no memory could carry out."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimloom.arch.machine import Arch
from pimloom.sim.asic import Approximate, compute
from pimloom.sim.functional import Arithmetic, Executor, FunctionalError, Memory, rounded
from pimloom.traces.program import Builder, Program
from pimloom.traces.task import AsicTask, Maps, PimTask, Ref
from tests import small

ROWS, CHANNELS, BANKS, COLUMNS, LANES = 3, 2, 4, 4, small.LANES
ARCH = small.machine(CHANNELS, 2, 2, COLUMNS)


def executor(arithmetic: Arithmetic = "fp32", arch: Arch = ARCH, seed: int = 0) -> Executor:
    """An executor on random bank contents and with a random register `x`."""
    random = np.random.default_rng(seed)
    memory = Memory(arch, ROWS, arithmetic)
    memory.cells[:] = random.standard_normal(memory.cells.shape).astype(memory.cells.dtype)
    machine = Executor(arch, memory, arithmetic)
    machine.registers["x"] = random.standard_normal(COLUMNS * LANES).astype(np.float32)
    return machine


def builder() -> Builder:
    return Builder(ARCH.dram.command_names)


def task(
    program: Program | tuple[Program | None, ...], feed: Maps | None = None, drain: Maps | None = None,
    sink_size: int = 0, base_row: int = 0, base_bank: int = 0,
) -> PimTask:  # fmt: skip
    """A task whose program, if there is only one, runs on channel 0."""
    programs = program if isinstance(program, tuple) else (program, None)
    nothing = [np.empty((0, 0), np.int64)] * CHANNELS
    return PimTask(
        "task", "group", programs, base_row, base_bank, "x" if feed else "", "y" if drain else "", sink_size,
        lambda: feed or nothing, lambda: drain or nothing,
    )  # fmt: skip


def on_first(entries: np.ndarray) -> Maps:
    return [entries, entries[:0]]


def product(columns: int = COLUMNS, row: int = 1) -> tuple[Builder, Maps, Maps]:
    """All banks' products of a row with the buffer, on channel 0."""
    b = builder()
    b.add("WR_GB", columns, buffer=0, d_buffer=1)
    b.add("ACT_AB", row=row)
    b.add("MAC_AB", columns, row=row, column=0, buffer=0, d_column=1, d_buffer=1)
    b.add("RD_MAC")
    b.add("PREA")
    return b, on_first(np.arange(columns * LANES).reshape(columns, LANES)), on_first(np.arange(BANKS)[None])


def row_of(memory: Memory, row: int) -> np.ndarray:
    """f8[banks, values]: a row of channel 0 in the order of columns and lanes."""
    cells = memory.cells[0, :, row].astype(np.float64)  # [banks, lanes, columns]
    return cells.transpose(0, 2, 1).reshape(BANKS, -1)


@pytest.mark.parametrize("columns", [1, 3, 4])
def test_product(columns: int) -> None:
    machine = executor()
    b, feed, drain = product(columns)
    machine.run(task(b.build(), feed, drain, BANKS))
    size = columns * LANES
    expected = row_of(machine.memory, 1)[:, :size] @ machine.registers["x"][:size].astype(np.float64)
    np.testing.assert_allclose(machine.registers["y"], expected, rtol=1e-5, atol=1e-6)
    assert (machine.memory.open_row == -1).all()


def test_product_in_device_arithmetic_is_rounded_where_it_crosses_the_pins() -> None:
    machine = executor("device")
    b, feed, drain = product()
    machine.run(task(b.build(), feed, drain, BANKS))
    x = machine.registers["x"].astype(ml_dtypes.bfloat16).astype(np.float64)
    exact = row_of(machine.memory, 1) @ x
    got = machine.registers["y"]
    np.testing.assert_array_equal(got, rounded(got, "device"))
    np.testing.assert_array_equal(got, rounded(exact.astype(np.float32), "device"))
    assert machine.registers["x"].astype(np.float64).tolist() != x.tolist()  # registers are float32


def test_lanes_go_through_a_tree_of_adders_and_columns_one_after_the_other() -> None:
    small_term = np.float32(2**-24)  # half of what 1 can take: added alone to 1 it is lost
    machine = executor()
    machine.memory.cells[:] = 1
    b, feed, drain = product(2)
    machine.registers["x"] = np.full(2 * LANES, small_term)
    machine.registers["x"][0] = 1
    machine.run(task(b.build(), feed, drain, BANKS))
    # In halves: lane 0 meets lane 8 (lost), then the sums of 2, 4 and 8 others; a chain would stay at 1.
    first = np.float32(1) + 2 * small_term + 4 * small_term + 8 * small_term
    assert machine.registers["y"][0] == first + 16 * small_term
    narrow = ARCH.model_copy(update={"pim": ARCH.pim.model_copy(update={"lanes": 1})})
    machine = executor(arch=narrow)
    machine.memory.cells[:] = 1
    machine.registers["x"] = np.full(2 * LANES, small_term)
    machine.registers["x"][0] = 1
    machine.run(task(b.build(), feed, drain, BANKS))
    assert machine.registers["y"][0] == 1


@pytest.mark.parametrize("lanes", [1, 3, 5, 8, 16])
def test_units_with_fewer_multipliers_than_lanes(lanes: int) -> None:
    machine = executor(arch=ARCH.model_copy(update={"pim": ARCH.pim.model_copy(update={"lanes": lanes})}))
    b, feed, drain = product()
    machine.run(task(b.build(), feed, drain, BANKS))
    expected = row_of(machine.memory, 1) @ machine.registers["x"].astype(np.float64)
    np.testing.assert_allclose(machine.registers["y"], expected, rtol=1e-5, atol=1e-5)


def test_reading_a_result_clears_it() -> None:
    machine = executor()
    b, feed, _ = product()
    b.add("RD_MAC")
    machine.run(task(b.build(), feed, on_first(np.arange(2 * BANKS).reshape(2, BANKS)), 2 * BANKS))
    assert machine.registers["y"][:BANKS].all()
    assert not machine.registers["y"][BANKS:].any()


def test_sums_go_on_over_rows() -> None:
    machine = executor()
    b = builder()
    b.add("WR_GB", 1, buffer=2)
    with b.loop(2, rows=1):
        b.add("ACT_AB", row=0)
        b.add("MAC_AB", row=0, column=3, buffer=2)
        b.add("PREA")
    b.add("RD_MAC")
    feed, drain = on_first(np.arange(LANES)[None]), on_first(np.arange(BANKS)[None])
    machine.run(task(b.build(), feed, drain, BANKS, base_row=1))
    x = machine.registers["x"][:LANES].astype(np.float64)
    rows = row_of(machine.memory, 1)[:, 3 * LANES :] + row_of(machine.memory, 2)[:, 3 * LANES :]
    np.testing.assert_allclose(machine.registers["y"], rows @ x, rtol=1e-5, atol=1e-6)


def test_masked_write_and_read_back() -> None:
    machine = executor()
    before = machine.memory.cells.copy()
    b = builder()
    b.add("ACT", bank=0, row=1)
    b.add("WR", 2, bank=0, row=1, column=1, d_column=2)
    b.add("RD", 4, bank=0, row=1, column=0, d_column=1)
    b.add("PRE", bank=0)
    feed = np.full((2, LANES), -1, np.int64)
    feed[0, 5], feed[1, 0] = 40, 41
    drain = np.arange(4 * LANES).reshape(4, LANES)
    machine.run(task(b.build(), on_first(feed), on_first(drain), 4 * LANES, base_bank=3))
    expected = before.copy()
    expected[0, 3, 1, 5, 1] = machine.registers["x"][40]
    expected[0, 3, 1, 0, 3] = machine.registers["x"][41]
    np.testing.assert_array_equal(machine.memory.cells, expected)
    np.testing.assert_array_equal(machine.registers["y"], expected[0, 3, 1].T.ravel())


def test_of_two_writes_to_a_cell_the_later_one_stays_and_masks_add_up() -> None:
    machine = executor()
    b = builder()
    b.add("ACT", bank=0, row=0)
    b.add("WR", 2, bank=0, row=0, column=0)
    b.add("PRE", bank=0)
    feed = np.full((2, LANES), -1, np.int64)
    feed[0, :2], feed[1, 1:3] = [1, 2], [3, 4]
    machine.run(task(b.build(), on_first(feed)))
    np.testing.assert_array_equal(machine.memory.cells[0, 0, 0, :3, 0], machine.registers["x"][[1, 3, 4]])


def test_padding_of_the_buffer_is_zero() -> None:
    machine = executor()
    b, feed, drain = product(1)
    machine.memory.buffer[:] = 7
    machine.run(task(b.build(), on_first(np.full((1, LANES), -1)), drain, BANKS))
    assert not machine.registers["y"].any()
    assert feed[0].size


def test_commands_are_known_by_meaning_not_by_name() -> None:
    renamed = {f"C{i}": command for i, command in enumerate(ARCH.dram.commands.values())}
    arch = ARCH.model_copy(update={"dram": ARCH.dram.model_copy(update={"commands": renamed})})
    b, feed, drain = product()
    program = replace(b.build(), commands=tuple(renamed))
    results = []
    for one, machine in ((b.build(), executor()), (program, executor(arch=arch))):
        machine.run(task(one, feed, drain, BANKS))
        results.append(machine.registers["y"])
    np.testing.assert_array_equal(*results)


def wrong(*commands: tuple[str, dict[str, int]]) -> Program:
    b = builder()
    for name, arguments in commands:
        b.add(name, **arguments)
    return b.build()


IMPOSSIBLE = {
    "open twice": (
        [("ACT_AB", {"row": 1}), ("ACT", {"bank": 2, "row": 0})],
        "channel 0: ACT: row 0 of bank 2 while row 1 is open",
    ),
    "open all with one open": (
        [("ACT", {"bank": 3, "row": 2}), ("ACT_AB", {"row": 0})],
        "bank 3 while row 2",
    ),
    "open one bank twice in a run": (
        [("ACT", {"bank": 1, "row": 0, "count": 2})],
        "bank 1 is opened 2 times",
    ),
    "closed bank": (
        [("MAC_AB", {"row": 1, "column": 0, "buffer": 0})],
        "row 1 is needed, but bank 0 is closed",
    ),
    "other row": (
        [("ACT_AB", {"row": 1}), ("MAC_AB", {"row": 2, "column": 0, "buffer": 0})],
        "row 2 is needed, but bank 0 has row 1 open",
    ),
    "one closed bank of all": (
        [("ACT_AB", {"row": 1}), ("PRE", {"bank": 2}), ("MAC_AB", {"row": 1, "column": 0, "buffer": 0})],
        "row 1 is needed, but bank 2 is closed",
    ),
    "row": ([("ACT_AB", {"row": ROWS})], "row 3 is not in 0..2"),
    "bank": ([("ACT", {"bank": 3, "row": 0, "count": 2, "d_bank": 1})], "bank 4 is not in 0..3"),
    "column": (
        [("ACT_AB", {"row": 0}), ("MAC_AB", {"row": 0, "column": 3, "buffer": 0, "count": 2, "d_column": 1})],
        "column 4 is not in 0..3",
    ),
    "buffer": (
        [("ACT_AB", {"row": 0}), ("MAC_AB", {"row": 0, "column": 0, "buffer": 4})],
        "buffer column 4 is not in 0..3",
    ),
    "no meaning": ([("REFab", {})], "refresh of a channel means nothing in a program"),
    "write without map": (
        [("ACT", {"bank": 0, "row": 0}), ("WR", {"bank": 0, "row": 0, "column": 0})],
        "channel 0: the program has 1 bursts to write, its map 0",
    ),
    "read without map": (
        [("RD_MAC", {"count": 2})],
        "channel 0: the program has 2 bursts to read, its map 0",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_programs(name: str) -> None:
    commands, message = IMPOSSIBLE[name]
    with pytest.raises(FunctionalError, match=message):
        executor().run(task(wrong(*commands)))


def test_an_impossible_program_names_the_channel_that_is_wrong() -> None:
    machine = executor()
    machine.memory.open_row[1, 2] = 0
    program = wrong(("ACT_AB", {"row": 1}))
    with pytest.raises(FunctionalError, match="channel 1: ACT_AB: row 1 of bank 2 while row 0 is open"):
        machine.run(task((program, program)))


def test_wrong_maps_and_registers() -> None:
    b, feed, drain = product()
    program = b.build()
    cases = [
        (task(program, on_first(feed[0][1:]), drain, BANKS), "4 bursts to write, its map 3"),
        (task(program, [feed[0], feed[0][:1]], drain, BANKS), "channel 1: the program has 0 bursts"),
        (task(program, on_first(feed[0] + 1), drain, BANKS), "value 64 of register 'x', which holds 64"),
        (task(program, feed, on_first(drain[0] // 2), BANKS), "'y' of 4 values: value 0 is read 2 times"),
        (task(program, feed, drain, BANKS + 1), "'y' of 5 values: value 4 is read 0 times"),
        (task(program, feed, drain, BANKS - 1), "'y' of 3 values: value 3 is read 1 times"),
        (replace(task(program, feed, drain, BANKS), source="z"), "register 'z' holds nothing yet"),
    ]
    for case, message in cases:
        with pytest.raises(FunctionalError, match=message):
            executor().run(case)


def test_asic_tasks() -> None:
    machine = executor()
    x = machine.registers["x"]
    ref = Ref("x", 2, 10)
    machine.run(AsicTask("t", "g", "scale", 8, 1, (ref,), "y", scalar=3.0, by_turn=True), turn=1)
    np.testing.assert_array_equal(machine.registers["y"], x[2:10] * np.float32(1.5))
    with pytest.raises(FunctionalError, match=r"0:65 of register 'x', which holds 64 values"):
        machine.run(AsicTask("t", "g", "add", 65, 1, (Ref("x", 0, 65), Ref("x", 0, 65)), "y"))
    softmax = AsicTask("t", "g", "softmax", 32, 2, (Ref("x", 0, 64),), "y")
    results = {}
    for arithmetic in ("fp32", "device"):
        machine = executor(arithmetic)  # type: ignore[arg-type]
        machine.run(softmax)
        results[arithmetic] = machine.registers["y"]
    np.testing.assert_allclose(results["fp32"], results["device"], rtol=1e-4)
    assert (results["fp32"] != results["device"]).any()
    np.testing.assert_array_equal(
        results["device"], compute("softmax", Approximate(ARCH.asic), 32, 2, [x], 0.0)
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Legal programs with loops that use every command."""
    b = builder()
    start = draw(st.integers(0, COLUMNS - 1))
    n = draw(st.integers(1, COLUMNS - start))
    b.add("WR_GB", n, buffer=start, d_buffer=1)
    with b.loop(draw(st.integers(1, 2)), rows=1):
        b.add("ACT_AB", row=0)
        with b.loop(draw(st.integers(1, 2)), columns=draw(st.integers(0, 1))):
            count = draw(st.integers(1, 3))
            step = draw(st.integers(0, 1)) if count < COLUMNS else 0
            b.add("MAC_AB", count, row=0, column=0, buffer=0, d_column=step, d_buffer=step)
            b.add("WR", draw(st.integers(1, BANKS)), bank=0, row=0, column=1, d_bank=draw(st.integers(0, 1)))
            b.add("RD", 2, bank=1, row=0, column=0, d_column=draw(st.integers(0, 1)))
        b.add("PREA")
    return b.build()


@settings(max_examples=60)
@given(program=programs(), seed=st.integers(0, 9), arithmetic=st.sampled_from(["fp32", "device"]))
def test_runs_and_channels_at_once_equal_commands_one_by_one(
    program: Program, seed: int, arithmetic: Arithmetic
) -> None:
    """Vectorised over a run and over channels = each command, each channel by itself."""
    random = np.random.default_rng(seed)
    counts = dict(zip(program.commands, program.counts().tolist(), strict=True))
    sent = counts["WR_GB"] + counts["WR"]
    feed = [random.integers(-1, COLUMNS * LANES, (sent, LANES)) for _ in range(CHANNELS)]
    size = counts["RD"] * LANES
    drain = [np.arange(size).reshape(-1, LANES) + c * size for c in range(CHANNELS)]
    one, other = executor(arithmetic, seed=seed), executor(arithmetic, seed=seed)
    one.run(task((program, program), feed, drain, CHANNELS * size))
    other.run(task((program.expanded(), program.expanded()), feed, drain, CHANNELS * size))
    np.testing.assert_array_equal(one.registers["y"], other.registers["y"])
    np.testing.assert_array_equal(one.memory.cells, other.memory.cells)
    np.testing.assert_array_equal(one.memory.buffer, other.memory.buffer)
    np.testing.assert_array_equal(one.memory.sums, other.memory.sums)

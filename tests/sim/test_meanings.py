"""Every command's meaning in numbers, and the streams that no memory could carry out."""

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from pimloom.arch.device import load_device
from pimloom.sim.banks import Memory
from pimloom.sim.functional import Arithmetic, FunctionalError
from pimloom.sim.functional_device import execute
from pimloom.traces.layout import Place
from pimloom.traces.stream import Kernel, Maps, StreamBuilder

CHANNELS, BANKS, ROWS, COLUMNS, LANES = 3, 4, 8, 4, 16
DEVICE = load_device(
    "newton",
    [
        f"dram.channels={CHANNELS}", "dram.bankgroups=2", "dram.banks_per_bankgroup=2", f"dram.rows={ROWS}",
        f"dram.columns={COLUMNS}", f"dram.channel_capacity_B={BANKS * ROWS * COLUMNS * LANES * 2}",
        f"unit.buffer_accesses={COLUMNS}",
    ],
)[0]  # fmt: skip
VECTOR = np.random.default_rng(1).standard_normal(COLUMNS * LANES).astype(np.float32)
ALL = np.arange(COLUMNS * LANES).reshape(COLUMNS, LANES)
FIRST = 1


def builder() -> StreamBuilder:
    return StreamBuilder(DEVICE.dram.command_names)


def kernel(b: StreamBuilder, feed: Maps = (), drain: Maps = (), size: int = 0) -> Kernel:
    return Kernel(b.build(), ROWS, size, dict, lambda: feed, lambda: drain)


def filled(arithmetic: Arithmetic = "fp32") -> tuple[Memory, npt.NDArray[np.float32]]:
    """A memory, and what it holds: f4[channels, banks, rows, columns, lanes]."""
    memory = Memory(DEVICE, arithmetic)
    shape = (CHANNELS, BANKS, ROWS, COLUMNS, LANES)
    place = Place(*np.indices(shape))
    memory.store(place, np.random.default_rng(0).standard_normal(shape))
    return memory, memory.load(place)


def product() -> StreamBuilder:
    """The dot products of row 2 of the banks of channel 0 with the vector."""
    b = builder()
    b.add("GWRITE", FIRST, COLUMNS, operand=0)
    b.add("COMP", FIRST, COLUMNS, row=2, column=0, operand=0, d_operand=0)
    b.add("READRES", FIRST, operand=0)
    return b


RESULT = [np.arange(BANKS)[None]]


def test_product() -> None:
    memory, cells = filled()
    got = execute(DEVICE, kernel(product(), [ALL], RESULT, BANKS), memory, VECTOR)
    np.testing.assert_allclose(got, cells[0, :, 2].reshape(BANKS, -1) @ VECTOR, rtol=1e-4)


def test_numbers_of_the_device_are_rounded_where_they_are_stored_and_sent() -> None:
    memory, cells = filled("device")
    got = execute(DEVICE, kernel(product(), [ALL], RESULT, BANKS), memory, VECTOR)

    def rounded(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)

    np.testing.assert_array_equal(cells, rounded(cells))
    # Lanes in a tree, columns one after the other, all in float32.
    terms = cells[0, :, 2] * rounded(VECTOR).reshape(COLUMNS, LANES)
    for half in (8, 4, 2, 1):
        terms = terms[..., :half] + terms[..., half:]
    sums = np.zeros(BANKS, np.float32)
    for k in range(COLUMNS):
        sums += terms[:, k, 0]
    np.testing.assert_array_equal(got, rounded(sums))
    assert (got != sums).any()


def test_partial_sums_are_added_and_padding_is_dropped() -> None:
    b = product()
    b.add("COMP", FIRST, COLUMNS, row=3, column=0, operand=0, d_operand=0)
    b.add("READRES", FIRST, operand=0)
    memory, cells = filled()
    drain = [np.array([[0, 1, 2, -1], [0, 1, 2, -1]])]
    got = execute(DEVICE, kernel(b, [ALL], drain, 3), memory, VECTOR)
    wanted = (cells[0, :3, 2] + cells[0, :3, 3]).reshape(3, -1) @ VECTOR
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_channels_of_one_instruction_have_data_of_their_own() -> None:
    b, both = builder(), 0b101
    b.add("GWRITE", both, 1, operand=3)
    b.add("COMP", both, 1, row=1, column=3, operand=0)
    b.add("READRES", both, operand=0)
    none = np.empty((0, LANES), np.int64)
    feed = [ALL[:1], none, np.where(ALL[1:2] > LANES, ALL[1:2], -1)]
    drain = [np.arange(BANKS)[None], none, BANKS + np.arange(BANKS)[None]]
    memory, cells = filled()
    got = execute(DEVICE, kernel(b, feed, drain, 2 * BANKS), memory, VECTOR)
    second = VECTOR[LANES : 2 * LANES].copy()
    second[0] = 0
    wanted = [*(cells[0, :, 1, 3] @ VECTOR[:LANES]), *(cells[2, :, 1, 3] @ second)]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_reads_and_writes_of_one_bank() -> None:
    b = builder()
    b.add("WR", FIRST, 2, node=1, row=5, column=3, d_column=-1)
    b.add("WR", FIRST, 2, node=2, row=5, column=0, d_column=0)
    b.add("RD", FIRST, 4, node=1, row=5, column=0)
    b.add("RD", FIRST, 1, node=2, row=5, column=0)
    memory, cells = filled()
    drain = [np.arange(5 * LANES).reshape(5, LANES)]
    got = execute(DEVICE, kernel(b, [ALL], drain, 5 * LANES), memory, VECTOR).reshape(5, LANES)
    sent = VECTOR.reshape(COLUMNS, LANES)
    # The later of two writes to one column stays.
    np.testing.assert_array_equal(got, [cells[0, 1, 5, 0], cells[0, 1, 5, 1], sent[1], sent[0], sent[3]])


def test_rows_that_were_never_written_are_zero_and_take_no_room() -> None:
    memory = Memory(DEVICE, "fp32")
    one = np.array(1)
    memory.store(Place(one, one, 0 * one, one, one), 3.0)
    assert len(memory.cells) == 2
    everywhere = memory.load(Place(*np.indices((CHANNELS, BANKS, ROWS, COLUMNS, LANES))))
    assert everywhere.sum() == everywhere[1, 1, 0, 1, 1] == 3


def test_rows_opened_by_the_stream() -> None:
    b = builder()
    b.add("GWRITE", FIRST, COLUMNS, operand=0)
    for group in range(2):
        b.add("G_ACT", FIRST, node=group, row=2 + group)
    b.add("COMP", FIRST, COLUMNS, column=0, operand=0, d_operand=0)
    b.add("READRES", FIRST, operand=0)
    b.add("PREab", FIRST)
    b.add("G_ACT", FIRST, row=1)
    memory, cells = filled()
    got = execute(DEVICE, kernel(b, [ALL], RESULT, BANKS), memory, VECTOR)
    opened = cells[0, np.arange(BANKS), [2, 2, 3, 3]]
    np.testing.assert_allclose(got, opened.reshape(BANKS, -1) @ VECTOR, rtol=1e-4)


def test_what_stays_in_the_banks_is_the_result() -> None:
    b = builder()
    b.add("WR", FIRST, COLUMNS, node=3, row=7, column=0)
    whole = Kernel(
        b.build(), ROWS, 2, dict, lambda: [ALL], lambda: [],
        lambda: Place(*(np.array([v, v]) for v in (0, 3, 7, 2)), np.array([4, 5])),
    )  # fmt: skip
    np.testing.assert_array_equal(
        execute(DEVICE, whole, Memory(DEVICE, "fp32"), VECTOR), VECTOR[2 * LANES :][4:6]
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(command="COMP", row=2, column=1, operand=0), "buffer column 1 was never filled"),
        (dict(command="GWRITE", operand=4), "buffer column 4 is not in 0..3"),
        (dict(command="COMP", row=8, column=0, operand=0), "row 8 is not in 0..7"),
        (dict(command="COMP", row=2, column=-1, operand=0), "buffer column -1 is not in 0..3"),
        (dict(command="COMP", row=2, column=0, operand=1), "result register 1 is not in 0..0"),
        (dict(command="COMP", column=0, operand=0), "bank 0 is closed, and no row is named"),
        (dict(command="RD", row=0, column=4), "column 4 is not in 0..3"),
        (dict(command="RD", row=0, column=0, node=4), "node 4 is not in 0..3"),
        (dict(command="RD", row=0, column=0), "more is read than the map's 0 accesses"),
        (dict(command="READRES", operand=0), "result register 0 holds nothing that was not read before"),
        (dict(command="GWRITE", times=4, operand=0), "more is sent than the map's 4 accesses"),
    ],
)
def test_what_no_memory_could_carry_out(change: dict[str, int], message: str) -> None:
    b = builder()
    b.add("GWRITE", 2, operand=0)
    b.add(**{"channels": 2, **change})  # type: ignore[arg-type]
    feed = [ALL[:0], ALL]
    with pytest.raises(FunctionalError) as error:
        execute(DEVICE, kernel(b, feed, [], 0), Memory(DEVICE, "fp32"), VECTOR)
    assert str(error.value) == f"channel 1: instruction 1: {change['command']}: {message}"


def opened(*rows: int) -> StreamBuilder:
    b = builder()
    for row in rows:
        b.add("G_ACT", FIRST, node=1, row=row)
    return b


def test_an_activate_of_a_bank_that_is_open() -> None:
    with pytest.raises(FunctionalError, match="instruction 1: G_ACT: row 3 while bank 2 has row 2 open"):
        execute(DEVICE, kernel(opened(2, 3)), Memory(DEVICE, "fp32"))


def test_an_access_that_closes_its_bank() -> None:
    b = opened(2)
    b.add("RDA", FIRST, node=3, column=0)
    b.add("RD", FIRST, node=3, column=0)
    with pytest.raises(FunctionalError, match="instruction 2: RD: bank 3 is closed, and no row is named"):
        execute(
            DEVICE,
            kernel(b, drain=[np.arange(2 * LANES).reshape(2, LANES)], size=2 * LANES),
            Memory(DEVICE, "fp32"),
        )


def test_the_controller_opens_the_row_that_an_access_names() -> None:
    b = opened(2)
    b.add("RD", FIRST, node=3, row=1, column=0)
    b.add("RD", FIRST, node=3, column=1)
    b.add("RD", FIRST, node=2, column=1)
    memory, cells = filled()
    got = execute(DEVICE, kernel(b, drain=[np.arange(3 * LANES).reshape(3, LANES)], size=3 * LANES), memory)
    np.testing.assert_array_equal(
        got.reshape(3, LANES), [cells[0, 3, 1, 0], cells[0, 3, 1, 1], cells[0, 2, 2, 1]]
    )


@pytest.mark.parametrize(
    "feed, drain, size, message",
    [
        ([ALL[:0]], RESULT, BANKS, "GWRITE: more is sent than the map's 0 accesses"),
        ([np.vstack([ALL, ALL])], RESULT, BANKS, "4 accesses are sent, its map has 8"),
        ([ALL + 1], RESULT, BANKS, "access 3 is sent with a value outside the 64 there are"),
        ([ALL[:, :8]], RESULT, BANKS, "GWRITE: 16 values are sent, but an access of the map has 8"),
        ([ALL], RESULT, BANKS + 1, "value 4 of the result is never read"),
        ([ALL], RESULT, BANKS - 1, "access 0 is read with a value outside the 3 there are"),
    ],
)  # fmt: skip
def test_maps_that_do_not_fit(feed: Maps, drain: Maps, size: int, message: str) -> None:
    with pytest.raises(FunctionalError) as error:
        execute(DEVICE, kernel(product(), feed, drain, size), Memory(DEVICE, "fp32"), VECTOR)
    assert str(error.value).endswith(message)


def test_a_sum_that_is_never_read() -> None:
    b = product()
    b.add("COMP", FIRST, row=2, column=0, operand=0)
    with pytest.raises(FunctionalError, match="channel 0: result register 0 of unit 0 is never read"):
        execute(DEVICE, kernel(b, [ALL], RESULT, BANKS), Memory(DEVICE, "fp32"), VECTOR)


def test_a_channel_that_the_device_lacks() -> None:
    b = builder()
    b.add("GWRITE", 1 << CHANNELS, operand=0)
    with pytest.raises(FunctionalError, match=f"channel {CHANNELS} is not in 0..{CHANNELS - 1}"):
        execute(DEVICE, kernel(b), Memory(DEVICE, "fp32"))


# --- what GDDR6-AiM has beside that ---------------------------------------------------------------------------

AIM = load_device("gddr6-aim")[0]
UNITS = np.arange(AIM.dram.banks)[None]


def aim(*commands: tuple[str, dict[str, int]]) -> StreamBuilder:
    b = StreamBuilder(AIM.dram.command_names)
    for command, fields in commands:
        b.add(command, FIRST, **fields)
    return b


def register(operand: int = 0) -> dict[str, int]:
    return {"operand": operand}


@pytest.mark.parametrize(
    "commands, message",
    [
        (["WRGB", "MAC16"], "MAC16: result register 0 was never set"),
        (["AF16"], "AF16: result register 0 was never set"),
        (["RDAF16"], "RDAF16: there is no activated value that was not read before"),
        (["WRMAC16", "AF16", "AF16"], "AF16: the activated value before was not read"),
        (["WRMAC16", "AF16"], "the activated value of unit 0 is never read"),
        (["WRGB", "WRMAC16", "MAC16", "WRMAC16"], "WRMAC16: result register 0 holds a sum that was not read"),
        (["WRMAC16", "RDMAC16"], "RDMAC16: result register 0 holds nothing that was not read before"),
        (["WRCP"], "WRCP: buffer column 0 was never filled"),
    ],
)
def test_registers_that_are_not_ready(commands: list[str], message: str) -> None:
    b = aim(*((c, {"row": 0, "column": 0, "operand": 0}) for c in commands))
    feed = [np.full((sum(AIM.dram.commands[c].data == "write" for c in commands), LANES), -1)]
    with pytest.raises(FunctionalError) as error:
        execute(AIM, kernel(b, feed), Memory(AIM, "fp32"))
    assert str(error.value).endswith(message)


def test_a_bias_is_added_to_and_activated() -> None:
    b = aim(
        ("WRGB", register(5)),
        ("WRMAC16", register(3)),
        ("MAC16", {"row": 1, "column": 5, "operand": 3}),
        ("AF16", {"row": 1 << 29, "column": 0, "operand": 3}),
        ("RDAF16", register(3)),
        ("RDMAC16", register(3)),
    )
    random = np.random.default_rng(3)
    cells, vector = (
        random.standard_normal((16, LANES), np.float32),
        random.standard_normal(2 * LANES, np.float32),
    )
    memory = Memory(AIM, "fp32")
    bank, lane = np.indices((16, LANES))
    memory.store(Place(0 * bank, bank, 0 * bank + 1, 0 * bank + 5, lane), cells)
    feed = [np.arange(2 * LANES).reshape(2, LANES)]
    got = execute(AIM, kernel(b, feed, [np.vstack([UNITS, UNITS + 16])], 32), memory, vector)
    wanted = cells @ vector[:LANES] + vector[LANES:]
    np.testing.assert_allclose(got, [*np.maximum(wanted, 0), *wanted], rtol=1e-4, atol=1e-6)


def test_copies_between_a_bank_and_the_buffer() -> None:
    b = aim(
        ("RDCP", {"times": 2, "node": 6, "row": 1, "column": 4, "operand": 62}),
        ("WRCP", {"times": 2, "node": 7, "row": 2, "column": 9, "d_column": -1, "operand": 62}),
        ("RD", {"times": 2, "node": 7, "row": 2, "column": 8}),
    )
    memory = Memory(AIM, "fp32")
    values = np.random.default_rng(4).standard_normal((2, LANES), np.float32)
    column, lane = np.indices((2, LANES))
    memory.store(Place(0 * lane, 0 * lane + 6, 0 * lane + 1, column + 4, lane), values)
    got = execute(AIM, kernel(b, (), [np.arange(2 * LANES).reshape(2, LANES)], 2 * LANES), memory)
    np.testing.assert_array_equal(got.reshape(2, LANES), values[::-1])


# --- and HBM-PIM ---------------------------------------------------------------------------------------------


def test_registers_of_lanes_hold_numbers_of_the_device() -> None:
    device = load_device("hbm2-pim")[0]
    b = StreamBuilder(device.dram.command_names)
    rows, inputs = 5, device.unit.buffer_accesses
    b.add("WR_GRF", FIRST, inputs, row=9, operand=0)
    b.add("MRS_PIM", FIRST, node=1, row=9, column=0, operand=1)
    # Two sums of four products each, from the odd banks.
    for result in range(2):
        b.add("MAC", FIRST, 4, node=1, row=rows, column=4 * result, operand=inputs * result)
    b.add("STORE", FIRST, 2, node=0, row=6, column=0, operand=inputs)
    random = np.random.default_rng(5)
    vector = random.standard_normal((inputs, LANES), np.float32)
    memory = Memory(device, "device")
    unit, column, lane = np.indices((device.units, 8, LANES))
    place = Place(0 * unit, 2 * unit + 1, 0 * unit + rows, column, lane)
    memory.store(place, random.standard_normal(unit.shape))
    stored = memory.load(place)
    left = Place(*(field[:, :2] for field in (0 * unit, 2 * unit, 0 * unit + 6, column, lane)))
    feed = [np.arange(inputs * LANES).reshape(inputs, LANES)]
    whole = Kernel(b.build(), ROWS, left.lane.size, dict, lambda: feed, lambda: [], lambda: left)
    got = execute(device, whole, memory, vector).reshape(device.units, 2, LANES)
    sums = np.zeros((device.units, 2, LANES), np.float16)
    for result in range(2):
        for k in range(4):
            product = stored[:, 4 * result + k] * vector[k].astype(np.float16).astype(np.float32)
            sums[:, result] += product.astype(np.float16)
    # The other rank does nothing.
    rank = device.units // device.dram.ranks
    np.testing.assert_array_equal(got[:rank], sums[:rank].astype(np.float32))
    assert rank < device.units and not got[rank:].any()

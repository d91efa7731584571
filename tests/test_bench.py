"""Kernels by shape: what is refused, and what the figures add up to."""

import pytest

from pimloom.arch.device import load_device
from pimloom.arch.tree import InputError
from pimloom.bench import kernel_result, parse_shape, price, run_kernel
from pimloom.traces.stream import Attention, Elementwise, Gemv, Work


@pytest.mark.parametrize(
    "kind, text, work",
    [
        ("gemv", "4096x1024", Gemv(4096, 1024)),
        ("add", "17", Elementwise("add", 17)),
        ("score", "32x128x512", Attention("score", 32, 32, 128, 512)),
        ("context", "64/8X128X1", Attention("context", 64, 8, 128, 1)),
    ],
)
def test_shapes(kind: str, text: str, work: Work) -> None:
    assert parse_shape(kind, text) == work


@pytest.mark.parametrize(
    "kind, text, why",
    [
        ("gemv", "4096", "of gemv should be OUTPUTSxINPUTS"),
        ("gemv", "4096x-1", "of gemv should be"),
        ("gemv", "0x4", "every number should be between 1 and"),
        ("gemv", "99999999x4", "every number should be between 1 and"),
        ("gemv", "8/2x4", "of gemv should be"),
        ("add", "4x4", "of add should be ELEMENTS"),
        ("score", "32x128", "of score should be HEADS"),
        ("score", "32x128/2x4", "of score should be HEADS"),
        ("score", "7/2x64x4", "2 key-value heads do not divide 7 heads"),
    ],
)
def test_wrong_shapes(kind: str, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_shape(kind, text)


def test_what_a_device_cannot_do() -> None:
    newton = load_device("newton")[0]
    with pytest.raises(InputError, match="newton has no relu; it has: gemv"):
        run_kernel(newton, Elementwise("relu", 5))
    with pytest.raises(InputError, match="--channels 25: newton has 1 to 24"):
        run_kernel(newton, Gemv(5, 5), 25)
    with pytest.raises(
        InputError, match="gemv holds 2199023255552 B in its banks, and 1 channels have 536870912 B"
    ):
        run_kernel(newton, Gemv(2**20, 2**20), 1)


def test_unknown_lowering() -> None:
    device = load_device("newton", ["lowering=newtin"])[0]
    with pytest.raises(InputError, match=r"there is no 'newtin' \(did you mean 'newton'\?\)"):
        run_kernel(device, Gemv(5, 5))


def test_counts_add_up() -> None:
    told = kernel_result(run_kernel(load_device("newton")[0], Gemv(1000, 700), 5))
    commands = told["commands"]
    for name, total in commands["total"].items():
        assert sum(channel.get(name, 0) for channel in commands["per_channel"]) == total
    # 63 tiles of 16 outputs on 5 channels: 13 each, but 12 and 11 on the last; 700 inputs are 44 accesses.
    assert [channel.get("COMP", 0) // 44 for channel in commands["per_channel"][:5]] == [13, 13, 13, 12, 12]
    assert not any(channel.get("COMP") for channel in commands["per_channel"][5:])
    assert told["time_ns"] == told["cycles"] / load_device("newton")[0].dram.clock_Hz * 1e9


def test_energy_is_counts_times_coefficients_and_unknown_stays_unknown() -> None:
    device = load_device("newton", ["energy={command_pJ: {COMP: 3, GWRITE: 0.5}, active_W: 2}"])[0]
    clock_ps = 1e12 / device.dram.clock_Hz
    told = price(device, {"COMP": 7, "GWRITE": 4, "READRES": 1, "PREab": 0}, 10, 20)
    assert told == {
        "COMP": 21, "GWRITE": 2, "READRES": None, "standby_active": 10 * clock_ps * 2, "standby_idle": None,
        "total_known": 23 + 20 * clock_ps,
    }  # fmt: skip

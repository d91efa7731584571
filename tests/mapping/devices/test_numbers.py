"""Every kernel of every device computes what NumPy does, at sizes around those that its units and rows like."""

from collections.abc import Iterator
from typing import Any

import pytest

from pimloom.arch.device import load_device
from pimloom.mapping.devices import lowerings
from pimloom.traces.stream import Attention, Elementwise, Gemv, Site, Work
from tests.mapping.devices.proof import assert_mistakes_show, prove

DEVICES = {
    name: load_device(name)[0]
    for name in ("gddr6-aim", "hbm2-pim", "attacc-bank", "attacc-bg", "attacc-buffer")
}

GEMV = [
    Gemv(1, 1), Gemv(15, 127), Gemv(16, 128), Gemv(17, 129), Gemv(63, 1), Gemv(64, 1023), Gemv(65, 1024),
    Gemv(257, 1025), Gemv(1, 2053), Gemv(131, 97, batch=3),
]  # fmt: skip
ATTENTION = [
    Attention(kind, *shape)
    for kind in ("score", "context", "attention")
    for shape in (
        (1, 1, 1, 1), (1, 1, 64, 15), (4, 4, 64, 16), (8, 2, 64, 17), (7, 1, 80, 255), (8, 8, 128, 256),
        (12, 4, 128, 257), (5, 5, 64, 131),
    )
]  # fmt: skip
ELEMENTWISE = [
    Elementwise(kind, n) for kind in ("add", "mul", "relu") for n in (1, 15, 16, 17, 1023, 1024, 1025, 16411)
]
KINDS: dict[str, list[Work]] = {
    "gemv": [*GEMV],
    "score": [w for w in ATTENTION if w.kind == "score"],
    "context": [w for w in ATTENTION if w.kind == "context"],
    "attention": [w for w in ATTENTION if w.kind == "attention"],
    **{kind: [w for w in ELEMENTWISE if w.kind == kind] for kind in ("add", "mul", "relu")},
}


def marked(name: str, work: Work | str) -> Any:
    """Attention at buffer level takes long: one instruction an access, as its units go from bank to bank."""
    slow = name == "attacc-buffer" and work != "gemv"
    return pytest.param(name, work, marks=[pytest.mark.slow] if slow else [])


def cases() -> Iterator[Any]:
    for name, device in DEVICES.items():
        yield from (marked(name, kind) for kind in lowerings(device) if kind in KINDS)


@pytest.mark.parametrize("name, kind", list(cases()))
def test_equals_numpy(name: str, kind: str) -> None:
    device = DEVICES[name]
    for work in KINDS[kind]:
        for channels in sorted({1, 3, device.dram.channels}):
            prove(device, work, Site(channels, row=2))


SMALL: list[tuple[str, Work]] = [
    *((f"attacc-{level}", Gemv(33, 129, 2)) for level in ("bank", "bg", "buffer")),
    *((f"attacc-{level}", Attention("attention", 4, 2, 17, 35)) for level in ("bank", "bg", "buffer")),
    ("gddr6-aim", Gemv(33, 1041, 2)),
    ("gddr6-aim", Attention("score", 4, 2, 17, 35)),
    ("gddr6-aim", Attention("context", 4, 2, 17, 35)),
    ("gddr6-aim", Elementwise("add", 264)),
    ("gddr6-aim", Elementwise("mul", 264)),
    ("gddr6-aim", Elementwise("relu", 67)),
    ("hbm2-pim", Gemv(65, 129, 2)),
    ("hbm2-pim", Attention("context", 4, 2, 17, 129)),
    ("hbm2-pim", Elementwise("mul", 2053)),
    ("hbm2-pim", Elementwise("relu", 2053)),
]
# Rows are opened as instructions name them, and modes are for the controller; without these the numbers are the same.
SILENT = {"activate", "precharge", "mode"}


@pytest.mark.parametrize("name, work", [marked(*case) for case in SMALL], ids=str)
def test_every_mistake_shows(name: str, work: Work) -> None:
    assert_mistakes_show(DEVICES[name], work, Site(2), SILENT)


@pytest.mark.parametrize("name", DEVICES)
def test_numbers_of_the_device(name: str) -> None:
    prove(DEVICES[name], Gemv(65, 1025), Site(2), "device", 2**-6)

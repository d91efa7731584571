"""Newton computes what NumPy does, and at the speed that its rules allow."""

import pytest

from pimloom.arch.device import Device, load_device
from pimloom.traces.stream import Attention, Gemv, Site
from tests.mapping.devices.proof import assert_mistakes_show, prove

DEVICE = load_device("newton")[0]
# A row of 64 values, so that small shapes have tails of every kind.
SMALL = load_device(
    "newton", ["dram.columns=4", "dram.rows=512", "dram.channel_capacity_B=1048576", "unit.buffer_accesses=4"]
)[0]


@pytest.mark.parametrize("channels", [1, 3, 24])
@pytest.mark.parametrize("inputs", [1, 15, 17, 63, 64, 65, 131])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 47, 49, 383, 385])
def test_gemv_equals_numpy(outputs: int, inputs: int, channels: int) -> None:
    prove(SMALL, Gemv(outputs, inputs, batch=2), Site(channels, row=5))


@pytest.mark.parametrize("kind", ["score", "context"])
@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (8, 2), (50, 25)])
@pytest.mark.parametrize("d_head", [1, 16, 17, 65])
@pytest.mark.parametrize("tokens", [1, 17, 63, 64, 65, 131])
def test_attention_equals_numpy(kind: str, heads: int, kv_heads: int, d_head: int, tokens: int) -> None:
    for channels in (1, 7, 24):
        prove(SMALL, Attention(kind, heads, kv_heads, d_head, tokens), Site(channels, row=1))


@pytest.mark.parametrize(
    "work",
    [Gemv(1000, 1031), Attention("score", 32, 8, 128, 1023), Attention("context", 32, 8, 128, 1025)],
    ids=str,
)
def test_the_device_itself(work: Gemv | Attention) -> None:
    prove(DEVICE, work, Site(24))
    # Operands and results are rounded to 8 bits.
    prove(DEVICE, work, Site(24), "device", 2**-7)


@pytest.mark.parametrize(
    "work", [Gemv(33, 81, 2), Attention("score", 6, 3, 40, 17), Attention("context", 6, 3, 17, 81)], ids=str
)
@pytest.mark.parametrize("device, channels", [(SMALL, 1), (SMALL, 2)], ids=["1", "2"])
def test_every_mistake_shows(device: Device, channels: int, work: Gemv | Attention) -> None:
    assert_mistakes_show(device, work, Site(channels))

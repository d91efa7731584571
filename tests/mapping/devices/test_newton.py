"""Newton computes what NumPy does, and at the speed that its rules allow."""

import pytest

from pimloom.arch.device import load_device
from pimloom.mapping.devices import lower
from pimloom.sim.bench import channels
from pimloom.traces.stream import Attention, Gemv, Site
from tests.mapping.devices.proof import assert_mistakes_show, prove

DEVICE = load_device("newton")[0]
# A row of 64 values, so that small shapes have tails of every kind.
SMALL = load_device(
    "newton", ["dram.columns=4", "dram.rows=512", "dram.channel_capacity_B=1048576", "unit.buffer_accesses=4"]
)[0]


@pytest.mark.parametrize("on", [1, 3, 24])
@pytest.mark.parametrize("inputs", [1, 15, 17, 63, 64, 65, 131])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 47, 49, 383, 385])
def test_gemv_equals_numpy(outputs: int, inputs: int, on: int) -> None:
    prove(SMALL, Gemv(outputs, inputs, batch=2), Site(on, row=5))


@pytest.mark.parametrize("kind", ["score", "context"])
@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (8, 2), (50, 25)])
@pytest.mark.parametrize("d_head", [1, 16, 17, 65])
@pytest.mark.parametrize("tokens", [1, 17, 63, 64, 65, 131])
def test_attention_equals_numpy(kind: str, heads: int, kv_heads: int, d_head: int, tokens: int) -> None:
    for on in (1, 7, 24):
        prove(SMALL, Attention(kind, heads, kv_heads, d_head, tokens), Site(on, row=1))


@pytest.mark.parametrize(
    "work",
    [Gemv(1000, 1031), Attention("score", 32, 8, 128, 1023), Attention("context", 32, 8, 128, 1025)],
    ids=str,
)
def test_the_device_itself(work: Gemv | Attention) -> None:
    prove(DEVICE, work, Site(24))
    # Operands and results are rounded to 8 bits.
    prove(DEVICE, work, Site(24), "device", 2**-7)


def test_clocks_of_tiles() -> None:
    n, columns = DEVICE.dram.timing, DEVICE.dram.columns
    opening = 3 * n["nFAW"] + n["nACT"] - 1 + n["nRCDRD"]
    comps = (columns - 1) * n["nCCD_L"]
    # From G_ACT to G_ACT; the precharge comes with the first clock behind READRES.
    tile = opening + comps + n["nTREE"] + 1 + n["nRP"] + 1 - n["nACT"]
    # The first GWRITE in clock 1, G_ACT in the clock after the last one, the end in the clock after the last data.
    begin, end = 1 + (columns - 1) * DEVICE.dram.nBL + 1, n["nCL"] + DEVICE.dram.nBL + 1
    first = begin + opening + comps + n["nTREE"] + end
    for tiles in (1, 2, 11):
        issued = channels(DEVICE).run(lower(DEVICE, Gemv(16 * tiles, 512), Site(1)).stream, 0, False)
        assert issued.cycles == first + (tiles - 1) * tile
        counts = dict(zip(DEVICE.dram.commands, issued.counts.sum(0).tolist(), strict=True))
        assert {k: n for k, n in counts.items() if n} == {
            "GWRITE": 32, "G_ACT": 4 * tiles, "COMP": 32 * tiles, "READRES": tiles,
            **({"PREab": tiles - 1} if tiles > 1 else {}),
        }  # fmt: skip


def test_channels_share_the_work() -> None:
    cycles = [
        channels(DEVICE).run(lower(DEVICE, Gemv(4096, 4096), Site(n)).stream, 0, False).cycles
        for n in (1, 2, 4, 8, 16)
    ]
    assert all(1.8 < a / b < 2.1 for a, b in zip(cycles, cycles[1:], strict=False))


@pytest.mark.parametrize(
    "work", [Gemv(33, 81, 2), Attention("score", 6, 3, 40, 17), Attention("context", 6, 3, 17, 81)], ids=str
)
@pytest.mark.parametrize("on", [1, 2])
def test_every_mistake_shows(on: int, work: Gemv | Attention) -> None:
    assert_mistakes_show(SMALL, work, Site(on))

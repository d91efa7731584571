"""How fast kernels on PIM devices are made and simulated, beside the devices' own simulators.

    python benchmarks/devices.py [--repeat 5]

Each kernel is lowered and run anew in one warm process; the median counts. References are user-CPU seconds of one run
of the same kernel (reference/pim/README.md, +-25 %, a shared 2-core machine); that of the decoder block had its trace
already made. That the clocks are the reference's shows that it is the same work. The last row is `pimloom kernel
block`, the same layer on all channels of a device with refresh and a host.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from pimloom.arch.device import load_device
from pimloom.bench import run_kernel
from pimloom.mapping import cent
from pimloom.sim.bench import channels
from pimloom.system import block
from pimloom.traces.stream import Gemv

SQUARE = Gemv(4096, 4096)


class Reference(NamedTuple):
    """A run of a device's own simulator, and how many times faster a run here shall be (issue 5, figure 5)."""

    name: str
    cpu_s: float
    cycles: int
    wanted: float


class Bench(NamedTuple):
    """What is timed; `go` returns the clocks that it simulates."""

    name: str
    go: Callable[[], int]
    reference: Reference | None = None
    limit_s: float | None = None


def gemv(device: str, of_channels: int, reference: Reference | None, *overrides: str) -> Bench:
    described, _ = load_device(device, overrides)
    return Bench(
        f"GEMV 4096x4096, {device}, {of_channels} channels",
        lambda: run_kernel(described, SQUARE, of_channels).issued.cycles,
        reference,
    )


def cent_block() -> int:
    """As CENT maps it, on 8 channels of each of 4 copies."""
    device, _ = load_device("gddr6-aim")
    stream = cent.block(device, cent.Decoder(4096, 32, 32, 128, 11008), 128, cent.Share(8))
    return channels(device).run(stream, 0, False).cycles


def whole_block() -> int:
    clocks_per_ns = load_device("gddr6-aim")[0].dram.clock_Hz / 1e9
    return round(block("llama2-7b", "gddr6-aim", 128).summary["total_time_ns"] * clocks_per_ns)


def benches() -> list[Bench]:
    return [
        gemv("gddr6-aim", 32, Reference("AiM", 0.086, 8_124, 20)),
        gemv("gddr6-aim", 8, Reference("AiM", 0.40, 30_300, 20)),
        gemv("gddr6-aim", 1, Reference("AiM", 3.2, 238_816, 20)),
        gemv("hbm2-pim", 64, Reference("PIMSimulator", 2.2, 13_166, 100)),
        # As the reference's own request stream has it: all inputs in the buffer at once.
        gemv("attacc-bank", 16, Reference("AttAcc", 1.7, 8_853, 100), "unit.buffer_accesses=256"),
        gemv("newton", 24, None),
        Bench(
            "Llama-2-7B block, CENT's, gddr6-aim, 8 channels", cent_block, Reference("AiM", 7.1, 425_585, 20)
        ),
        Bench("Llama-2-7B block, gddr6-aim, 32 channels", whole_block, limit_s=0.2),
    ]


def measure(go: Callable[[], int], repeat: int) -> tuple[float, float, int]:
    """Return the medians of CPU and wall seconds, and the clocks; a first go compiles the kernels."""
    cycles = go()
    cpu, wall = [], []
    for _ in range(repeat):
        begin, began = time.process_time(), time.perf_counter()
        go()
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - began)
    return statistics.median(cpu), statistics.median(wall), cycles


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="times to measure; the median counts")
    asked = parser.parse_args()
    table = Table(title=f"Plan and run, one core (load {os.getloadavg()[0]:.1f})")
    for column in (
        "what", "CPU ms", "wall ms", "clocks", "reference", "its CPU ms", "its clocks", "ratio", "wanted",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in ("what", "reference") else "right")
    for bench in benches():
        cpu_s, wall_s, cycles = measure(bench.go, asked.repeat)
        theirs, wanted = ["", "", "", ""], ""
        if r := bench.reference:
            theirs = [r.name, f"{r.cpu_s * 1e3:,.0f}", f"{r.cycles:,}", f"{r.cpu_s / cpu_s:.0f}"]
            wanted = f"{r.wanted:.0f}"
        if bench.limit_s:
            wanted = f"{bench.limit_s * 1e3:.0f} ms"
        table.add_row(bench.name, f"{cpu_s * 1e3:.2f}", f"{wall_s * 1e3:.2f}", f"{cycles:,}", *theirs, wanted)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()

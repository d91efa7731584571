"""How fast request traces are simulated, beside Ramulator 2.1 and DRAMsim3, and how much memory a long one takes.

    python benchmarks/memory.py [--requests 1000000] [--repeat 3] [--skip-process]

Requests are in memory; decoding, simulation and the checksum of the commands are timed, refresh is on, commands are not
written. memory_reference.csv is `speed.csv` of the DRAM reference data (1,000,000 requests, user CPU seconds of the
simulation loop, median of 3, one core of a shared server-class x86-64 virtual machine, +-20 %) without the columns that
the rate follows from. The same configurations are run here: those of tests/data/dram/check, with the policies of the
reference's speed runs. That the clocks are nearly the reference's shows that it is the same work; the streams begin
elsewhere and the random addresses are others.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from pimloom.arch.memory import Memory, load_memory
from pimloom.memory import run_requests
from pimloom.selftest import address
from pimloom.traces.requests import Requests

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATIONS = ROOT / "tests/data/dram/check"
REFERENCE = Path(__file__).with_name("memory_reference.csv")
POLICIES = ("dram.refresh.policy=all_bank", "controller.page=open")
OF_ROUND_ROBIN = ("controller.unified=false",)
CHUNK = 1 << 18
ROWS = 128
"""Rows of each bank that random requests go to, and as many others for writes, as in the reference."""

PEAK = """
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command from a small process: Linux counts the memory of the process that starts one as the started one's."""


class Reference(NamedTuple):
    """A row of the reference's speeds."""

    simulator: str
    standard: str
    pattern: str
    cycles: int
    kreq_per_s: float


class Measured(NamedTuple):
    """Seconds of one go, and the clocks that it simulates."""

    cpu_s: float
    wall_s: float
    cycles: int


def references() -> list[Reference]:
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        return [
            Reference(
                r["simulator"], r["standard"], r["pattern"], int(r["cycles"]), float(r["kreq_per_s"])
            )  # fmt: skip
            for r in csv.DictReader(file)
        ]


def memory_of(reference: Reference) -> Memory:
    """The configuration that the reference was run with."""
    path = next(CONFIGURATIONS.glob(f"{reference.simulator}_{reference.standard}_*/config.yaml"))
    more = OF_ROUND_ROBIN if reference.simulator == "dramsim3" else ()
    return load_memory(str(path), (*POLICIES, *more))[0]


def requests_of(memory: Memory, pattern: str, n: int) -> Requests:
    """Requests that all may be offered at once."""
    dram = memory.dram
    now = np.zeros(n, np.int64)
    if pattern == "stream_read":
        return Requests(now, now, np.arange(n) * dram.access_B % memory.capacity_B)
    rng = np.random.default_rng(1)
    write = (rng.random(n) < 1 / 3 if pattern == "random_rw21" else now).astype(np.int64)
    bank, row, column = (rng.integers(0, size, n) for size in (dram.banks, ROWS, dram.columns))
    return Requests(now, write, address(memory, bank, row + ROWS * write, column))


def pieces(requests: Requests) -> Iterator[Requests]:
    """The requests as a file would give them."""
    for begin in range(0, len(requests.cycle), CHUNK):
        yield Requests(*(field[begin : begin + CHUNK] for field in requests))


def measure(memory: Memory, requests: Requests, repeat: int) -> Measured:
    """Return the medians of several goes."""
    cpu, wall = [], []
    for _ in range(repeat):
        begin, began = time.process_time(), time.perf_counter()
        result = run_requests(memory, pieces(requests))
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - began)
    return Measured(statistics.median(cpu), statistics.median(wall), result["cycles"])


def whole_process(n: int) -> tuple[float, float]:
    """Return seconds and peak MB of `pimloom dram` on a gzip file of n random reads, from start to end of Python."""
    memory = load_memory("ddr4_3200")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.txt.gz"
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.write("cycle,op,address\n")
            for piece in pieces(requests_of(memory, "random_read", n)):
                file.writelines(f"0,R,{where}\n" for where in piece.address.tolist())
        command = [sys.executable, "-m", "pimloom", "dram", "ddr4_3200", str(path), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command], cwd=ROOT, capture_output=True, text=True, check=True
        )  # fmt: skip
    elapsed, peak_kB = done.stdout.split()
    return float(elapsed), int(peak_kB) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="times to measure; the median counts")
    parser.add_argument(
        "--skip-process", action="store_true", help="not the 10 M requests through the command"
    )
    asked = parser.parse_args()
    n = asked.requests
    table = Table(title=f"{n:,} requests, refresh on, one core (load {os.getloadavg()[0]:.1f})")
    for column in (
        "simulator", "standard", "pattern", "CPU s", "wall s", "requests/s", "reference", "ratio", "clocks",
        "of the reference's",
    ):  # fmt: skip
        table.add_column(
            column, justify="left" if column in ("simulator", "standard", "pattern") else "right"
        )
    compiled = set()
    for reference in references():
        memory = memory_of(reference)
        requests = requests_of(memory, reference.pattern, n)
        if memory.controller.scheduler not in compiled:
            compiled.add(memory.controller.scheduler)
            run_requests(memory, pieces(requests))
        m = measure(memory, requests, asked.repeat)
        rate = n / m.cpu_s
        table.add_row(
            reference.simulator, reference.standard, reference.pattern, f"{m.cpu_s:.3f}", f"{m.wall_s:.3f}",
            f"{rate / 1e6:.2f} M", f"{reference.kreq_per_s / 1e3:.2f} M",
            f"{rate / reference.kreq_per_s / 1e3:.1f}", f"{m.cycles:,}",
            f"{m.cycles / n / (reference.cycles / 1e6):.3f}",
        )  # fmt: skip
    console = Console(width=140)
    console.print(table)
    if not asked.skip_process:
        elapsed, peak_MB = whole_process(10_000_000)
        console.print(
            f"10 M random reads of DDR4-3200 by `pimloom dram`: {elapsed:.1f} s, {peak_MB:.0f} MB at most"
        )


if __name__ == "__main__":
    main()

"""How fast the simulator is: commands per second of the channel kernel, and one whole process.

    python benchmarks/kernel.py [--repeat 7] [--skip-process]

Counts are exact and the same everywhere; times are the minimum of several, beside the naive twin's in the
same process, so that the ratio says more than the seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pimloom.arch.machine import Arch, load_arch
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.sim.channel import EXTRA_STEPPED, EXTRAS, issue
from pimloom.sim.engine import FIELDS, KernelDevice, NaiveDevice
from pimloom.traces.program import Builder, Program
from pimloom.traces.task import PimTask
from pimloom.workloads.model import load_model
from pimloom.workloads.request import Workload

ROOT = Path(__file__).resolve().parents[1]
WHOLE = "from pimloom.run import simulate; simulate('gpt3-xl', 'pim-gpt', prompt=1, generate=1024)"


@dataclass(frozen=True)
class Case:
    """A program, how it is written, and its commands."""

    name: str
    program: Program

    @property
    def commands(self) -> int:
        return int(self.program.counts().sum())


@dataclass(frozen=True)
class Measured:
    """A case on both twins: issued and stepped commands of one go, seconds of one go."""

    case: Case
    issued: int
    stepped: int
    kernel_s: float
    naive_s: float

    @property
    def rate(self) -> float:
        """Commands of the program a second."""
        return self.case.commands / self.kernel_s


def cases(arch: Arch) -> list[Case]:
    """A matrix of GPT3-XL with its loops and written out, and streams with few runs of equal commands."""
    site = Site(load_model("gpt3-xl")[0], arch, Workload(prompt=1, generate=1024))
    tasks = [t for t in Planner(site).pass_at(500).blocks[1].tasks if isinstance(t, PimTask)]
    matrix = max((p for t in tasks for p in t.programs if p), key=lambda p: int(p.counts().sum()))
    scatter = next(p for t in tasks if "V0" in t.stores for p in t.programs if p)
    return [
        Case("matrix, loops", matrix),
        Case("matrix, written out", matrix.expanded()),
        Case("cache write, written out", scatter.expanded()),
        Case("rows of 4 MACs, written out", rows(arch, 20_000, 4).expanded()),
        Case("single banks, written out", single_banks(arch, 10_000).expanded()),
    ]


def rows(arch: Arch, times: int, macs: int) -> Program:
    """Open a row everywhere, a few MACs, a result, close it."""
    b = Builder(arch.dram.command_names)
    with b.loop(times, rows=1):
        b.add("ACT_AB", row=0)
        b.add("MAC_AB", macs, row=0, column=0, d_column=1)
        b.add("RD_MAC")
        b.add("PREA")
    return b.build()


def single_banks(arch: Arch, times: int) -> Program:
    """Bank after bank: open, read, close; banks are never in the same state."""
    b = Builder(arch.dram.command_names)
    with b.loop(times, rows=1):
        for bank in (0, 5, 10, 15):
            b.add("ACT", bank=bank, row=0)
        for bank in (0, 5, 10, 15):
            b.add("RD", bank=bank, row=0, column=3)
            b.add("PRE", bank=bank)
    return b.build()


def one_go(arch: Arch, program: Program) -> tuple[Callable[[], None], KernelDevice]:
    """Return a function that runs a program once more on one channel, and that channel."""
    device = KernelDevice(arch)
    number = device.library.number(program)
    code, log, end = device.library.code(), device.log[0], [0]

    def go() -> None:
        end[0] = issue(
            device.tables, code, number, 0, 0, end[0], device.state, 0, device.scratch, device.acc[0], log
        )

    return go, device


def seconds(go: Callable[[], None], repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        go()
        best = min(best, time.perf_counter() - begin)
    return best


def counts(arch: Arch, case: Case) -> tuple[int, int]:
    """Return commands issued, refreshes included, and commands stepped, from clock 0 on."""
    go, device = one_go(arch, case.program)
    go()
    books = device.acc[0]
    return int(books[: len(arch.dram.commands)].sum()), int(books[len(books) - EXTRAS + EXTRA_STEPPED])


def measure(arch: Arch, case: Case, repeat: int) -> Measured:
    go, _ = one_go(arch, case.program)
    go()
    issued, stepped = counts(arch, case)
    naive = NaiveDevice(arch)
    part = replace(case, program=beginning(case.program.expanded(), 20_000))
    naive_s = seconds(lambda: void(naive.issue(0, part.program, 0, 0, 0)), 1) / part.commands * case.commands
    return Measured(case, issued, stepped, seconds(go, repeat), naive_s)


def void(_: object) -> None:
    """Take a result that nobody wants."""


def beginning(program: Program, n: int) -> Program:
    """The first n commands of a program that is written out."""
    return Program(program.commands, *(np.ascontiguousarray(getattr(program, f)[:n]) for f in FIELDS))


def whole_process() -> tuple[float, float]:
    """Return seconds and peak MB of GPT3-XL with 1,024 tokens, from the start of Python to its end."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", WHOLE], env=env, check=True)
    elapsed = time.perf_counter() - begin
    return elapsed, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="times to measure; the minimum counts")
    parser.add_argument("--skip-process", action="store_true", help="only the kernel")
    asked = parser.parse_args()
    table = Table(title="Channel kernel, one core, GDDR6 of PIM-GPT with refresh")
    for column in (
        "program",
        "commands",
        "instructions",
        "stepped",
        "ms",
        "commands/s",
        "naive commands/s",
        "ratio",
    ):
        table.add_column(column, justify="left" if column == "program" else "right")
    arch = load_arch("pim-gpt")[0]
    for case in cases(arch):
        m = measure(arch, case, asked.repeat)
        table.add_row(
            case.name, f"{case.commands:,}", f"{len(case.program.code):,}", f"{m.stepped:,}",
            f"{m.kernel_s * 1e3:.3f}", f"{m.rate / 1e6:,.1f} M", f"{case.commands / m.naive_s / 1e3:,.1f} k",
            f"{m.naive_s / m.kernel_s:,.0f}",
        )  # fmt: skip
    console = Console(width=140)
    console.print(table)
    if not asked.skip_process:
        runs = [whole_process() for _ in range(3)]  # the first one may compile
        console.print("GPT3-XL, prompt 1, generate 1,024, whole process:")
        for elapsed, peak_MB in runs:
            console.print(f"  {elapsed:.2f} s, {peak_MB:.0f} MB at most")


if __name__ == "__main__":
    main()

"""How fast sweeps are: 1,000 points with one worker and with all, and again when all is done.

    python benchmarks/sweep.py [--workers 2]

GPT2-small and -medium, 64 tokens, on 500 variants of PIM-GPT. The ratio of all workers to one is what a sweep gains
by them; memory is that of the largest process, times the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AXES = (
    "dram.channels=4,8,12,16,24",
    "asic.clock_Hz=1e8:1e9:log10",
    "pim.lanes=8,16",
    "dram.timing.nRP=8:12:1",
)
SWEEP = [
    "sweep", "gpt2-small,gpt2-medium", "pim-gpt", *(word for axis in AXES for word in ("-s", axis)),
    "-o", "workload.generate=64", "--json", "--quiet",
]  # fmt: skip


def run(folder: Path, workers: int) -> tuple[float, dict[str, int]]:
    """Return the seconds of a whole process and its tally."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "pimloom", *SWEEP, "--out", str(folder), "--workers", str(workers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - begin, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    workers = parser.parse_args().workers
    seconds: dict[int, float] = {}
    for count in dict.fromkeys((1, workers)):
        with tempfile.TemporaryDirectory() as folder:
            seconds[count], tally = run(Path(folder), count)
            again, second = run(Path(folder), count)
        print(f"{count} workers: {tally['run']} points in {seconds[count]:.1f} s", end=", ")
        print(f"{tally['run'] / seconds[count]:.1f} points/s; again: {second['run']} points in {again:.2f} s")
    largest_MB = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"{workers} workers take {seconds[workers] / seconds[1]:.2f} of one's time", end="; ")
    print(f"at most {largest_MB:.0f} MB a process, {largest_MB * (workers + 1):.0f} MB in all")


if __name__ == "__main__":
    main()

"""One kernel's run as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pimloom.reports.quantity import joules, seconds
from pimloom.reports.tables import add_row, new_table

if TYPE_CHECKING:
    from rich.console import Console


REFRESH = {"none": "none, as in the device's own simulator", "all_bank": "all banks, every nREFI"}


def print_kernel(result: dict[str, Any], console: Console) -> None:
    """Print the result of `bench.kernel_result`, or of a stream."""
    main = new_table(f"{result.get('kernel', result.get('stream'))} on {result['device']}", "", "")
    energy = result["energy_pJ"]
    unknown = [name for name, pJ in energy.items() if pJ is None and name != "total_known"]
    total = energy["total_known"]
    rows = []
    if "shape" in result:
        rows = [
            ("shape", ", ".join(f"{name} {n}" for name, n in result["shape"].items())),
            ("channels that hold the operands", str(result["channels"])),
            ("rows of a bank used", str(result["rows_per_bank"])),
        ]
    rows += [
        ("refresh", REFRESH.get(result["refresh"], result["refresh"])),
        ("clocks", f"{result['cycles']:,}"),
        ("time", seconds(result["time_ns"])),
        (
            "energy",
            "n/a" if total is None else joules(total) + (f" without {', '.join(unknown)}" if unknown else ""),
        ),
    ]
    if result.get("cycles_with_refresh") is not None:
        rows.append(("clocks with refresh", f"{result['cycles_with_refresh']:,}"))
    if "largest_relative_error" in result:
        rows.append(
            ("largest difference from NumPy", f"{result['largest_relative_error']:.2g} of the largest value")
        )
    for name, value in rows:
        add_row(main, name, value)
    console.print(main)
    commands = result["commands"]
    table = new_table("Commands", "type", "channel 0", "all channels", right=1)
    for name, n in commands["total"].items():
        add_row(table, name, f"{commands['per_channel'][0].get(name, 0):,}", f"{n:,}")
    console.print(table)

"""A run's summary as tables in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pimloom.reports.baselines import Baseline
from pimloom.reports.quantity import bytes_per_s, joules, percent, seconds, times

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Summary = dict[str, Any]


def headline(summary: Summary) -> list[tuple[str, str]]:
    """Return the main figures as (name, value with unit)."""
    w, tpot = summary["workload"], summary["tpot_ns"]
    inside, pins = summary["bandwidth_inside_Bps"], summary["bandwidth_pins_Bps"]
    hits, factor = (
        summary["row_hit_rate"],
        summary["interface_bytes"]["reduction"]["decoder_payload"]["factor"],
    )
    useful = summary["pim_utilisation_useful"]
    batch = f"{w['batch']} sequences, each " if w["batch"] > 1 else ""
    energy_J = joules(summary["energy_pJ"]["total"])
    memory = summary["memory"]
    return [
        ("workload", f"{batch}{w['prompt']} prompt + {w['generate']} new tokens"),
        ("total time", seconds(summary["total_time_ns"])),
        ("first token after", seconds(summary["ttft_ns"])),
        ("each further token", "n/a" if tpot is None else seconds(tpot)),
        ("speed", f"{summary['tokens_per_s']:.4g} tokens/s"),
        ("energy", f"{energy_J} without {', '.join(summary['energy_left_out'])}"),
        ("average power", f"{summary['average_power_W']:.4g} W"),
        (
            "MAC slots used",
            f"{percent(summary['pim_utilisation'])}, without padding {percent(useful)}",
        ),
        ("bandwidth inside", f"{bytes_per_s(inside['achieved'])} of {bytes_per_s(inside['peak'])}"),
        ("bandwidth of the pins", f"{bytes_per_s(pins['achieved'])} of {bytes_per_s(pins['peak'])}"),
        ("row hits", "n/a" if hits is None else percent(hits, 2)),
        ("interface traffic", f"{times(factor)} less than the weights and caches (decoder payload)"),
        ("rows of a bank used", f"{memory['rows_used']} of {memory['rows_total']}"),
        ("padding in those rows", f"{memory['wasted_B'] / 2**20:.4g} MiB"),
    ]


MOST_POINTS = 24
"""So many points of a sweep are printed; its table has all."""


def print_summary(summary: Summary, console: Console, baselines: Sequence[Baseline] = ()) -> None:
    """Print the main figures, what time and energy went into, and the comparison with other processors."""
    from rich.columns import Columns

    main = new_table(f"{summary['model']} on {summary['arch']}", "", "")
    for name, value in headline(summary):
        add_row(main, name, value)
    console.print(main)
    shares = sorted(summary["latency_share"].items(), key=lambda item: -item[1])
    by_operator = new_table("Time and energy by operator", "operator class", "time", "energy", right=1)
    for name, share in shares:
        energy = summary["energy_by_operator_pJ"][name] / summary["energy_pJ"]["total"]
        add_row(by_operator, name, percent(share), percent(energy))
    by_command = new_table("Channel time by command", "waiting for", "share", right=1)
    for name, share in sorted(summary["command_time_share"].items(), key=lambda item: -item[1]):
        add_row(by_command, name.replace("_", " "), percent(share))
    by_command.add_section()
    add_row(by_command, "in refresh", percent(summary["refresh_time_share"]))
    console.print(Columns([by_operator, by_command, _energy_table(summary)], padding=(0, 2)))
    if baselines:
        print_baselines(summary, console, baselines)


def print_baselines(summary: Summary, console: Console, baselines: Sequence[Baseline]) -> None:
    """Print how often faster and more frugal the run is, against what, and what those figures are."""
    table = new_table(
        "The same work elsewhere", "against", "figures", "time", "speedup", "energy", "energy ratio", right=2
    )
    notes = list(dict.fromkeys(b.note for b in baselines))
    for b in baselines:
        mark = f"{b.kind} [{notes.index(b.note) + 1}]"
        ratio = None if b.energy_pJ is None else b.energy_pJ / summary["energy_pJ"]["total"]
        add_row(
            table, b.name.removesuffix(", roofline"), mark, seconds(b.time_ns),
            times(b.time_ns / summary["total_time_ns"]), joules(b.energy_pJ),
            "n/a" if ratio is None else times(ratio),
        )  # fmt: skip
    console.print(table)
    for i, note in enumerate(notes, start=1):
        console.print(f"[{i}] {note}", markup=False, highlight=False, style="dim")


def print_points(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], console: Console) -> None:
    """Print the main figures of a sweep's points, by models, machines and the values of `keys`."""
    names = [*(name for name in ("model", "arch") if len({row[name] for row in rows}) > 1), *keys]
    last = [name.rpartition(".")[2] for name in names]
    headings = [word if last.count(word) == 1 else name for name, word in zip(names, last, strict=True)]
    table = new_table("", *headings, "time", "tokens/s", "energy/token", "power", right=len(names))
    for row in rows[:MOST_POINTS]:
        figures = ("failed",) if row["error"] else (
            seconds(row["total_time_ns"]), _plain(float(f"{row['tokens_per_s']:.4g}")),
            joules(row["energy_per_token_pJ"]), f"{row['average_power_W']:.4g} W",
        )  # fmt: skip
        add_row(table, *(_plain(row[name]) for name in names), *figures)
    console.print(table)


def _plain(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if is_number else value if isinstance(value, str) else json.dumps(value)


def _energy_table(summary: Summary) -> Table:
    energies = summary["energy_pJ"]
    known = {name: pJ for name, pJ in energies.items() if pJ is not None and name != "total"}
    table = new_table("Energy", "component", "whole system", "share", right=1)
    for name, pJ in sorted(known.items(), key=lambda item: -item[1]):
        add_row(table, name.replace("_", " "), joules(pJ), percent(pJ / energies["total"]))
    for name, pJ in energies.items():
        if pJ is None:
            add_row(table, name.replace("_", " "), "n/a", "n/a")
    table.add_section()
    add_row(table, "total", joules(energies["total"]), "")
    return table


def new_table(title: str, *columns: str, right: int | None = None) -> Table:
    """Return an empty table; columns from number `right` on hold numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if right is not None and i >= right else "left")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row whose cells are shown as they are: names from outside may look like rich's markup."""
    table.add_row(*map(_text, cells))


def _text(words: str) -> Text:
    from rich.text import Text

    return Text(words)

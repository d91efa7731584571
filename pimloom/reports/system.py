"""The summary of a run on a system, and several of them side by side: tables and one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pimloom.reports.plots import STYLE
from pimloom.reports.quantity import joules, percent, seconds, times
from pimloom.reports.sweep_plots import UNDATED
from pimloom.reports.tables import add_row, new_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

Summary = dict[str, Any]
CAUSES = ("compute", "row_switching", "mode_switching", "transfer", "refresh", "host", "link")
"""What time goes into, in the order of tables and bars."""
COLORS = dict(
    zip(CAUSES, ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#595959", "#009E73"), strict=True)
)
"""Okabe and Ito's."""
HATCHES = dict(zip(CAUSES, ("", "////", "xxxx", "....", "\\\\\\\\", "", "----"), strict=True))


def print_system(summary: Summary, console: Console) -> None:
    """Print the main figures of a run on a system, and what its time went into."""
    w, tpot = summary["workload"], summary["tpot_ns"]
    main = new_table(f"{summary['model']} on {summary['arch']}{_twin(summary)}", "", "")
    batch = f"{w['batch']} sequences, each " if w["batch"] > 1 else ""
    for name, value in (
        ("workload", f"{batch}{w['prompt']} prompt + {w['generate']} new tokens"),
        ("total time", seconds(summary["total_time_ns"])),
        ("first token after", seconds(summary["ttft_ns"])),
        ("each further token", "n/a" if tpot is None else seconds(tpot)),
        (
            "speed",
            f"{summary['tokens_per_s']:.4g} tokens/s, {summary['throughput_tokens_per_s']:.4g} with all stages busy",
        ),
        ("energy", _energy(summary)),
        ("MAC slots used", _percent(summary["pim_utilisation"])),
        ("rows of a bank used", f"{summary['memory']['rows_used']} of {summary['memory']['rows_total']}"),
    ):
        add_row(main, name, value)
    console.print(main)
    shares = new_table("Where the time goes", "", "share", right=1)
    for name in CAUSES:
        add_row(shares, name.replace("_", " "), percent(summary["time_share"][name]))
    by_operator = new_table("Time by operator", "operator class", "share", right=1)
    for name, share in sorted(summary["latency_share"].items(), key=lambda item: -item[1]):
        add_row(by_operator, name, percent(share))
    from rich.columns import Columns

    console.print(Columns([shares, by_operator], padding=(0, 2)))


def _twin(summary: Summary) -> str:
    return "" if summary.get("pim", True) else ", without its PIM units"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else percent(value)


def _energy(summary: Summary) -> str:
    total, left_out = summary["energy_pJ"]["total"], summary["energy_left_out"]
    if total is None:
        return f"n/a: no energy is known of {', '.join(left_out)}"
    return joules(total) + (f" without {', '.join(left_out)}" if left_out else "")


def comparison_row(summary: Summary) -> dict[str, Any]:
    """Return one line of a comparison, with the same keys for every kind of machine."""
    tokens = summary["workload"]["batch"] * summary["workload"]["generate"]
    total_pJ = summary["energy_pJ"]["total"]
    return {
        "arch": summary["arch"],
        "pim": summary.get("pim", True),
        "total_time_ns": summary["total_time_ns"],
        "ttft_ns": summary["ttft_ns"],
        "tpot_ns": summary["tpot_ns"],
        "tokens_per_s": summary["tokens_per_s"],
        "energy_per_token_pJ": None if total_pJ is None else total_pJ / tokens,
        "energy_left_out": list(summary["energy_left_out"]),
        "pim_utilisation": summary["pim_utilisation"],
        "time_share": time_share(summary),
    }


def time_share(summary: Summary) -> dict[str, float]:
    """Return the shares of time by `CAUSES`, of a system or of a machine of the kind `arch`."""
    if "time_share" in summary:
        return dict(summary["time_share"])
    share = summary["command_time_share"]
    return {
        "compute": share["mac_streaming"],
        # A MAC waits beyond its turn mostly for its row to open.
        "row_switching": share["row_switching"] + share["mac_stalls"],
        "mode_switching": 0.0,
        "transfer": sum(
            share[k] for k in ("transfer_in", "transfer_out", "cache_and_table_access", "data_tail")
        ),
        "refresh": share["refresh"],
        "host": share["waiting"],
        "link": 0.0,
    }


def print_comparison(rows: Sequence[Summary], console: Console) -> None:
    """Print a comparison: one line a machine, and below it what its time went into."""
    twins = {row["arch"]: row for row in rows if not row["pim"]}
    main = new_table(
        "", "machine", "time", "each token", "tokens/s", "energy/token", "MAC slots", "over its twin", right=1
    )
    for row in rows:
        twin = twins.get(row["arch"])
        speedup = times(twin["total_time_ns"] / row["total_time_ns"]) if twin and row["pim"] else ""
        energy = row["energy_per_token_pJ"]
        mark = "*" if energy is not None and row["energy_left_out"] else ""
        add_row(
            main, _named(row), seconds(row["total_time_ns"]),
            "n/a" if row["tpot_ns"] is None else seconds(row["tpot_ns"]), f"{row['tokens_per_s']:.4g}",
            "n/a" if energy is None else joules(energy) + mark, _percent(row["pim_utilisation"]), speedup,
        )  # fmt: skip
    console.print(main)
    shares = new_table(
        "Where the time goes", "machine", *(name.replace("_", " ") for name in CAUSES), right=1
    )
    for row in rows:
        add_row(shares, _named(row), *(percent(row["time_share"][name]) for name in CAUSES))
    console.print(shares)
    if any(row["energy_left_out"] for row in rows):
        console.print("* without what the machine's result names as left out", style="dim")


def _named(row: Summary) -> str:
    return f"{row['arch']}{'' if row['pim'] else ' (no PIM)'}"


def plot_comparison(rows: Sequence[Summary], title: str, path: Path) -> None:
    """Draw time and energy of a token on every machine, and the shares of time, one below the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [_named(row) for row in rows]
    tokens_ms = [1e3 / row["tokens_per_s"] for row in rows]
    energies = [row["energy_per_token_pJ"] for row in rows]
    places = range(len(rows))
    with mpl.rc_context(STYLE):
        figure, (above, middle, below) = plt.subplots(
            3, 1, figsize=(4.6, 1.9 + 0.6 * len(rows)), layout="constrained"
        )
        energies_mJ = [None if pJ is None else pJ * 1e-9 for pJ in energies]
        for axes, values, color, label in (
            (above, tokens_ms, COLORS["compute"], "time per token (ms)"),
            (middle, energies_mJ, COLORS["link"], "known energy per token (mJ)"),
        ):
            shown = [value or 0.0 for value in values]
            bars = axes.barh(places, shown, color=color)
            for bar, row, value in zip(bars, rows, values, strict=True):
                bar.set_alpha(1.0 if row["pim"] else 0.45)
                text = " n/a" if value is None else f" {float(f'{value:.3g}'):g}"
                if axes is above and row["pim_utilisation"] is not None:
                    text += f" ({_percent(row['pim_utilisation'])} of MAC slots)"
                if axes is middle and value is not None and row["energy_left_out"]:
                    # Bars of sums that lack parts are open, for they cannot be held against whole ones.
                    bar.set(hatch="////", facecolor="white", edgecolor=color)
                    text += " and more"
                axes.annotate(
                    text, (value or 0.0, bar.get_y() + bar.get_height() / 2), va="center", fontsize=7
                )
            axes.set(xlabel=label, xlim=(0, 1.4 * max([*shown, 1e-12])))
        above.set_title(title)
        left = [0.0] * len(rows)
        for cause in CAUSES:
            widths = [100 * row["time_share"][cause] for row in rows]
            if any(widths):
                below.barh(
                    places, widths, left=left, color=COLORS[cause], hatch=HATCHES[cause],
                    edgecolor="white", linewidth=0.3, label=cause.replace("_", " "),
                )  # fmt: skip
            left = [a + b for a, b in zip(left, widths, strict=True)]
        below.set(xlabel="share of time (%)", xlim=(0, 100))
        figure.legend(*below.get_legend_handles_labels(), ncols=4, loc="outside lower center", fontsize=7)
        for axes in (above, middle, below):
            axes.set_yticks(places, names)
            axes.invert_yaxis()
        figure.savefig(path, metadata={UNDATED[path.suffix.removeprefix(".")]: None})
        plt.close(figure)

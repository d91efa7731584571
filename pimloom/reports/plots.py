"""Figures of a run, one function each: a summary in, matplotlib Axes out.

One paper column wide; colours of Okabe and Ito (jfly.uni-koeln.de/color), which colour-blind readers tell apart,
and every bar carries its value, so that nothing is lost in grey. matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimloom.reports.baselines import Baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = dict[str, Any]

COLUMN_INCH = 3.5
"""Width of a column in the two-column layouts of IEEE and ACM."""
BAR_INCH = 0.205
BLUE, ORANGE, GREEN, VERMILLION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#595959"
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}

LABELS = {
    "embedding": "embedding", "parameters": "read parameters", "norm": "layer norm", "qkv": "Q, K, V",
    "score": "q·Kᵀ", "kv_write": "write KV cache", "softmax": "softmax", "context": "p·V",
    "projection": "projection", "residual": "residual", "ffn1": "FFN 1", "activation": "activation",
    "ffn2": "FFN 2", "lm_head": "LM head", "dram_activate": "DRAM rows", "dram_read": "DRAM reads",
    "dram_write": "DRAM writes", "dram_mac_read": "DRAM reads by MAC", "dram_refresh": "DRAM refresh",
    "dram_standby": "DRAM standby", "mac_units": "MAC units", "buffer": "input buffers", "io": "I/O pins",
    "asic": "ASIC", "link": "link", "asic_sram": "ASIC SRAM",
}  # fmt: skip
"""Operator class or component -> how a figure calls it; others go by their own name."""


@dataclass(frozen=True)
class Kind:
    """Bars of one kind share a look; the hatch tells kinds apart in grey."""

    label: str
    color: str
    hatch: str
    members: tuple[str, ...]


OPERATOR_KINDS = (
    Kind(
        "products in the banks", BLUE, "",
        ("qkv", "score", "context", "projection", "ffn1", "ffn2", "lm_head"),
    ),
    Kind("memory access", ORANGE, "////", ("kv_write", "parameters", "embedding")),
    Kind("ASIC", GREEN, "....", ("norm", "softmax", "activation", "residual")),
)  # fmt: skip
ENERGY_KINDS = (
    Kind(
        "DRAM", BLUE, "",
        ("dram_activate", "dram_read", "dram_write", "dram_mac_read", "dram_refresh", "dram_standby"),
    ),
    Kind("PIM logic", VERMILLION, "\\\\\\\\", ("mac_units", "buffer")),
    Kind("I/O", ORANGE, "////", ("io", "link")),
    Kind("ASIC", GREEN, "....", ("asic", "asic_sram")),
)  # fmt: skip


def style() -> AbstractContextManager[None]:
    """Return a context in which figures look as they do in this package's own files."""
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def latency(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw the time of every pass over its token's position."""
    times_ns: list[float] = summary["time_per_token_ns"]
    unit, scale = _time_unit(max(times_ns))
    y, x = [t * scale for t in times_ns], range(len(times_ns))
    prompt = summary["workload"]["prompt"]
    with style():
        ax = _axes(ax, 2.1)
        few = len(y) <= 24  # noqa: PLR2004
        ax.plot(x, y, color=BLUE, linewidth=1.3, marker="o" if few else None, markersize=3, clip_on=False)
        ax.fill_between(x, y, color=BLUE, alpha=0.12, linewidth=0)
        if 1 < prompt <= len(y):
            ax.axvline(prompt - 1.5, color=GREY, linewidth=0.7, linestyle="--")
            ax.annotate("prompt ", (prompt - 1.5, 0.04), xycoords=("data", "axes fraction"), ha="right")
            ax.annotate(" generation", (prompt - 1.5, 0.04), xycoords=("data", "axes fraction"), ha="left")
        for i, side in ((0, "left"), (len(y) - 1, "right"))[: len(y)]:
            ax.annotate(
                f"{y[i]:.3g} {unit}", (i, y[i]), xytext=(0, 5), textcoords="offset points", ha=side
            )
        ax.set_xlim(0, max(len(y) - 1, 1))
        ax.set_ylim(0, max(y) * 1.18)
        ax.set_xlabel("position of the token")
        ax.set_ylabel(f"time per token ({unit})")
        ax.set_title(_title(summary))
        ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def latency_share(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw each operator class's share of the total time."""
    ax = _shares(summary["latency_share"], OPERATOR_KINDS, "share of the total time (%)", ax)
    ax.set_title(f"{_title(summary)}: {_time(summary['total_time_ns'])}")
    return ax


def energy_share(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw each component's share of the total energy; what is unknown is named, not drawn."""
    energies, total_pJ = summary["energy_pJ"], summary["energy_pJ"]["total"]
    shares = {name: pJ / total_pJ for name, pJ in energies.items() if pJ is not None and name != "total"}
    ax = _shares(shares, ENERGY_KINDS, "share of the energy (%)", ax)
    ax.set_title(f"{_title(summary)}: {_energy(total_pJ)}, {summary['average_power_W']:.3g} W")
    unknown = [LABELS.get(name, name) for name, pJ in energies.items() if pJ is None]
    if unknown:
        ax.annotate(
            f"n/a: {', '.join(unknown)}", (0.99, 0.03), xycoords="axes fraction", ha="right", va="bottom",
            fontsize=7, color=GREY,
        )  # fmt: skip
    return ax


def speedup(summary: Summary, baselines: Sequence[Baseline], ax: Axes | None = None) -> Axes:
    """Draw how many times longer the same work takes elsewhere; every bar says against what."""
    ratios = [(b, b.time_ns / summary["total_time_ns"]) for b in baselines]
    return _ratios(summary, ratios, "speedup over", ax)


def energy_ratio(summary: Summary, baselines: Sequence[Baseline], ax: Axes | None = None) -> Axes:
    """Draw how many times more energy the same work takes elsewhere, where that is known."""
    total_pJ = summary["energy_pJ"]["total"]
    ratios = [(b, b.energy_pJ / total_pJ) for b in baselines if b.energy_pJ is not None]
    return _ratios(summary, ratios, "energy saved against", ax)


@dataclass(frozen=True)
class Plots:
    """The figures of one run; each method takes Axes to draw on, or makes some, and returns them."""

    summary: Summary
    baselines: Sequence[Baseline]

    def latency(self, ax: Axes | None = None) -> Axes:
        """Draw the time of every pass over its token's position."""
        return latency(self.summary, ax)

    def latency_share(self, ax: Axes | None = None) -> Axes:
        """Draw each operator class's share of the total time."""
        return latency_share(self.summary, ax)

    def energy_share(self, ax: Axes | None = None) -> Axes:
        """Draw each component's share of the total energy."""
        return energy_share(self.summary, ax)

    def speedup(self, ax: Axes | None = None) -> Axes:
        """Draw the speedup over every processor that is known."""
        return speedup(self.summary, self.baselines, ax)

    def energy_ratio(self, ax: Axes | None = None) -> Axes:
        """Draw every known processor's energy over this machine's."""
        return energy_ratio(self.summary, self.baselines, ax)

    def save(self, folder: Path) -> list[Path]:
        """Write every figure as PNG and PDF, the same bytes for the same run, and return the paths."""
        from matplotlib.figure import Figure

        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in ("latency", "latency_share", "energy_share", "speedup", "energy_ratio"):
            with style():
                figure = Figure(figsize=(COLUMN_INCH, 2.1), layout="constrained")
                getattr(self, name)(figure.subplots())
                for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
                    paths.append(folder / f"{name}.{suffix}")
                    figure.savefig(paths[-1], metadata=metadata)
        return paths


def _axes(ax: Axes | None, height_inch: float) -> Axes:
    """Return Axes to draw on: a new figure's, or `ax`, whose figure takes this height if it is alone there."""
    if ax is None:
        from matplotlib import pyplot as plt

        return plt.subplots(figsize=(COLUMN_INCH, height_inch), layout="constrained")[1]
    if ax.figure.axes == [ax]:
        ax.figure.set_figheight(height_inch)  # type: ignore[union-attr]
    return ax


def _shares(shares: dict[str, float], kinds: Sequence[Kind], label: str, ax: Axes | None) -> Axes:
    """Draw sorted horizontal bars, in percent, one look per kind."""
    order = sorted(shares.items(), key=lambda item: item[1])
    with style():
        ax = _axes(ax, 0.75 + BAR_INCH * len(order))
        known = {name: kind for kind in kinds for name in kind.members}
        drawn: dict[str, Any] = {}
        for i, (name, share) in enumerate(order):
            kind = known.get(name, Kind("other", SKY, "", ()))
            (bar,) = ax.barh(
                i, 100 * share, height=0.72, color=kind.color, hatch=kind.hatch, edgecolor="white", linewidth=0
            )
            drawn.setdefault(kind.label, bar)
            ax.annotate(
                f"{100 * share:.1f}" if share >= 0.0005 else "<0.1",  # noqa: PLR2004
                (100 * share, i), xytext=(2, 0), textcoords="offset points", va="center",
            )  # fmt: skip
        ax.set_yticks(range(len(order)), [LABELS.get(name, name) for name, _ in order])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.set_xlim(0, 112 * max(shares.values(), default=1))
        ax.set_xlabel(label)
        labels = [kind.label for kind in kinds if kind.label in drawn] + ["other"] * ("other" in drawn)
        ax.legend([drawn[name] for name in labels], labels, loc="lower right", bbox_to_anchor=(1, 0.1))
    return ax


def _ratios(summary: Summary, ratios: Sequence[tuple[Baseline, float]], label: str, ax: Axes | None) -> Axes:
    """Draw ratios as bars from 1 on a logarithmic axis, so that twice and half are equally far from 1."""
    order = list(reversed(ratios))
    low, high = (f((r for _, r in order), default=1.0) for f in (min, max))
    with style():
        ax = _axes(ax, 0.95 + BAR_INCH * 1.25 * len(order))
        drawn = {}
        for i, (baseline, ratio) in enumerate(order):
            measured = baseline.kind == "measured"
            (bar,) = ax.barh(
                i, ratio - 1, left=1, height=0.66, linewidth=0.8,
                color=BLUE if measured else "white", edgecolor=BLUE, hatch="" if measured else "//////",
            )  # fmt: skip
            drawn.setdefault(baseline.kind, bar)
            right = ratio >= 1
            ax.annotate(
                f"{ratio:.3g}×", (ratio, i), xytext=(3 if right else -3, 0), textcoords="offset points",
                ha="left" if right else "right", va="center",
            )  # fmt: skip
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xlim(min(low / 2.2, 0.8), max(high * 2.2, 1.25))
        ax.set_yticks(range(len(order)), [b.name.removesuffix(", roofline") for b, _ in order])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        ax.set_xlabel(f"{label} … (log scale)")
        ax.set_title(_title(summary))
        texts = {"measured": "measured", "roofline": "data-sheet roofline, not measured"}
        ax.legend(
            list(drawn.values()), [texts[kind] for kind in drawn], loc="upper center",
            bbox_to_anchor=(0.35, -0.28), ncols=2,
        )  # fmt: skip
    return ax


def _title(summary: Summary) -> str:
    workload = summary["workload"]
    batch = f", batch {workload['batch']}" if workload["batch"] > 1 else ""
    return f"{summary['model']} on {summary['arch']}, {workload['prompt']}+{workload['generate']} tokens{batch}"


def _time_unit(ns: float) -> tuple[str, float]:
    """Return a unit in which `ns` is at least 1, and the factor that leads to it."""
    steps = ((1e3, "ns", 1.0), (1e6, "µs", 1e-3), (1e9, "ms", 1e-6), (inf, "s", 1e-9))
    return next((unit, factor) for limit, unit, factor in steps if ns < limit)


def _time(ns: float) -> str:
    unit, factor = _time_unit(ns)
    return f"{ns * factor:.4g} {unit}"


def _energy(pJ: float) -> str:
    steps = ((1e3, "pJ", 1.0), (1e6, "nJ", 1e-3), (1e9, "µJ", 1e-6), (1e12, "mJ", 1e-9), (inf, "J", 1e-12))
    unit, factor = next((unit, factor) for limit, unit, factor in steps if pJ < limit)
    return f"{pJ * factor:.4g} {unit}"

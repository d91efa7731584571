"""Figures of a run, one function each: a summary in, matplotlib Axes out.

One paper column wide. The colours are Okabe and Ito's (jfly.uni-koeln.de/color), which colour-blind readers
can tell apart; hatches do so in grey, and every bar carries its value. matplotlib is imported when needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimloom.reports.baselines import Baseline
from pimloom.reports.quantity import joules, percent, scale, seconds, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = dict[str, Any]

NAMES = ("latency", "latency_share", "energy_by_operator", "energy_share", "speedup", "energy_ratio")
"""Every figure: a function here, a method of `Plots`, and two files."""
SUFFIXES = ("png", "pdf")
COLUMN_INCH = 3.5
"""Width of a column in the two-column layouts of IEEE and ACM."""
BAR_INCH = 0.2
FEW = 24
"""Up to so many passes each gets a marker."""
BLUE, ORANGE, GREEN, VERMILLION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#595959"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
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
    Kind("ASIC", GREEN, "....", ("norm", "rotary", "softmax", "activation", "residual")),
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
    from matplotlib.ticker import MaxNLocator

    times_ns: list[float] = summary["time_per_token_ns"]
    unit, factor = scale(max(times_ns), ("ns", "µs", "ms", "s"))
    y, x = [t * factor for t in times_ns], range(len(times_ns))
    prompt = summary["workload"]["prompt"]
    with style():
        ax = _axes(ax, 2.2)
        marker = "o" if len(y) <= FEW else None
        ax.plot(x, y, color=BLUE, linewidth=1.3, marker=marker, markersize=3, clip_on=False)
        ax.fill_between(x, y, color=BLUE, alpha=0.12, linewidth=0)
        if 1 < prompt < len(y):
            ax.axvline(prompt - 1.5, color=GREY, linewidth=0.7, linestyle="--")
            for text, side in (("prompt ", "right"), (" generation", "left")):
                at = (prompt - 1.5, 0.04)
                ax.annotate(text, at, xycoords=("data", "axes fraction"), ha=side, color=GREY)
        for i, dx, side in ((0, 4, "left"), (len(y) - 1, 0, "right"))[: len(y)]:
            label = f"{y[i]:.3g} {unit}"
            ax.annotate(label, (i, y[i]), xytext=(dx, 5), textcoords="offset points", ha=side)
        ax.set_xlim(0, max(len(y) - 1, 1))
        ax.set_ylim(0, max(y) * 1.18)
        ax.set_xlabel("position of the token")
        ax.set_ylabel(f"time per token ({unit})")
        ax.set_title(_title(summary))
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return ax


def latency_share(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw each operator class's share of the total time."""
    label = f"share of {seconds(summary['total_time_ns'])} (%)"
    return _shares(summary, summary["latency_share"], OPERATOR_KINDS, label, ax)


def energy_by_operator(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw each operator class's share of the total energy."""
    total_pJ = summary["energy_pJ"]["total"]
    shares = {group: pJ / total_pJ for group, pJ in summary["energy_by_operator_pJ"].items()}
    return _shares(summary, shares, OPERATOR_KINDS, f"share of {joules(total_pJ)} (%)", ax)


def energy_share(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw each component's share of the total energy; what is unknown is named, not drawn."""
    energies, total_pJ = summary["energy_pJ"], summary["energy_pJ"]["total"]
    shares = {name: pJ / total_pJ for name, pJ in energies.items() if pJ is not None and name != "total"}
    label = f"share of {joules(total_pJ)} (%); {summary['average_power_W']:.3g} W on average"
    ax = _shares(summary, shares, ENERGY_KINDS, label, ax)
    unknown = [LABELS.get(name, name) for name, pJ in energies.items() if pJ is None]
    if unknown:
        ax.annotate(
            f"not included: {', '.join(unknown)}", (0.99, 0.02), xycoords="axes fraction", ha="right",
            va="bottom", fontsize=7, color=GREY,
        )  # fmt: skip
    return ax


def speedup(summary: Summary, baselines: Sequence[Baseline], ax: Axes | None = None) -> Axes:
    """Draw how many times longer the same work takes elsewhere; every bar says against what."""
    ratios = [(b, b.time_ns / summary["total_time_ns"]) for b in baselines]
    headings = {"measured": "measured", "roofline": "data-sheet roofline"}
    return _ratios(summary, ratios, headings, "speedup over …", ax)


def energy_ratio(summary: Summary, baselines: Sequence[Baseline], ax: Axes | None = None) -> Axes:
    """Draw how many times more energy the same work takes elsewhere, where that is known."""
    total_pJ = summary["energy_pJ"]["total"]
    ratios = [(b, b.energy_pJ / total_pJ) for b in baselines if b.energy_pJ is not None]
    headings = {"measured": "measured, whole board", "roofline": "roofline at full TDP"}
    return _ratios(summary, ratios, headings, "energy saving over …", ax)


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

    def energy_by_operator(self, ax: Axes | None = None) -> Axes:
        """Draw each operator class's share of the total energy."""
        return energy_by_operator(self.summary, ax)

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
        for name in NAMES:
            with style():
                figure = Figure(figsize=(COLUMN_INCH, 2.1), layout="constrained")
                getattr(self, name)(figure.subplots())
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # the layout holds; it is the slow part of saving
                for suffix, metadata in zip(
                    SUFFIXES, ({"Software": None}, {"CreationDate": None}), strict=True
                ):
                    paths.append(folder / f"{name}.{suffix}")
                    figure.savefig(paths[-1], metadata=metadata)
        return paths


def _axes(ax: Axes | None, height_inch: float) -> Axes:
    """Return Axes to draw on: new ones, or `ax`, which gets this height if its figure is its own."""
    if ax is None:
        from matplotlib import pyplot as plt

        return plt.subplots(figsize=(COLUMN_INCH, height_inch), layout="constrained")[1]
    if _alone(ax):
        ax.figure.set_figheight(height_inch)  # type: ignore[union-attr]
    return ax


def _alone(ax: Axes) -> bool:
    return ax.figure.axes == [ax]


def _shares(
    summary: Summary, shares: dict[str, float], kinds: Sequence[Kind], label: str, ax: Axes | None
) -> Axes:
    """Draw sorted horizontal bars, in percent, one look per kind."""
    order = sorted(shares.items(), key=lambda item: item[1])
    known = {name: kind for kind in kinds for name in kind.members}
    other = Kind("other", SKY, "", ())
    with style():
        ax = _axes(ax, 1.1 + BAR_INCH * len(order))
        drawn: dict[Kind, Any] = {}
        for i, (name, share) in enumerate(order):
            kind = known.get(name, other)
            look: dict[str, Any] = {"color": kind.color, "hatch": kind.hatch, "edgecolor": "white"}
            (bar,) = ax.barh(i, 100 * share, height=0.72, linewidth=0, **look)
            drawn.setdefault(kind, bar)
            _beside(ax, percent(share).removesuffix(" %"), 100 * share, i)
        ax.set_yticks(range(len(order)), [LABELS.get(name, name) for name, _ in order])
        ax.set_xlim(0, 112 * max(shares.values()))
        ax.set_xlabel(label)
        ax.set_title(_title(summary))
        _bare_left(ax, len(order))
        shown = [kind for kind in (*kinds, other) if kind in drawn]
        handles, labels = [drawn[kind] for kind in shown], [kind.label for kind in shown]
        if _alone(ax):
            ax.figure.legend(handles, labels, loc="outside lower center", ncols=len(shown))
        else:
            ax.legend(handles, labels, loc="lower right")
    return ax


def _ratios(
    summary: Summary, ratios: Sequence[tuple[Baseline, float]], headings: dict[str, str], label: str,
    ax: Axes | None,
) -> Axes:  # fmt: skip
    """Draw ratios as bars from 1 on a logarithmic axis, so that twice and half are equally far from 1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    rows: list[tuple[str, tuple[Baseline, float] | None]] = []  # from top to bottom; None = a heading
    for kind, heading in headings.items():
        inside = [(b.name.removesuffix(", roofline"), (b, ratio)) for b, ratio in ratios if b.kind == kind]
        rows += [(heading, None), *inside] if inside else []
    low, high = (f((ratio for _, ratio in ratios), default=1.0) for f in (min, max))
    with style():
        ax = _axes(ax, 1.0 + BAR_INCH * len(rows))
        for y, (_, item) in enumerate(reversed(rows)):
            if item is None:
                continue
            baseline, ratio = item
            solid = baseline.kind == "measured"
            look: dict[str, Any] = (
                {"color": BLUE} if solid else {"color": "white", "edgecolor": BLUE, "hatch": "//////"}
            )
            ax.barh(y, ratio - 1, left=1, height=0.68, linewidth=0.8, **look)
            _beside(ax, times(ratio), max(ratio, 1), y)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xlim(min(low / 1.15, 0.8), max(high * 2.2, 2))
        one_decade = 30
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / min(low, 1) < one_decade else (1,)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
        for text, (_, item) in zip(ax.get_yticklabels(), reversed(rows), strict=True):
            text.set_fontweight("bold" if item is None else "normal")
        ax.set_xlabel(f"{label} (log scale)")
        ax.set_title(_title(summary))
        _bare_left(ax, len(rows))
    return ax


def _beside(ax: Axes, text: str, x: float, y: float) -> None:
    """Write a bar's value to the right of its end."""
    ax.annotate(text, (x, y), xytext=(2.5, -0.3), textcoords="offset points", va="center_baseline")


def _bare_left(ax: Axes, rows: int) -> None:
    """Let the names of horizontal bars stand without axis and ticks."""
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.6, rows - 0.4)


def _title(summary: Summary) -> str:
    workload = summary["workload"]
    tokens = f"{workload['prompt']} prompt + {workload['generate']} new tokens"
    batch = f"{workload['batch']} × ({tokens})" if workload["batch"] > 1 else tokens
    return f"{summary['model']} on {summary['arch']}\n{batch}"

"""A timing diagram of a DRAM: a few commands at their earliest clocks, and the rule that bound each of them.

The clocks come from the rules of the description alone, by the obvious scheduler below; no kernel takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pimloom.arch.dram import Dram, Rule
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.reports.plots import BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCH = 9.5
LABEL_INCH = 1.05
"""Left of the diagram, for the names of the lanes."""
RIGHT_INCH = 0.15
TOP_INCH = 0.42
"""Above it, for the clocks."""
LANE_INCH, ROW_INCH = 0.46, 0.27
"""Heights of a bank's lane and of a row of arrows; the unit of the vertical axis is a lane."""
BOX, DATA = 0.78, 0.5
"""Heights of a command and of a burst, in lanes."""
NARROW_INCH = 0.115
"""The least width of a command, for its name to stand upright in it."""
SHOWN_CLOCKS = {"shared": 76, "row_and_column": 76, "half_clock": 128}
"""About so many clocks are drawn; the rest is cut out where nothing happens."""
SHORTEST_CUT = 6
"""Clocks that remain of a gap at least."""
NAME_PT, RULE_PT, TIME_PT = 7.0, 6.5, 6.2
LIGHT = {SKY, ORANGE}
COLORS = {
    "activate": GREEN,
    "precharge": GREY,
    "read": BLUE,
    "write": VERMILLION,
    "sync": SKY,
    "refresh": ORANGE,
}
LENGTHS = {"activate": "nACT", "read": "nCOL", "write": "nCOL", "precharge": "nPRE"}
"""Timing that holds the clocks of the command bus that a kind of command takes; without it, one."""
NAMES = {
    "channel": "channel", "pseudochannel": "pseudo-channel", "rank": "rank", "stack_id": "stack ID",
    "bankgroup": "bank group", "bank": "bank",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "svg.fonttype": "none",
    "svg.hashsalt": "pimloom",
    "savefig.dpi": 150,
}


class Issue(NamedTuple):
    """A command at its clock; `rule` (empty if none) let it issue `minimum` clocks after issue number `cause`."""

    clock: int
    command: str
    bank: int
    rule: str = ""
    minimum: int = 0
    cause: int = -1


# --- the commands, and when they may issue ----------------------------------------------------------------


def story(dram: Dram) -> list[tuple[str, int]]:
    """Return commands that show a DRAM's rules, each with a flat bank.

    Rows are opened in two bank groups (two banks, where there are none) and in another rank or stack ID; they are
    read, the second twice; then the first is written, closed and opened again.
    """
    single = {
        command.meaning: name
        for name, command in reversed(dram.commands.items())
        if command.target == "bank"
        and command.bank in ("none", "begin", "open")
        or command.meaning == "precharge"
    }
    close = dram.find("precharge", "bank") or single["precharge"]
    opens = [single[m] for m in ("activate", "activate_first", "activate_second") if m in single]
    below = {level: dram.banks // dram.nodes(level) for level in LEVELS}
    first, second = 0, below["bankgroup" if dram.bankgroups > 1 else "bank"]
    far = [below[level] for level, n in (("rank", dram.ranks), ("stack_id", dram.stack_ids)) if n > 1][:1]
    return [
        *((name, bank) for bank in (first, second, *far) for name in opens),
        *((single["read"], bank) for bank in (first, second, second, *far)),
        (single["write"], first),
        (close, first),
        *((name, first) for name in opens),
    ]


def schedule(dram: Dram, steps: Sequence[tuple[str, int]]) -> list[Issue]:
    """Return `steps`, pairs of command and flat bank, in this order and each at its earliest legal clock.

    Commands that start the data clock (LPDDR5) are put in where the standard wants them.
    """
    symbols = dram.symbols({})
    rules = [(name, rule, evaluate(rule.minimum, symbols)) for name, rule in dram.constraints.items()]
    issued: list[Issue] = []
    runs_until = 0
    for command, bank in steps:
        what = dram.commands[command]
        issue = _earliest(dram, rules, issued, command, bank)
        sync = dram.find(f"sync_{what.meaning}", "bank")
        if sync and issue.clock >= runs_until:
            start = _earliest(dram, rules, issued, sync, bank)
            issued.append(start._replace(clock=max(start.clock, issue.clock - 1), rule=""))
            issue = _earliest(dram, rules, issued, command, bank)
        issued.append(issue)
        if what.data != "none":
            runs_until = issue.clock + evaluate(what.duration, symbols) + dram.timing.get("nWCKPST", 0)
    return issued


def _earliest(
    dram: Dram, rules: Sequence[tuple[str, Rule, int]], issued: Sequence[Issue], command: str, bank: int
) -> Issue:
    """Return the command at its first clock behind all that has issued, with the rule that gave the clock."""
    bound = [Issue(0, command, bank)]
    for name, rule, minimum in rules:
        if command not in rule.after or minimum <= 0:
            continue
        for before in rule.before:
            past = [
                i
                for i, x in enumerate(issued)
                if x.command == before and _meets(dram, rule, x, command, bank)
            ]
            if len(past) >= rule.window:
                cause = past[-rule.window]
                bound.append(Issue(issued[cause].clock + minimum, command, bank, name, minimum, cause))
    latest = max(bound, key=lambda issue: (issue.clock, issue.minimum))
    return latest._replace(clock=_on_bus(dram, issued, command, latest.clock))


def _meets(dram: Dram, rule: Rule, past: Issue, command: str, bank: int) -> bool:
    """Whether a rule's level has a node that both commands concern, or siblings where it wants those."""
    targets = [LEVELS.index(dram.commands[name].target) for name in (past.command, command)]
    depth = min(LEVELS.index(rule.level), *targets)
    a, b = (n // (dram.banks // dram.nodes(LEVELS[depth])) for n in (past.bank, bank))
    if not rule.siblings:
        return a == b
    brothers = dram.counts[depth]
    return a != b and a // brothers == b // brothers


def _on_bus(dram: Dram, issued: Sequence[Issue], command: str, clock: int) -> int:
    """Return the first clock from `clock` on that the command bus has for a command, never before an earlier one."""
    if issued:
        last = issued[-1]
        one_bus = dram.command_bus == "shared"
        same = one_bus or dram.commands[last.command].column == dram.commands[command].column
        clock = max(clock, last.clock + same)
    # Clocks are counted from 1 where odd ones are rising edges.
    rising = dram.command_bus == "half_clock" and dram.commands[command].meaning != "precharge"
    return clock + (rising and clock % 2 == 0)


# --- the drawing ------------------------------------------------------------------------------------------


class Arrow(NamedTuple):
    """An arrow below the lanes: from a clock to another, for command number `issue`, after `cause`; -1 = no command."""

    start: int
    end: int
    text: str
    cause: int
    issue: int
    color: str


@dataclass(frozen=True)
class Canvas:
    """Where things are drawn: the clocks at which something happens, their places, and the inches of a unit."""

    ax: Axes
    dram: Dram
    banks: list[int]
    clocks: list[int]
    places: list[float]
    unit_inch: float

    def at(self, clock: float) -> float:
        """Place of a clock on the horizontal axis."""
        return float(np.interp(clock, self.clocks, self.places))

    def lane(self, bank: int) -> float:
        """Middle of a bank's lane."""
        return -self.banks.index(bank) - 0.5

    def span(self, text: str, points: float) -> float:
        """About how much of the horizontal axis a text takes."""
        return len(text) * points * 0.6 / 72 / self.unit_inch


def timing_diagram(dram: Dram) -> Figure:
    """Return the drawing of `story`: a lane for every bank, the data pins, and an arrow for every rule that bound."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    issues = schedule(dram, story(dram))
    symbols = dram.symbols({})
    bursts = {
        i: issue.clock + evaluate(dram.commands[issue.command].duration, symbols) - dram.nBL
        for i, issue in enumerate(issues)
        if dram.commands[issue.command].data != "none"
    }
    lengths = [symbols.get(LENGTHS.get(_kind(dram, issue.command), ""), 1) for issue in issues]
    events = [issue.clock for issue in issues]
    events += [issue.clock + n for issue, n in zip(issues, lengths, strict=True)]
    events += [clock + n for clock in bursts.values() for n in (0, dram.nBL)]
    clocks, places = _axis(events, SHOWN_CLOCKS[dram.command_bus])

    with mpl.rc_context(STYLE):
        figure = Figure()
        ax = figure.add_axes((0, 0, 1, 1))
        unit_inch = (WIDTH_INCH - LABEL_INCH - RIGHT_INCH) / (places[-1] + 1)
        banks = list(dict.fromkeys(issue.bank for issue in issues))
        canvas = Canvas(ax, dram, banks, clocks, places, unit_inch)
        rows = _rows(canvas, _arrows(dram, issues, bursts))
        lanes_inch = LANE_INCH * (len(banks) + 1)
        inside_inch = lanes_inch + ROW_INCH * (len(rows) + 0.3)
        height_inch = TOP_INCH + inside_inch
        figure.set_size_inches(WIDTH_INCH, height_inch)
        ax.set_position(
            (
                LABEL_INCH / WIDTH_INCH,
                0,
                1 - (LABEL_INCH + RIGHT_INCH) / WIDTH_INCH,
                inside_inch / height_inch,
            )
        )
        ax.set_xlim(-0.5, places[-1] + 0.5)
        ax.set_ylim(-inside_inch / LANE_INCH, 0)
        ax.set_axis_off()
        _draw_lanes(canvas)
        for number, (i, start) in enumerate(bursts.items(), 1):
            _draw_burst(canvas, issues[i].command, start, str(number))
        numbers = {i: f" {number}" for number, i in enumerate(bursts, 1)}
        for i, (issue, length) in enumerate(zip(issues, lengths, strict=True)):
            _draw_command(canvas, issue, length, issue.command + numbers.get(i, ""))
        _draw_arrows(canvas, issues, rows)
        _draw_clocks(canvas, [issue.clock for issue in issues])
    return figure


def _kind(dram: Dram, command: str) -> str:
    """Return the kind of a command: the meaning without first or second, a read's or a write's."""
    return dram.commands[command].meaning.partition("_")[0]


def _color(dram: Dram, command: str) -> str:
    return COLORS.get(_kind(dram, command), SKY)


def _axis(events: Sequence[int], shown: int) -> tuple[list[int], list[float]]:
    """Return the clocks at which something happens and where they are drawn; long gaps between them are cut."""
    clocks = sorted(set(events))
    gaps = np.diff(clocks)
    longest = SHORTEST_CUT
    while longest < gaps.max() and np.minimum(gaps, longest + 1).sum() <= shown:
        longest += 1
    # A cut that saves less than it hides would only look odd.
    drawn = np.where(gaps <= longest + 2, gaps, longest)
    return clocks, [0.0, *np.cumsum(drawn, dtype=float).tolist()]


def _arrows(dram: Dram, issues: Sequence[Issue], bursts: Mapping[int, int]) -> list[Arrow]:
    """Return an arrow for each rule that bound a command, and one from the first read and write to their data."""
    arrows = []
    for i, issue in enumerate(issues):
        color = _color(dram, issue.command)
        if issue.rule:
            start = issues[issue.cause].clock
            text = f"{issue.rule}: {equation(dram.constraints[issue.rule].minimum, issue.minimum)}"
            if issue.clock > start + issue.minimum:
                text += ", then a rising edge" if dram.command_bus == "half_clock" else ", then a free bus"
            arrows.append(Arrow(start, issue.clock, text, issue.cause, i, color))
        what = dram.commands[issue.command]
        if i in bursts and all(issues[j].command != issue.command for j in bursts if j < i):
            latency = what.duration.removesuffix("+ nBL").strip()
            text = f"{what.data} latency: {equation(latency, bursts[i] - issue.clock)}"
            arrows.append(Arrow(issue.clock, bursts[i], text, i, -1, color))
    return arrows


def equation(expression: str, value: int, quote: str = "") -> str:
    """Return `expression = value`, or the expression alone where that is the value; quote: to both sides of it."""
    return f"{quote}{expression}{quote}" + (f" = {value}" if expression != str(value) else "")


def _rows(canvas: Canvas, arrows: Sequence[Arrow]) -> list[list[Arrow]]:
    """Return the arrows row by row, so that neither they nor their texts touch."""
    taken: list[list[tuple[float, float]]] = []
    rows: list[list[Arrow]] = []
    for arrow in sorted(arrows, key=lambda arrow: (arrow.start, arrow.end)):
        middle, half = _text_at(canvas, arrow)
        low, high = min(canvas.at(arrow.start), middle - half), max(canvas.at(arrow.end), middle + half)
        gap = 0.06 / canvas.unit_inch
        free = (r for r, spans in enumerate(taken) if all(high + gap < a or low - gap > b for a, b in spans))
        row = next(free, len(rows))
        if row == len(rows):
            rows.append([])
            taken.append([])
        rows[row].append(arrow)
        taken[row].append((low, high))
    return rows


def _text_at(canvas: Canvas, arrow: Arrow) -> tuple[float, float]:
    """Return the middle and half the width of an arrow's text: over the arrow, but within the diagram."""
    half = canvas.span(arrow.text, RULE_PT) / 2
    middle = (canvas.at(arrow.start) + canvas.at(arrow.end)) / 2
    return min(max(middle, half - 0.5), canvas.places[-1] + 0.5 - half), half


def _draw_lanes(canvas: Canvas) -> None:
    """Draw a line for each bank and for the data pins, broken where clocks are cut out."""
    dram, banks, end = canvas.dram, canvas.banks, canvas.places[-1] + 0.5

    def index(bank: int, level: str) -> int:
        return bank // (dram.banks // dram.nodes(level)) % dram.counts[LEVELS.index(level)]

    differ = [level for level in LEVELS[1:] if len({index(bank, level) for bank in banks}) > 1]
    labels = ["\n".join(f"{NAMES[level]} {index(bank, level)}" for level in differ) for bank in banks]
    gaps = zip(np.diff(canvas.clocks), np.diff(canvas.places), canvas.places, strict=False)
    cuts = [place + shown / 2 for clocks, shown, place in gaps if shown < clocks]
    edge, slant = 0.035 / canvas.unit_inch, 0.025 / canvas.unit_inch
    lines: list[tuple[float, float]] = []
    strokes: list[tuple[float, float]] = []
    broken = (np.nan, np.nan)
    for lane, label in enumerate([*labels, "data pins"]):
        y = -lane - 0.5
        canvas.ax.annotate(
            label, (0, y), xycoords=("axes fraction", "data"), xytext=(-7, 0), textcoords="offset points",
            ha="right", va="center", fontsize=7.5, linespacing=1.15,
        )  # fmt: skip
        ends = [-0.5, *(x + side for x in cuts for side in (-edge, edge)), end]
        for a, b in zip(ends[::2], ends[1::2], strict=True):
            lines += [(a, y), (b, y), broken]
        for x in (x + side for x in cuts for side in (-edge, edge)):
            strokes += [(x - slant, y - 0.15), (x + slant, y + 0.15), broken]
    canvas.ax.plot(*zip(*lines, strict=True), color="#C4C4C4", linewidth=0.8, zorder=1)
    if strokes:
        canvas.ax.plot(*zip(*strokes, strict=True), color="#8C8C8C", linewidth=0.8, zorder=1)


def _draw_command(canvas: Canvas, issue: Issue, length: int, name: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    color = _color(canvas.dram, issue.command)
    x, y = canvas.at(issue.clock), canvas.lane(issue.bank)
    width = max(canvas.at(issue.clock + length) - x, NARROW_INCH / canvas.unit_inch)
    corner = 0.02 / canvas.unit_inch
    canvas.ax.add_patch(
        FancyBboxPatch(
            (x, y - BOX / 2), width, BOX, boxstyle=f"round,pad=0,rounding_size={corner}",
            mutation_aspect=canvas.unit_inch / LANE_INCH, facecolor=color, edgecolor="white", linewidth=0.6, zorder=5,
        )
    )  # fmt: skip
    flat = canvas.span(name, NAME_PT) + 0.04 / canvas.unit_inch < width
    # At six points, six capitals are as long as a lane is high.
    size = NAME_PT if flat else min(6.4, 36 / len(name))
    canvas.ax.text(
        x + width / 2, y, name, rotation=0 if flat else 90, ha="center", va="center", fontsize=size,
        color="black" if color in LIGHT else "white", zorder=6,
    )  # fmt: skip


def _draw_burst(canvas: Canvas, command: str, start: int, name: str) -> None:
    """Draw a burst on the data pins, with the number of its command."""
    color = _color(canvas.dram, command)
    y = -len(canvas.banks) - 0.5
    a, b = canvas.at(start), canvas.at(start + canvas.dram.nBL)
    slope = min(0.035 / canvas.unit_inch, (b - a) / 4)
    xs = [a, a + slope, b - slope, b, b - slope, a + slope]
    ys = [y, y + DATA / 2, y + DATA / 2, y, y - DATA / 2, y - DATA / 2]
    canvas.ax.fill(xs, ys, facecolor=color, edgecolor="white", linewidth=0.5, zorder=4)
    canvas.ax.text((a + b) / 2, y, name, ha="center", va="center", fontsize=NAME_PT, color="white", zorder=6)


def _draw_arrows(canvas: Canvas, issues: Sequence[Issue], rows: Sequence[Sequence[Arrow]]) -> None:
    """Draw the arrows below the lanes, and dotted lines from their ends up to the commands and data."""
    ends: dict[float, tuple[float, float]] = {}
    pins = -len(canvas.banks) - 0.5 - DATA / 2
    for row, arrows in enumerate(rows):
        y = -len(canvas.banks) - 1 - (row + 0.85) * ROW_INCH / LANE_INCH
        for arrow in arrows:
            a, b = canvas.at(arrow.start), canvas.at(arrow.end)
            look = {
                "arrowstyle": "-|>,head_length=0.3,head_width=0.12",
                "color": arrow.color,
                "linewidth": 0.9,
            }
            canvas.ax.annotate("", (b, y), (a, y), arrowprops=look | {"shrinkA": 0, "shrinkB": 0}, zorder=4)
            canvas.ax.plot([a, a], [y - 0.1, y + 0.1], color=arrow.color, linewidth=0.9, zorder=4)
            canvas.ax.text(
                _text_at(canvas, arrow)[0], y + 0.12, arrow.text, ha="center", va="bottom", fontsize=RULE_PT,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3}, zorder=3,
            )  # fmt: skip
            for x, i in ((a, arrow.cause), (b, arrow.issue)):
                top = canvas.lane(issues[i].bank) - BOX / 2 if i >= 0 else pins
                old = ends.get(x, (top, y))
                ends[x] = (max(old[0], top), min(old[1], y))
    dots = [point for x, (top, low) in ends.items() for point in ((x, top), (x, low - 0.1), (np.nan, np.nan))]
    canvas.ax.plot(
        *zip(*dots, strict=True), color="#A8A8A8", linewidth=0.5, linestyle=(0, (1, 2)), zorder=1.5
    )


def _draw_clocks(canvas: Canvas, clocks: Sequence[int]) -> None:
    """Write the clock of every command above the lanes, and its time, where there is room."""
    unit = "half CK" if canvas.dram.command_bus == "half_clock" else "clock"
    ns = 1e9 / canvas.dram.clock_Hz
    for name, points, color, size in ((unit, 15, "black", NAME_PT), ("ns", 5, GREY, TIME_PT)):
        above: dict[str, Any] = {
            "textcoords": "offset points",
            "va": "baseline",
            "fontsize": size,
            "color": color,
        }
        canvas.ax.annotate(name, (0, 1), xytext=(-7, points), xycoords="axes fraction", ha="right", **above)
        free = -1.0
        for clock in dict.fromkeys(clocks):
            text = str(clock) if name == unit else f"{(clock - clocks[0]) * ns:.1f}"
            x = canvas.at(clock)
            if x >= free:
                canvas.ax.annotate(
                    text, (x, 1), xytext=(0, points), xycoords=("data", "axes fraction"), **above
                )
                free = x + canvas.span(text, size) + 0.05 / canvas.unit_inch
    ticks = [
        point
        for clock in clocks
        for point in ((canvas.at(clock), 0), (canvas.at(clock), -0.1), (np.nan, np.nan))
    ]
    canvas.ax.plot(*zip(*ticks, strict=True), color="#808080", linewidth=0.6)


def save_diagram(dram: Dram, path: Path) -> None:
    """Write the drawing to a file, of the kind that its suffix says; the same bytes for the same memory."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(
            path.suffix, {"Software": None}
        )
        timing_diagram(dram).savefig(path, metadata=undated)

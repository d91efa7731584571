"""Drawn command logs of matrix-vector products on PIM devices: broadcast of the vector, tail of the inputs, padding.

What is drawn is what a run of the real kernel issued on its first channel. What of it is padding follows from the
kernel's maps, by which it is executed on numbers, too.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.arch.expression import evaluate
from pimloom.mapping.devices import lower
from pimloom.reports.plots import BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION
from pimloom.reports.timing_diagram import LIGHT, NAME_PT, STYLE, TIME_PT
from pimloom.sim.bench import channels
from pimloom.traces.stream import Gemv, Kernel, Site

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

I8 = npt.NDArray[np.int64]

PURPLE = "#8C4A7A"
COLORS = {
    "activate": GREEN, "precharge": GREY, "refresh": ORANGE, "mode": SKY, "mac": PURPLE, "write_buffer": VERMILLION,
    "write_result": VERMILLION, "copy_to_bank": VERMILLION,
}  # fmt: skip
"""By meaning; everything else takes data away and is blue."""
ROWS = {"activate", "precharge", "refresh"}
BRINGS, TAKES = {"write_buffer", "write_result"}, {"read_result", "move_result"}
"""Meanings of commands that a kernel's `feed` and `drain` go with, as far as matrix-vector products have them."""
WORKS = BRINGS | TAKES | {"mac", "copy_to_bank"}
LANES = ("rows", "columns, modes", "data")
DATA = 2
DATA_WHITE = 0.6
"""Share of white in the colour of data, which is otherwise that of their commands."""
STEP_INCH = 0.25
"""In which the length of strips is tried."""
LONGEST_GAP = 40
"""Clocks between two commands of a kind that are drawn as one box at most."""

MOST_INCH, LABEL_INCH, RIGHT_INCH = 8.4, 0.8, 0.12
LANE_INCH, CLOCKS_INCH, PANEL_GAP_INCH = 0.74, 0.34, 0.16
BOX = 0.92
"""Height of a box, in lanes."""
LINE_INCH, CHARACTER_INCH = 0.125, NAME_PT * 0.74 / 72
CLOCK_INCH, MOST_CLOCKS = 0.035, 7
"""Of an interval in which nothing begins or ends so many clocks are drawn at most."""


class Tile(NamedTuple):
    """What a device works on before it needs other inputs or other outputs, in one channel."""

    outputs: int
    inputs: int
    access: int

    @classmethod
    def of(cls, device: Device) -> Tile:
        """Return the tile: outputs of all units at once, inputs that fill the input buffers, and one access of all."""
        unit, dram = device.unit, device.dram
        # Units of AttAcc's bank groups share a dot product; HBM-PIM's have a sum in each of their registers.
        shared = max(1, dram.banks_per_bankgroup // unit.banks_per_unit) if unit.datapath == "mixed" else 1
        sums = unit.result_registers if unit.datapath == "lanes" else 1
        computing = device.units // (dram.ranks if unit.datapath == "lanes" else 1)
        access = device.elements_per_access * shared
        return cls(computing // shared * sums, unit.buffer_accesses * access, access)


class Box(NamedTuple):
    """Commands of a kind, or their data, one after the other: in a lane from a clock to another."""

    lane: int
    start: int
    end: int
    lines: tuple[str, ...]
    color: str


class Scene(NamedTuple):
    """A product that shows something; whole: with the way into and out of the device's modes."""

    name: str
    title: str
    text: str
    work: Gemv
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Played:
    """A scene that has run on one channel of a device; log: i8[n, 6], see `sim.bench.Issued`."""

    scene: Scene
    device: Device
    kernel: Kernel
    log: I8
    cycles: int


def play(device: Device) -> list[Played]:
    """Return the scenes of a device, each run while its channels were idle."""
    tile = Tile.of(device)
    # A block of HBM-PIM is multiplied as a whole.
    short = tile.inputs if device.unit.datapath == "lanes" else min(tile.inputs, 4 * tile.access)
    scenes = (
        Scene(
            "broadcast", "Broadcast",
            f"{tile.outputs} outputs, {short} inputs: one round of all units of a channel, from beginning to end.",
            Gemv(tile.outputs, short), whole=True,
        ),
        Scene(
            "tail", "Tail",
            f"{tile.outputs} outputs, {tile.inputs + 1:,} inputs: one more than the input buffer holds.",
            Gemv(tile.outputs, tile.inputs + 1),
        ),
        Scene(
            "padding", "Padding",
            f"{tile.outputs + 1} outputs, {2 * tile.access - 5} inputs: one output more than the units take at once, "
            "and a last access that is not full.",
            Gemv(tile.outputs + 1, 2 * tile.access - 5),
        ),
    )  # fmt: skip
    return [_play(device, scene) for scene in scenes]


def _play(device: Device, scene: Scene) -> Played:
    kernel = lower(device, scene.work, Site(1))
    issued = channels(device).run(kernel.stream, 0, True)
    assert issued.logs is not None
    return Played(scene, device, kernel, issued.logs[0], issued.cycles)


# --- from commands to boxes -------------------------------------------------------------------------------


def boxes(played: Played) -> list[Box]:
    """Return the boxes of a scene in the order of their beginnings."""
    device, kernel, log = played.device, played.kernel, played.log
    commands = list(device.dram.commands.items())
    symbols = device.dram.symbols({})
    meaning = [command.meaning.partition("_")[0] if command.meaning.startswith("activate_") else command.meaning
               for _, command in commands]  # fmt: skip
    fed, taken = _values(device, kernel, log, BRINGS), _values(device, kernel, log, TAKES)
    used = _used(device, kernel)
    found = []
    for run in _runs(played, meaning):
        first, last = log[run[0]], log[run[-1]]
        name, what = commands[first[1]]
        kind = meaning[first[1]]
        color = COLORS.get(kind, BLUE)
        lines = [name + (f" ×{len(run)}" if len(run) > 1 else "")]
        if first[3] >= 0 and (what.bank == "open" or what.column and what.row):
            lines.append(f"row {first[3]}")
        if kind == "mac":
            macs = len(run) * device.units // (device.dram.ranks if what.lockstep else 1)
            mine = sum(used.get((int(log[i, 2]) % device.unit.banks_per_unit if what.target == "bank" else -1,
                                 int(log[i, 3]), int(log[i, 4])), 0) for i in run)  # fmt: skip
            lines.append(f"{_percent(mine, macs * device.elements_per_access)} used")
        found.append(
            Box(0 if kind in ROWS else 1, int(first[0]), int(last[0]) + 1, tuple(lines), color),
        )
        values = fed if kind in BRINGS else taken if kind in TAKES else None
        if values is not None:
            late = max(0, evaluate(what.duration, symbols) - device.dram.nBL)
            begin, end = int(first[0]) + late, int(last[0]) + late + device.dram.nBL
            letter, idle = ("x", "zeros") if values is fed else ("y", "unused")
            told = _positions(np.concatenate([values[i] for i in run]), letter, idle)
            found.append(Box(DATA, begin, end, told, color))
    return sorted(found, key=lambda box: (box.start, box.lane))


def _runs(played: Played, meaning: Sequence[str]) -> Iterator[list[int]]:
    """Yield the numbers of the commands that one box stands for: of one kind, one row, close to each other."""
    log = played.log
    kinds = [meaning[c] for c in log[:, 1]]
    works = [i for i, kind in enumerate(kinds) if kind in WORKS]
    first, last = (0, len(log) - 1)
    if not played.scene.whole:
        begins = log[next(i for i in works if kinds[i] in BRINGS), 0]
        first, last = int(np.searchsorted(log[:, 0], begins)), works[-1]
    open_runs: dict[bool, list[int]] = {}
    for i in range(first, last + 1):
        lane = kinds[i] in ROWS
        run = open_runs.get(lane)
        if run:
            old = log[run[-1]]
            same_row = kinds[i] == "precharge" or old[3] == log[i, 3]
            if old[1] == log[i, 1] and same_row and log[i, 0] - old[0] <= LONGEST_GAP:
                run.append(i)
                continue
            yield run
        open_runs[lane] = [i]
    yield from open_runs.values()


def _values(device: Device, kernel: Kernel, log: I8, meanings: set[str]) -> dict[int, I8]:
    """Return by number of a command in the log which values it brings or takes, as the kernel's maps have them."""
    is_mine = np.array([c.meaning in meanings for c in device.dram.commands.values()])
    stream = kernel.stream
    here = (stream.command >= 0) & (stream.channels & np.uint64(1) > 0)
    here[here] = is_mine[stream.command[here]]
    maps = (kernel.feed() if meanings is BRINGS else kernel.drain())[0]
    # A controller may change the order of accesses to different nodes.
    waiting: dict[tuple[int, int, int], deque[I8]] = defaultdict(deque)
    number = 0
    for n in np.flatnonzero(here):
        for k in range(stream.times[n]):
            operand = int(stream.operand[n]) + k * int(stream.d_operand[n])
            waiting[int(stream.command[n]), int(stream.node[n]), operand].append(maps[number])
            number += 1
    return {
        i: waiting[int(entry[1]), int(entry[2]), int(entry[5])].popleft()
        for i, entry in enumerate(log)
        if is_mine[entry[1]]
    }


def _used(device: Device, kernel: Kernel) -> dict[tuple[int, int, int], int]:
    """Return how many elements of the matrix all units find, by bank of a unit (-1 = any), row and column."""
    place = kernel.stored()["matrix"]
    found: dict[tuple[int, int, int], int] = defaultdict(int)
    here = place.channel.ravel() == 0
    fields = [
        np.broadcast_to(f, place.channel.shape).ravel()[here] for f in (place.bank, place.row, place.column)
    ]
    for bank, row, column in zip(*(f.tolist() for f in fields), strict=True):
        found[bank % device.unit.banks_per_unit, row, column] += 1
        found[-1, row, column] += 1
    return found


def _positions(values: I8, letter: str, idle: str) -> tuple[str, ...]:
    """Return in words which elements of a vector cross the pins."""
    real = np.unique(values[values >= 0])
    missing = int((values < 0).sum())
    if not len(real):
        return (idle if letter == "x" else f"{missing} {idle}",)
    known = f"{letter} {real[0]}" + (f"–{real[-1]}" if len(real) > 1 else "")
    return (known, *([f"+ {missing} {idle}"] if missing else []))


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 1 or not part else "<1 %"


# --- the drawing ------------------------------------------------------------------------------------------


class Panel(NamedTuple):
    """Boxes that are drawn in one strip: left and right edge of each in inches."""

    boxes: list[tuple[Box, float, float]]
    width: float


def panels(drawn: Sequence[Box], width: float) -> list[Panel]:
    """Return boxes in as few strips of at most this width as they need, of about the same length.

    A strip ends only where nothing is under way, and is longer where something always is.
    """
    found = _strips(drawn, width)
    shorter = width
    while len(found) > 1 and len(tried := _strips(drawn, shorter := shorter - STEP_INCH)) <= len(found):
        found = tried
    return found


def _strips(drawn: Sequence[Box], width: float) -> list[Panel]:
    clusters: list[list[Box]] = []
    until = -1
    for box in drawn:
        if box.start > until:
            clusters.append([])
        clusters[-1].append(box)
        until = max(until, box.end)
    found: list[Panel] = []
    before = 0
    for cluster in clusters:
        places = _places(cluster)
        right = max(places.values())
        gap = min(cluster[0].start - before, MOST_CLOCKS) * CLOCK_INCH
        if not found or found[-1].width + gap + right > width:
            found.append(Panel([], 0.0))
            gap = 0.0
        left = found[-1].width + gap
        placed = [(box, left + places[box.start], left + places[box.end]) for box in cluster]
        found[-1] = Panel(found[-1].boxes + placed, left + right)
        before = max(box.end for box in cluster)
    return found


def _places(cluster: Sequence[Box]) -> dict[int, float]:
    """Return where the clocks of boxes are drawn, in inches, so that every box has room for its text."""
    places: dict[int, float] = {}
    last_clock, last = cluster[0].start, 0.0
    for clock in sorted({clock for box in cluster for clock in (box.start, box.end)}):
        last += min(clock - last_clock, MOST_CLOCKS) * CLOCK_INCH
        ending = (
            places[box.start] + len(box.lines) * LINE_INCH + 0.03 for box in cluster if box.end == clock
        )
        places[clock] = last = max([last, *ending])
        last_clock = clock
    return places


def stream_diagram(played: Played) -> Figure:
    """Return the drawing of a scene: in each strip a lane for rows, one for columns and modes, one for data."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    strips = panels(boxes(played), MOST_INCH)
    lanes = [1 + max(box.lane for box, _, _ in strip.boxes) for strip in strips]
    width = LABEL_INCH + max(strip.width for strip in strips) + RIGHT_INCH
    height = sum(CLOCKS_INCH + n * LANE_INCH for n in lanes) + PANEL_GAP_INCH * (len(strips) - 1) + 0.04
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        top = height
        for strip, n in zip(strips, lanes, strict=True):
            bottom = top - CLOCKS_INCH - n * LANE_INCH
            ax = figure.add_axes(
                (LABEL_INCH / width, bottom / height, strip.width / width, n * LANE_INCH / height)
            )
            ax.set_xlim(0, strip.width)
            ax.set_ylim(-n, 0)
            ax.set_axis_off()
            _draw_strip(ax, strip, LANES[:n])
            top = bottom - PANEL_GAP_INCH
    return figure


def _draw_strip(ax: Axes, strip: Panel, lanes: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    for lane, label in enumerate(lanes):
        ax.plot([0, strip.width], [-lane - 0.5] * 2, color="#C4C4C4", linewidth=0.8, zorder=1)
        ax.annotate(
            label.replace(", ", ",\n"), (0, -lane - 0.5), xytext=(-7, 0), textcoords="offset points", ha="right",
            va="center", fontsize=7.5,
        )  # fmt: skip
    for box, left, right in strip.boxes:
        width, y = right - left, -box.lane - 0.5
        white = DATA_WHITE if box.lane == DATA else 0.0
        color = tuple(white + (1 - white) * part for part in to_rgb(box.color))
        ax.add_patch(
            FancyBboxPatch(
                (left, y - BOX / 2), width, BOX, boxstyle="round,pad=0,rounding_size=0.02",
                mutation_aspect=1 / LANE_INCH, facecolor=color, edgecolor="white", linewidth=0.7, zorder=5,
            )
        )  # fmt: skip
        longest = max(map(len, box.lines))
        flat = longest * CHARACTER_INCH + 0.04 < width
        size = NAME_PT if flat else min(NAME_PT, (LANE_INCH * BOX - 0.04) * 72 / 0.7 / longest)
        dark = box.lane != DATA and box.color not in LIGHT
        ax.text(
            left + width / 2, y, "\n".join(box.lines), rotation=0 if flat else 90, ha="center", va="center",
            fontsize=size, linespacing=1.1, color="white" if dark else "black", zorder=6,
        )  # fmt: skip
    _draw_clocks(ax, strip)


def _draw_clocks(ax: Axes, strip: Panel) -> None:
    """Write above the lanes at which clock each box of commands begins, where there is room."""
    ax.annotate(
        "clock",
        (0, 0),
        xytext=(-7, 5),
        textcoords="offset points",
        ha="right",
        va="baseline",
        fontsize=TIME_PT,
    )
    free = -1.0
    for box, left, _ in strip.boxes:
        if box.lane == DATA:
            continue
        ax.plot(
            [left, left], [0.06, -box.lane - 0.04], color="#A8A8A8", linewidth=0.5, clip_on=False, zorder=2
        )
        if left >= free:
            text = f"{box.start:,}"
            ax.annotate(
                text,
                (left, 0),
                xytext=(0, 5),
                textcoords="offset points",
                ha="left",
                va="baseline",
                fontsize=TIME_PT,
            )
            free = left + len(text) * TIME_PT * 0.6 / 72 + 0.03


def save_scene(played: Played, path: Path) -> None:
    """Write the drawing of a scene to an SVG or PNG file; the same bytes for the same device."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        undated = {".svg": {"Date": None}}.get(path.suffix, {"Software": None})
        stream_diagram(played).savefig(path, metadata=undated)

"""The pages of the shipped memories: organisation, timings, rules, sources, and a drawn timing diagram each."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pimloom.arch.document import Document, shipped
from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.expression import evaluate
from pimloom.arch.tree import Keys
from pimloom.reports.timing_diagram import NAMES, equation, save_diagram, schedule, story

KiB, MiB, GiB = 2**10, 2**20, 2**30
MEANINGS = {
    "activate": "opens a row",
    "activate_first": "begins to open a row",
    "activate_second": "opens the row",
    "precharge": "closes a row",
    "read": "reads an access",
    "write": "writes an access",
    "sync_read": "starts the data clock for a read",
    "sync_write": "starts the data clock for a write",
    "mac": "multiplies and adds in the banks",
    "write_buffer": "fills the input buffer",
    "read_result": "reads the results",
    "refresh": "refreshes",
    "mode": "switches the mode of the channel",
    "write_result": "writes the results",
    "activation": "applies the activation function to the results",
    "read_activation": "reads the results of the activation function",
    "multiply": "multiplies accesses of two banks into a third",
    "copy_to_buffer": "copies an access into the input buffer",
    "copy_to_bank": "copies an access of the input buffer into a bank",
    "move_result": "moves results to the unit beside the banks",
    "move_vector": "moves a vector from the unit beside the banks into the input buffers",
    "softmax": "computes a softmax in the unit beside the banks",
    "add_to_buffer": "adds an access to a register",
    "multiply_to_buffer": "multiplies a register by an access",
    "rectify_to_buffer": "copies an access into a register, negative values as 0",
}
POLICIES = {
    "all_bank": "all banks at once, every nREFI",
    "per_bank": "one bank after the other, every nREFIpb",
    "per_bank_set": "the same bank of all pseudo-channels, every nREFIpb",
    "none": "none",
}


def write_standards(folder: Path) -> list[Path]:
    """Write `standards.md` and, for every shipped memory, `standards/<name>.md` and `.svg` below a folder.

    The bytes depend on the descriptions alone. Returns the paths.
    """
    below = folder / "standards"
    below.mkdir(parents=True, exist_ok=True)
    paths, drams = [], []
    for name in shipped("dram"):
        dram, document = load_dram(name)
        drams.append(dram)
        paths += write_page(dram, document, below / name)
    paths.append(folder / "standards.md")
    paths[-1].write_text(index(drams), encoding="utf-8", newline="\n")
    return paths


def write_page(dram: Dram, document: Document, stem: Path) -> list[Path]:
    """Write the page of a memory and its diagram to `<stem>.md` and `<stem>.svg`; return the paths."""
    paths = [stem.with_name(f"{stem.name}.md"), stem.with_name(f"{stem.name}.svg")]
    paths[0].write_text(page(dram, document, paths[1].name), encoding="utf-8", newline="\n")
    save_diagram(dram, paths[1])
    return paths


def index(drams: Sequence[Dram]) -> str:
    """Return the Markdown page that lists memories, the plain ones and those with units in the banks."""
    plain = [dram for dram in drams if not dram.is_pim]
    pim = [dram for dram in drams if dram.is_pim]
    titles = ("memory", "description", "channels", "banks", "capacity", "peak", "row miss", "refresh")
    parts = [
        "# The memories",
        "Every shipped DRAM with its timing rules, the source of each value, and a drawn diagram of a few commands. "
        "Made by `pimloom.reports.standards` from `configs/dram`. *Row miss* is the time from an activate to the "
        "end of the first read's data with nothing else going on; *refresh* the share of time that the refresh of "
        "all banks takes.",
        *_section("Standards", titles, map(_summary, plain)),
        *_section("With processing in the banks", titles, map(_summary, pim)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    return [f"## {title}", table(titles, rows)] if rows else []


def _summary(dram: Dram) -> list[str]:
    n = dram.timing
    steps = story(dram)
    reading = next(i for i, (command, _) in enumerate(steps) if dram.commands[command].meaning == "read")
    opening = [step for step in steps[:reading] if step[1] == steps[reading][1]]
    issues = schedule(dram, [*opening, steps[reading]])
    data = evaluate(dram.commands[issues[-1].command].duration, dram.symbols({}))
    share = f"{n['nRFC'] / n['nREFI']:.1%}" if dram.refresh.policy == "all_bank" else ""
    return [
        f"[{dram.name}](standards/{dram.name}.md)",
        dram.description,
        str(dram.channels),
        f"{dram.channels} × {dram.banks}",
        _bytes(dram.channels * dram.channel_capacity_B),
        f"{dram.channels * dram.pin_Bps / 1e9:.4g} GB/s",
        f"{(issues[-1].clock + data - issues[0].clock) * 1e9 / dram.clock_Hz:.1f} ns",
        share.replace("%", " %"),
    ]


def page(dram: Dram, document: Document, diagram: str) -> str:
    """Return the Markdown page of one memory, with its timing diagram from the file of that name beside it."""
    said = {path: (node.source, node.note) for path, node in document.root.walk() if node.source}
    unit = "halves of a CK" if dram.command_bus == "half_clock" else "clocks"
    parts = [
        f"# {dram.name}",
        f"{dram.description}. Everything below comes from the description of that name and what it extends.",
        f"![Commands of {dram.name} at their earliest clocks]({diagram})",
        "Each command at its earliest clock; an arrow is the rule that bound it, `name: expression = "
        f"{unit}`. Numbered commands move the bursts of the same number. Time runs to scale but for the cuts (//).",
        *sections(dram, said),
        "## Currents",
        table(("name", "value", "source"), _currents(dram, said)),
        "## Sources",
        "\n".join(f"- `{key}`: {text}" for key, text in sorted(_sources(dram, said).items())),
    ]
    return "\n\n".join(parts) + "\n"


Said = Mapping[Keys, tuple[str | None, str | None]]
"""Path of a value -> the key of its source, and its note."""


def sections(dram: Dram, said: Said) -> list[str]:
    """Return what a page says about organisation, commands, timings and rules of a memory."""
    unit = "halves of a CK" if dram.command_bus == "half_clock" else "clocks"
    return [
        "## Organisation",
        table(("", "value", "source"), _organisation(dram, said)),
        "## Commands",
        table(
            ("command", "addresses", "meaning", "then the bank is", f"done after ({unit})"), _commands(dram)
        ),
        "## Timings",
        f"One clock is {_ns(1, dram)} ns" + (", half a CK." if dram.command_bus == "half_clock" else "."),
        table(("name", unit, "ns", "source"), _timings(dram, said)),
        "## Rules",
        "`after` may issue so long after `before` at the earliest, if both concern the same node of the *level*. "
        "*Siblings*: different nodes below the same parent instead. *Window*: counted from so many `before` back. "
        "A minimum of zero or less binds nothing.",
        table(("rule", "level", "before", "after", "minimum", unit, "source"), _rules(dram, said)),
    ]


def _organisation(dram: Dram, said: Said) -> list[list[str]]:
    values: list[tuple[str, Keys, str]] = [
        ("channels", ("channels",), str(dram.channels)),
        ("pseudo-channels of a channel", ("pseudochannels",), str(dram.pseudochannels)),
        ("ranks", ("ranks",), str(dram.ranks)),
        ("stack IDs", ("stack_ids",), str(dram.stack_ids)),
        ("bank groups", ("bankgroups",), str(dram.bankgroups)),
        ("banks of a bank group", ("banks_per_bankgroup",), str(dram.banks_per_bankgroup)),
        ("rows of a bank", ("rows",), f"{dram.rows:,}"),
        ("accesses of a row", ("columns",), f"{dram.columns:,}"),
        ("an access", ("access_B",), _bytes(dram.access_B)),
        ("a row", (), _bytes(dram.row_B)),
        ("a channel", ("channel_capacity_B",), _bytes(dram.channel_capacity_B)),
        ("devices in lock step", ("devices",), str(dram.devices)),
        ("data pins", ("io", "width_bit"), str(dram.io.width_bit)),
        ("rate of a pin", ("io", "rate_bps"), f"{dram.io.rate_bps / 1e9:g} Gb/s"),
        ("clock", ("clock_Hz",), f"{dram.clock_Hz / 1e6:g} MHz"),
        ("a burst", ("timing", "nBL"), f"{dram.nBL} clocks"),
        ("peak of a channel", (), f"{dram.pin_Bps / 1e9:.4g} GB/s"),
        ("command bus", (), dram.command_bus.replace("_", " ")),
        ("refresh", ("refresh", "policy"), POLICIES[dram.refresh.policy]),
        ("refreshes that may be late", ("refresh", "postpone"), str(dram.refresh.postpone)),
    ]
    single = {"pseudochannels", "ranks", "stack_ids", "devices"}
    return [
        [label, value, source_of(said, path)]
        for label, path, value in values
        if not (path and path[0] in single and value == "1")
    ]


def _commands(dram: Dram) -> list[list[str]]:
    symbols = dram.symbols({})
    then = {"none": "", "begin": "opening", "open": "open", "close": "closed"}
    return [
        [
            f"`{name}`",
            NAMES[command.target],
            MEANINGS[command.meaning].replace("a row", "a row" if command.target == "bank" else "rows"),
            then[command.bank],
            ""
            if command.duration == "0"
            else equation(command.duration, evaluate(command.duration, symbols), "`"),
        ]
        for name, command in dram.commands.items()
    ]


def _timings(dram: Dram, said: Said) -> list[list[str]]:
    return [
        [f"`{name}`", str(n), _ns(n, dram), source_of(said, ("timing", name))]
        for name, n in dram.timing.items()
    ]


def _rules(dram: Dram, said: Said) -> list[list[str]]:
    symbols = dram.symbols({})
    rows = []
    for name, rule in dram.constraints.items():
        extra = ", siblings" if rule.siblings else f", window {rule.window}" if rule.window > 1 else ""
        n = evaluate(rule.minimum, symbols)
        level = NAMES[rule.level] + extra
        commands = [", ".join(f"`{command}`" for command in side) for side in (rule.before, rule.after)]
        source = source_of(said, ("constraints", name))
        rows.append([name, level, *commands, f"`{rule.minimum}`", str(n), source])
    return rows


def _currents(dram: Dram, said: Said) -> list[list[str]]:
    return [
        [f"`{name.rpartition('_')[0]}`", f"{value:g} {name.rpartition('_')[2]}" if value is not None else "not known",
         source_of(said, ("currents", name))]
        for name, value in dram.currents
    ]  # fmt: skip


def _sources(dram: Dram, said: Said) -> dict[str, str]:
    """Return the texts of all sources that are named, by key."""
    keys = {source for source, _ in said.values()}
    return {key: text for key, text in dram.sources.items() if key in keys}


def source_of(said: Said, path: Keys) -> str:
    """Return in words where the value at a path comes from; empty if nothing is said."""
    source, note = said.get(path, (None, None))
    return "" if source is None else f"{source}{f': {note}' if note else ''}"


def _ns(clocks: int, dram: Dram) -> str:
    return f"{clocks * 1e9 / dram.clock_Hz:,.4f}".rstrip("0").rstrip(".")


def _bytes(n: int) -> str:
    for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if n % unit == 0:
            return f"{n // unit:,} {name}"
    return f"{n} B"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped."""
    cells = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)

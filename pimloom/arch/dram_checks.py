"""What cannot be true of a memory: sums that do not add up, unknown names, no time between refreshes."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pimloom.arch.expression import ExpressionError, evaluate
from pimloom.arch.tree import Keys, did_you_mean, shown

if TYPE_CHECKING:
    from pimloom.arch.dram import Array, Dram, Tables

LEVELS = ("channel", "pseudochannel", "rank", "stack_id", "bankgroup", "bank")
"""Of the tree of nodes, outermost first."""
DEPTH = dict(zip(LEVELS, (0, 0, 0, 0, 1, 2), strict=True))
"""Of a level in `dram.Tables`, which know one pseudo-channel, rank and stack ID."""
MAX_CLOCKS = 2**30
MAX_BANKS, MAX_BANKS_OF_CHANNELS = 2**12, 2**16

Finding = tuple[Keys, str]


def findings(dram: "Dram", pim: Mapping[str, int]) -> list[Finding]:
    """Pairs of path and message; `pim` holds the symbols that a PIM unit defines, as for `Dram.tables`."""
    symbols = dram.symbols(pim)
    found = [*_organisation(dram), *_references(dram), *_expressions(dram, symbols), *_currents(dram)]
    # Only a description whose names and numbers can be resolved has tables to check.
    return found or [*_turnaround(dram, dram.tables(pim))]


def _organisation(dram: "Dram") -> Iterator[Finding]:
    factors = (*(n for n in dram.counts if n > 1), dram.rows, dram.columns, dram.access_B)
    if prod(factors) != dram.channel_capacity_B:
        yield (
            ("channel_capacity_B",),
            (
                f"{dram.channel_capacity_B} B, but the levels make "
                f"{' * '.join(map(str, factors))} = {prod(factors)} B"
            ),
        )
    for banks, most, of in (
        (dram.banks, MAX_BANKS, "a channel"),
        (dram.banks * dram.channels, MAX_BANKS_OF_CHANNELS, "all channels"),
    ):
        if banks > most:
            yield (
                ("banks_per_bankgroup",),
                f"the levels make {banks} banks of {of}; at most {most} make sense",
            )
    n = dram.timing
    # Each is a time in whole clocks, rounded up: the sum of two can be one clock above that of the cycle.
    clock = 2 if dram.command_bus == "half_clock" else 1
    if {"nRC", "nRAS", "nRP"} <= n.keys() and n["nRC"] < n["nRAS"] + n["nRP"] - clock:
        yield (
            ("timing", "nRC"),
            f"nRC = {n['nRC']} is below nRAS + nRP = {n['nRAS']} + {n['nRP']} = {n['nRAS'] + n['nRP']}",
        )
    if {"nFAW", "nRRD"} <= n.keys() and n["nFAW"] < n["nRRD"]:
        yield ("timing", "nFAW"), f"nFAW = {n['nFAW']} is below nRRD = {n['nRRD']}"
    if "nMAC" in n:
        yield ("timing", "nMAC"), "nMAC is derived, not given"


def _references(dram: "Dram") -> Iterator[Finding]:
    for name, rule in dram.constraints.items():
        for position, side in ((1, rule.before), (2, rule.after)):
            for i, command in enumerate(side):
                if command not in dram.commands:
                    hint = did_you_mean(command, dram.command_names)
                    yield ("constraints", name, position, i), f"unknown command {shown(command)}{hint}"
                elif rule.window > 1 and LEVELS.index(rule.level) > LEVELS.index(
                    dram.commands[command].target
                ):
                    yield (
                        ("constraints", name, position, i),
                        (
                            f"a window on the {rule.level} level cannot count {command!r}, "
                            f"which addresses the {dram.commands[command].target} level"
                        ),
                    )
    yield from _refresh(dram)
    needed = {
        "activate_second": ("nAAD",),
        "sync_read": ("nCL", "nWCKPST"),
        "sync_write": ("nCWL", "nWCKPST"),
    }
    for command, c in dram.commands.items():
        for timing in needed.get(c.meaning, ()):
            if timing not in dram.timing:
                yield ("timing",), f"the command {command!r} of the meaning {c.meaning!r} needs {timing}"


def _refresh(dram: "Dram") -> Iterator[Finding]:
    """What the refresh policy needs and the description lacks."""
    policy = dram.refresh.policy
    if policy == "none":
        return
    scope = dram.refresh_level
    if scope is None:
        which = "a whole level" if policy == "all_bank" else "a bank"
        yield (
            ("refresh", "policy"),
            f"{policy!r} needs a command of the meaning 'refresh' that addresses {which}",
        )
    elif all(dram.find("precharge", level) is None for level in (*LEVELS[: LEVELS.index(scope) + 1], "bank")):
        yield (
            ("refresh", "policy"),
            f"{policy!r} needs a command of the meaning 'precharge' that addresses a {scope} or a bank",
        )
    opens = any(c.bank == "open" and c.target == "bank" for c in dram.commands.values())
    if opens and not (dram.find("activate", "bank") or dram.find("activate_second", "bank")):
        yield (
            ("refresh", "policy"),
            f"{policy!r} needs a command of the meaning 'activate' that addresses a bank",
        )
    needed = {"all_bank": ("nREFI", "nRFC"), "per_bank_set": ("nREFIpb", "nRFCpb"), "per_bank": ("nREFIpb",)}
    for timing in needed[policy]:
        if not dram.timing.get(timing):
            found = "" if timing not in dram.timing else ", not 0"
            yield ("timing",), f"the refresh policy {policy!r} needs {timing}{found}"


def _expressions(dram: "Dram", symbols: Mapping[str, int]) -> Iterator[Finding]:
    places: list[Finding] = [
        *((("commands", name, "duration"), c.duration) for name, c in dram.commands.items()),
        *((("constraints", name, 3), rule.minimum) for name, rule in dram.constraints.items()),
    ]
    for path, text in places:
        try:
            value = evaluate(text, symbols)
        except ExpressionError as error:
            yield path, str(error)
            continue
        if value > MAX_CLOCKS:
            yield path, f"{text!r} is {value} clocks; at most {MAX_CLOCKS} make sense"
        elif value < 0 and path[0] == "commands":
            yield path, f"{text!r} is {value} clocks; a duration cannot be negative"


def _currents(dram: "Dram") -> Iterator[Finding]:
    pairs = [("IDD3N_mA", "IDD2N_mA"), ("IDD0_mA", "IDD2N_mA")]
    pairs += [(name, "IDD3N_mA") for name in ("IDD4R_mA", "IDD4W_mA", "IDD5B_mA")]
    for name, floor in pairs:
        high, low = getattr(dram.currents, name), getattr(dram.currents, floor)
        if high is not None and low is not None and high < low:
            yield ("currents", name), f"{name} = {high} is below {floor} = {low}"


def _turnaround(dram: "Dram", tables: "Tables") -> Iterator[Finding]:
    """Between two refreshes the banks close, are refreshed, open again one by one, and do some work."""
    interval, precharge, refresh, *activates = map(int, tables.refresh)
    if not interval:
        return
    single = activates[-1]
    after = np.repeat(np.arange(len(dram.commands)), np.diff(tables.row_start))
    before, minimum = tables.row_before, tables.row_min
    close = _largest(minimum[(after == precharge) & (before != refresh)])
    renew = _largest(minimum[(before == precharge) & (after == refresh)])
    reopen = _largest(minimum[before == refresh])
    between = (before == single) & (after == single) & (tables.row_level < DEPTH["bank"])
    windows = (tables.win_after == single) & (tables.win_before == single)
    every = _largest(-(-tables.win_min[windows] // tables.win_size[windows]))
    spacing = max(1, every, _largest(minimum[between]))
    work = max((int(tables.reach[a]) for a in activates if a >= 0), default=0)
    total = close + renew + reopen + dram.banks * spacing + work
    if interval <= total:
        yield (
            ("timing", "nREFI"),
            (
                f"nREFI = {interval} leaves no time for work: closing {close}, then {renew}, "
                f"refresh {reopen}, opening {dram.banks} banks {dram.banks * spacing}, first use {work} "
                f"make {total} clocks"
            ),
        )


def _largest(values: "Array") -> int:
    return int(values.max(initial=0))

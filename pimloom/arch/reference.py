"""Configurations of the DRAM reference data, which stand for runs of Ramulator 2.1 and DRAMsim3, as memories.

A configuration gives every parameter in clocks. That of Ramulator also lists the resolved timing rules; those of
DRAMsim3 follow from the parameters.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pimloom.arch.tree import Keys, Node, Place

TREE_LEVELS = {
    "Channel": "channel", "PseudoChannel": "pseudochannel", "Rank": "rank", "Sid": "stack_id",
    "BankGroup": "bankgroup", "Bank": "bank",
}  # fmt: skip
NOT_ISSUED = re.compile(r"D?RFM\w*|MR\w*|VRR|PREsb|PREA|REFsb|REFp2b|SR\w*|PD\w*|ZQ\w*|NOP|DES")
"""Commands that forms mention and that no controller here issues."""
POSTPONED = 8
"""All-bank refreshes that the standards let wait; the simulators postpone none, but serve them one by one."""


class _Foreign(BaseModel):
    """Part of a foreign form: what is not needed is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class _Organisation(_Foreign):
    channels: Literal[1]
    pseudochannels: int = Field(ge=1, le=64)
    ranks: int = Field(ge=1, le=64)
    stack_ids: int = Field(1, ge=1, le=64)
    bankgroups: int = Field(ge=1, le=64)
    banks_per_bankgroup: int = Field(ge=1, le=64)
    rows: int = Field(ge=1, le=2**24)
    bursts_per_row: int = Field(ge=1, le=2**16)
    data_width_bits: int = Field(ge=1, le=2**16)
    bytes_per_request: int = Field(ge=1, le=2**16)
    devices_per_rank: int = Field(1, ge=1, le=64)


class _Mapping(_Foreign):
    lsb_first: list[list[Any]]


class _Frontend(_Foreign):
    requests_offered_per_cycle: Literal[1] = 1


class _Clock(_Foreign):
    tCK_ps: int = Field(ge=1, le=10**6)


class _Controller(_Foreign):
    row_policy: str = Field(pattern="^(open_page|close_page)")


class _Configuration(_Foreign):
    """What both forms have."""

    standard: str
    case: str
    clock: _Clock
    organisation: _Organisation
    timing_cycles: dict[str, int | None]
    address_mapping: _Mapping
    controller: _Controller


class _RamulatorClock(_Clock):
    cycle_unit: Literal["CK", "half CK"]
    data_rate_MTps: int = Field(ge=1, le=10**6)


class _RamulatorCommand(_Foreign):
    bus: Literal["shared", "row", "column"]


class _RamulatorController(_Controller):
    scheduler: Literal["FRFCFS", "FRFCFS_ROWHIT"]
    read_queue: int
    write_queue: int
    write_high_watermark: float
    write_low_watermark: float
    wck_sync_mode: Literal["need_sync"] = "need_sync"


class _RamulatorRefresh(_Foreign):
    mode: Literal["none", "all_bank", "per_bank"]
    scope: Literal["channel", "pseudochannel", "rank", "bank"] = "channel"
    scatter_interval: Literal[0] = 0


class Ramulator2(_Configuration):
    """A configuration of Ramulator 2.1."""

    simulator: Literal["ramulator2"]
    case: str = "ramulator2"
    clock: _RamulatorClock
    read_latency_cycles: int = Field(ge=1, le=10**6)
    timing_constraints: list[list[Any]]
    commands: dict[str, _RamulatorCommand]
    controller: _RamulatorController
    refresh: _RamulatorRefresh
    frontend: _Frontend = _Frontend()


class _Dramsim3Controller(_Controller):
    queue_structure: Literal["PER_BANK", "PER_RANK"]
    command_queue_entries: int
    transaction_queue_entries: int
    unified_transaction_queue: bool
    dual_command_issue: bool
    self_refresh: Literal[False] = False
    row_hit_cap: int


class _Dramsim3Refresh(_Foreign):
    mode: Literal["none", "all_bank"]
    policy: Literal["rank staggered"] = "rank staggered"


class _Dramsim3Frontend(_Frontend):
    tail_cycles: int = Field(ge=0, le=2**30)


class _Power(_Foreign):
    parameters: dict[str, float | None]


class Dramsim3(_Configuration):
    """A configuration of DRAMsim3."""

    simulator: Literal["dramsim3"]
    case: str = "dramsim3"
    controller: _Dramsim3Controller
    refresh: _Dramsim3Refresh
    frontend: _Dramsim3Frontend
    power: _Power | None = None


def form_of(root: Node) -> type[Ramulator2] | type[Dramsim3]:
    """Return the form that a configuration says it has; the one of Ramulator if it says nothing known."""
    assert isinstance(root.value, dict)
    return Dramsim3 if root.value["simulator"].value == "dramsim3" else Ramulator2


def memory_tree(root: Node, config: Ramulator2 | Dramsim3) -> Node:
    """Return the description of the same memory in our own form, every value at the place that it came from."""
    entries = [*_common(config)]
    entries += _ramulator2(config) if isinstance(config, Ramulator2) else _dramsim3(config)
    tree = Node({}, root.place, root.key_place)
    for path, value, origin in entries:
        _put(tree, path, value, root.nearest(origin).place)
    return tree


_Entry = tuple[tuple[str, ...], Any, Keys]
"""Path in our form, value, path in the reference form."""


def _common(config: _Configuration) -> list[_Entry]:
    org, ps = config.organisation, config.clock.tCK_ps
    names = (
        "channels", "pseudochannels", "ranks", "stack_ids", "bankgroups", "banks_per_bankgroup", "rows"
    )  # fmt: skip
    page = "open" if config.controller.row_policy.startswith("open") else "closed"
    capacity_B = org.bytes_per_request * org.bursts_per_row
    for name in names:
        capacity_B *= getattr(org, name)
    entries: list[_Entry] = [
        (("kind",), "memory", ()),
        (("version",), 1, ()),
        (("name",), config.case, ("case",)),
        (("dram", "kind"), "dram", ()),
        (("dram", "version"), 1, ()),
        (("dram", "name"), config.standard, ("standard",)),
        (("dram", "standard"), config.standard, ("standard",)),
        (("dram", "clock_Hz"), round(10**12 / ps), ("clock", "tCK_ps")),
        *((("dram", name), getattr(org, name), ("organisation", name)) for name in names),
        (("dram", "columns"), org.bursts_per_row, ("organisation", "bursts_per_row")),
        (("dram", "access_B"), org.bytes_per_request, ("organisation", "bytes_per_request")),
        (("dram", "channel_capacity_B"), capacity_B, ("organisation",)),
        (("dram", "devices"), org.devices_per_rank, ("organisation", "devices_per_rank")),
        (("dram", "io", "width_bit"), org.data_width_bits, ("organisation", "data_width_bits")),
        (("controller", "page"), page, ("controller", "row_policy")),
    ]
    for name, clocks in config.timing_cycles.items():
        if clocks is not None and name[:1] == "n":
            entries.append((("dram", "timing", name), clocks, ("timing_cycles", name)))
    parts = []
    for part in config.address_mapping.lsb_first:
        match part:
            case ["byte_offset", int(bits)] if 0 <= bits < 40 and 2**bits == org.bytes_per_request:  # noqa: PLR2004
                continue
            case [str(name), int(bits)] if 0 <= bits < 40:  # noqa: PLR2004
                parts.append([name, 2**bits])
            case _:
                parts.append(part)
    entries.append((("address_mapping", "lsb_first"), parts, ("address_mapping", "lsb_first")))
    return entries


def _ramulator2(config: Ramulator2) -> list[_Entry]:
    controller, refresh = config.controller, config.refresh
    scope = refresh.scope
    if scope == "bank":
        # Commands to all banks address the level below the channel, if that is no bank group.
        rows = [row[0] for row in config.timing_constraints if row]
        scope = "pseudochannel" if "PseudoChannel" in rows else "rank" if "Rank" in rows else "channel"
    bus = "shared" if all(c.bus == "shared" for c in config.commands.values()) else "row_and_column"
    policy: str = refresh.mode
    if config.clock.cycle_unit == "half CK":
        bus = "half_clock"
        policy = "per_bank_set" if policy == "per_bank" else policy
    latency = ("read_latency_cycles",)
    entries: list[_Entry] = [
        (("dram", "io", "rate_bps"), config.clock.data_rate_MTps * 10**6, ("clock", "data_rate_MTps")),
        (("dram", "command_bus"), bus, ("commands",)),
        (("dram", "refresh", "policy"), policy, ("refresh", "mode")),
        (("dram", "refresh", "postpone"), POSTPONED, ("refresh",)),
        *_commands(list(config.commands), scope, str(config.read_latency_cycles), "nCWL + nBL", latency),
        *((("dram", "currents", name), None, ()) for name in CURRENTS.values()),
        (("controller", "scheduler"), SCHEDULERS[controller.scheduler], ("controller", "scheduler")),
        (("controller", "read_queue"), controller.read_queue, ("controller", "read_queue")),
        (("controller", "write_queue"), controller.write_queue, ("controller", "write_queue")),
        (
            ("controller", "write_high"),
            controller.write_high_watermark,
            ("controller", "write_high_watermark"),
        ),
        (("controller", "write_low"), controller.write_low_watermark, ("controller", "write_low_watermark")),
    ]
    for i, row in enumerate(config.timing_constraints):
        match row:
            case [
                str(level),
                list(before),
                list(after),
                int(minimum),
                int(window),
                "self" | "siblings" as on,
            ]:
                before, after = (
                    [name for name in names if not NOT_ISSUED.fullmatch(str(name))]
                    for names in (before, after)
                )
                if not before or not after:
                    continue
                last = on if on == "siblings" else window
                rule = [TREE_LEVELS.get(level, level), before, after, str(minimum), last]
            case _:
                rule = row
        entries.append((("dram", "constraints", f"row_{i + 1:02}"), rule, ("timing_constraints", i)))
    return entries


SCHEDULERS = {"FRFCFS": "fr_fcfs", "FRFCFS_ROWHIT": "fr_fcfs_row_hit"}
CURRENTS = {
    "VDD": "VDD_V", "IDD0": "IDD0_mA", "IDD2N": "IDD2N_mA", "IDD3N": "IDD3N_mA", "IDD4R": "IDD4R_mA",
    "IDD4W": "IDD4W_mA", "IDD5AB": "IDD5B_mA", "IDD5PB": "IDD5PB_mA",
}  # fmt: skip


def _dramsim3(config: Dramsim3) -> list[_Entry]:
    controller, org, timing = config.controller, config.organisation, config.timing_cycles
    bus = "row_and_column" if controller.dual_command_issue else "shared"
    AL, nBL = timing.get("AL") or 0, timing.get("nBL") or 0
    at: Keys = ("timing_cycles",)
    entries: list[_Entry] = [
        *((("dram", "timing", new), AL + (timing.get(old) or 0), (*at, old)) for new, old in LATENCIES.items()),
        (("dram", "command_bus"), bus, ("controller", "dual_command_issue")),
        (("dram", "refresh", "policy"), config.refresh.mode, ("refresh", "mode")),
        (("dram", "refresh", "postpone"), POSTPONED, ("refresh",)),
        *_commands(["ACT", "PRE", "RD", "WR", "RDA", "WRA", "REFab"], "rank", "nRL + nBL", "nWL + nBL", at),
        (("controller", "scheduler"), "round_robin", ("controller",)),
        *((("controller", ours), getattr(controller, its), ("controller", its)) for ours, its in QUEUES.items()),
        (("controller", "queue_per"), controller.queue_structure[4:].lower(), ("controller", "queue_structure")),
        (("controller", "drain_above"), 8, ("controller",)),
        (("controller", "tail"), config.frontend.tail_cycles, ("frontend", "tail_cycles")),
    ]  # fmt: skip
    if timing.get("nRFC") is None and config.refresh.mode == "none":
        entries.append((("dram", "timing", "nRFC"), 0, at))
    if nBL > 0:
        # The form gives no rate; the burst says it.
        rate_bps = org.bytes_per_request * 8 * 10**12 // (org.data_width_bits * nBL * config.clock.tCK_ps)
        entries.append((("dram", "io", "rate_bps"), rate_bps, (*at, "nBL")))
    given = config.power.parameters if config.power else {}
    for theirs, ours in CURRENTS.items():
        entries.append(
            (("dram", "currents", ours), given.get(theirs) or None, ("power", "parameters", theirs))
        )
    is_gddr, is_hbm = (config.standard.startswith(family) for family in ("GDDR", "HBM"))
    if "nRCDRD" in timing and (is_gddr or is_hbm):
        to_read, to_write = "nRCDRD", "nRCDWR"
    else:
        to_read = to_write = f"nRCD - {AL}"
    rules: list[tuple[str, list[Any]]] = [
        *DRAMSIM3_RULES,
        ("row_to_read", ["bank", ["ACT"], ["RD", "RDA"], to_read]),
        ("row_to_write", ["bank", ["ACT"], ["WR", "WRA"], to_write]),
        ("read_to_close", ["bank", ["RD"], ["PRE"], f"{AL} + nRTP"]),
        ("read_closing_to_row", ["bank", ["RDA"], ["ACT"], f"{AL} + nBL + nRTP + nRP"]),
        ("read_closing_to_refresh", ["bank", ["RDA"], ["REFab"], f"{AL} + nRTP + nRP"]),
    ]
    if timing.get("nPPD") and (is_gddr or config.standard == "LPDDR4"):
        rules.append(("close_to_close", ["rank", ["PRE"], ["PRE"], "nPPD"]))
    if timing.get("n32AW") and is_gddr:
        rules.append(("activates_32", ["rank", ["ACT"], ["ACT"], "n32AW", 32]))
    return [*entries, *((("dram", "constraints", name), rule, at) for name, rule in rules)]


QUEUES = {
    "read_queue": "transaction_queue_entries",
    "write_queue": "transaction_queue_entries",
    "unified": "unified_transaction_queue",
    "command_queue": "command_queue_entries",
    "row_hit_cap": "row_hit_cap",
}
LATENCIES = {"nRL": "nCL", "nWL": "nCWL"}
_READ, _WRITE = ["RD", "RDA"], ["WR", "WRA"]
DRAMSIM3_RULES: tuple[tuple[str, list[Any]], ...] = (
    ("read_to_read_S", ["rank", _READ, _READ, "max(nBL, nCCD_S)"]),
    ("read_to_read_L", ["bankgroup", _READ, _READ, "max(nBL, nCCD_L)"]),
    ("read_to_read_rank", ["rank", _READ, _READ, "nBL + nRTRS", "siblings"]),
    ("read_to_write", ["rank", _READ, _WRITE, "nRL + nBL - nWL + nRTRS"]),
    ("read_to_write_rank", ["rank", _READ, _WRITE, "nRL + nBL + nRTRS - nWL", "siblings"]),
    ("write_to_write_S", ["rank", _WRITE, _WRITE, "max(nBL, nCCD_S)"]),
    ("write_to_write_L", ["bankgroup", _WRITE, _WRITE, "max(nBL, nCCD_L)"]),
    ("write_to_write_rank", ["rank", _WRITE, _WRITE, "nBL", "siblings"]),
    ("write_to_read_S", ["rank", _WRITE, _READ, "nWL + nBL + nWTR_S"]),
    ("write_to_read_L", ["bankgroup", _WRITE, _READ, "nWL + nBL + nWTR_L"]),
    ("write_to_read_rank", ["rank", _WRITE, _READ, "nWL + nBL + nRTRS - nRL", "siblings"]),
    ("row_cycle", ["bank", ["ACT"], ["ACT"], "nRC"]),
    ("row_open", ["bank", ["ACT"], ["PRE"], "nRAS"]),
    ("write_to_close", ["bank", ["WR"], ["PRE"], "nWL + nBL + nWR"]),
    ("close_to_row", ["bank", ["PRE"], ["ACT", "REFab"], "nRP"]),
    ("write_closing_to_row", ["bank", ["WRA"], ["ACT", "REFab"], "nWL + nBL + nWR + nRP"]),
    ("row_to_row_S", ["rank", ["ACT"], ["ACT"], "nRRD_S"]),
    ("row_to_row_L", ["bankgroup", ["ACT"], ["ACT"], "nRRD_L"]),
    ("activates_4", ["rank", ["ACT"], ["ACT"], "nFAW", 4]),
    ("refresh_cycle", ["rank", ["REFab"], ["ACT", "REFab"], "nRFC"]),
)
"""README of the reference data, section 5.1; those that depend on which parameters there are stand above."""


_FLAGS = {  # meaning, effect on the bank, what it needs, row, column, data
    "ACT": ("activate", "open", "closed", True, False, "none"),
    "ACT1": ("activate_first", "begin", "closed", True, False, "none"),
    "ACT2": ("activate_second", "open", "opening", True, False, "none"),
    "PRE": ("precharge", "close", "any", False, False, "none"),
    "PREpb": ("precharge", "close", "any", False, False, "none"),
    "PREab": ("precharge", "close", "any", False, False, "none"),
    "RD": ("read", "none", "open", True, True, "read"),
    "WR": ("write", "none", "open", True, True, "write"),
    "RDA": ("read", "close", "open", True, True, "read"),
    "WRA": ("write", "close", "open", True, True, "write"),
    "CAS_RD": ("sync_read", "none", "open", False, False, "none"),
    "CAS_WR": ("sync_write", "none", "open", False, False, "none"),
    "REFab": ("refresh", "none", "closed", False, False, "none"),
    "REFpb": ("refresh", "none", "closed", False, False, "none"),
}


def _commands(names: list[str], scope: str, read: str, write: str, origin: Keys) -> list[_Entry]:
    entries: list[_Entry] = []
    for name in names:
        if NOT_ISSUED.fullmatch(name):
            continue
        meaning, bank, needs, row, column, data = _FLAGS.get(name, ("?", "none", "any", False, False, "none"))
        command = {
            "target": scope if name.endswith("ab") else "bank",
            "meaning": meaning,
            "bank": bank,
            "needs": needs,
            "row": row,
            "column": column,
            "data": data,
            "duration": {"read": read, "write": write}.get(meaning, "0"),
        }
        entries.append(
            (("dram", "commands", name), command, ("commands", name) if meaning == "?" else origin)
        )
    return entries


def _put(tree: Node, path: tuple[str, ...], value: Any, place: Place) -> None:
    assert isinstance(tree.value, dict)
    if len(path) == 1:
        tree.value[path[0]] = _node(value, place)
        return
    _put(tree.value.setdefault(path[0], Node({}, place, place)), path[1:], value, place)


def _node(value: Any, place: Place) -> Node:
    if isinstance(value, dict):
        return Node({key: _node(item, place) for key, item in value.items()}, place, place)
    if isinstance(value, list):
        return Node([_node(item, place) for item in value], place, place)
    return Node(value, place, place)

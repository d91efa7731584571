"""PIM devices beside their own simulators: the cases of a table, run on the machine that its columns name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.configs import folder
from pimloom.mapping import cent
from pimloom.mapping.devices import aim, hbm_pim, lower
from pimloom.reports.cases import Row, read_rows
from pimloom.reports.cent import System, load_cent, token
from pimloom.sim.bench import Issued, channels
from pimloom.traces.stream import Attention, Elementwise, Gemv, Site, Stream, Work

CENT_MODELS = {
    "7B": cent.Decoder(4096, 32, 32, 128, 11008),
    "13B": cent.Decoder(5120, 40, 40, 128, 13824),
    "70B": cent.Decoder(8192, 64, 8, 128, 28672),
}
"""Llama 2, as CENT calls them."""
REFRESHED = "dram.refresh.policy=all_bank"


class Case(NamedTuple):
    """What a row asks for: a device with changes, and what makes the stream that runs on it."""

    device: str
    overrides: list[str]
    stream: Callable[[Device], Stream]


@dataclass(frozen=True)
class Outcome:
    """One case beside its reference; cycles_refreshed: the same with refresh on, where the reference has none."""

    case: str
    reference_cycles: int
    cycles: int
    cycles_refreshed: int | None
    issued: Issued

    @property
    def difference(self) -> float:
        """Relative."""
        return self.cycles / self.reference_cycles - 1

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        refreshed = {} if self.cycles_refreshed is None else {"cycles_refreshed": self.cycles_refreshed}
        return {
            "case": self.case,
            "reference_cycles": self.reference_cycles,
            "cycles": self.cycles,
            "difference": self.difference,
            **refreshed,
        }


# --- what the rows of each device's table ask for ----------------------------------------------------------------


def _hbm_pim(row: Row) -> Case:
    kernel = row.text("kernel", ("gemv", "gemvtree", "add", "mul", "relu"))
    sizes = ("out_dim", "in_dim", "batch") if kernel.startswith("gemv") else ("elements",)
    for column in ("channels", "ranks", *sizes):
        row.count(column)
    overrides, work, site = hbm_pim.measured(row.values)
    return Case("hbm2-pim", overrides, lambda device: lower(device, work, site).stream)


def _aim(row: Row) -> Case:
    kind = row.text("kind", ("gemv", "gemv+af", "att_qk", "att_av", "ewmul", "ewmul+io", "block"))
    site = Site(row.count("channels_used"))
    overrides: list[str] = []

    def stream(device: Device) -> Stream:
        if kind.startswith("gemv"):
            work = Gemv(row.count("out_dim"), row.count("in_dim"))
            return aim.gemv(device, work, site, activated=kind == "gemv+af").stream
        if kind.startswith("ewmul"):
            moved = kind == "ewmul+io"
            return aim.mul(device, Elementwise("mul", row.count("elements")), site, moved).stream
        shape = CENT_MODELS[row.text("model", tuple(CENT_MODELS))]
        tokens = row.count("context")
        if kind == "block":
            return cent.block(device, shape, tokens, cent.Share(site.channels))
        name = "score" if kind == "att_qk" else "context"
        return lower(device, Attention(name, shape.heads, shape.kv_heads, shape.d_head, tokens), site).stream

    if kind.startswith("gemv") and row.text("order", ("reuse-GB32", "no-reuse")) == "no-reuse":
        overrides.append("options.result_group=1")
    return Case("gddr6-aim", overrides, stream)


def _attacc(row: Row) -> Case:
    kind, level = row.text("kind").split(" ")[0], row.text("level", ("bank", "bg", "buffer"))
    if kind not in ("gemv", "attention"):
        raise row.error("kind", f"should begin with gemv or attention, not {kind!r}")
    overrides = []
    if row.text("power_limit", ("0", "1")) == "0" and level != "buffer":
        overrides.append(f"dram.timing.{'nCCDAB' if level == 'bank' else 'nCCDSB'}=4")
    if row.text("bytes_per_element", ("1", "2")) == "1":
        overrides += ["unit.element_B=1", "unit.arithmetic=int8"]
    work: Work
    if kind == "gemv":
        work = Gemv(row.count("out_dim"), row.count("in_dim"))
        overrides.append(f"unit.buffer_accesses={-(-work.inputs // 16)}")
    else:
        heads, d_head = row.count("heads_per_stack"), row.count("head_dim")
        work = Attention("attention", heads, heads, d_head, row.count("context"))
        rows = -(-4096 * d_head // 64) // 1024
        overrides += ["options.as_generated=1", f"options.round_rows={rows}", "options.value_row=8192"]
    return Case(
        f"attacc-{level}", overrides, lambda device: lower(device, work, Site(device.dram.channels)).stream
    )


class Table(NamedTuple):
    """A device's cases: the shipped file, the columns that a row must have, how one becomes a case."""

    file: str
    columns: tuple[str, ...]
    case: Callable[[Row], Case]


TABLES = {
    "hbm-pim": Table(
        "hbm_pim.csv",
        ("case", "kernel", "channels", "ranks", "out_dim", "in_dim", "elements", "batch", "cycles"),
        _hbm_pim,
    ),
    "aim": Table(
        "aim.csv",
        ("case", "kind", "channels_used", "out_dim", "in_dim", "order", "model", "context", "elements", "cycles"),
        _aim,
    ),
    "attacc": Table(
        "attacc.csv",
        (
            "case", "kind", "level", "out_dim", "in_dim", "context", "heads_per_stack", "head_dim",
            "bytes_per_element", "power_limit", "cycles",
        ),
        _attacc,
    ),
}  # fmt: skip
"""Name on the command line -> its cases."""


def run_row(row: Row, table: Table) -> Outcome:
    """Run one case. Raises InputError, with the row's place, for what the device cannot do."""
    case = table.case(row)
    try:
        device, _ = load_device(case.device, case.overrides)
        issued = _run(device, case)
        refreshed = None
        if device.dram.refresh.policy == "none":
            refreshed = _run(load_device(case.device, [*case.overrides, REFRESHED])[0], case).cycles
    except InputError as error:
        raise row.wrong(error) from None
    return Outcome(row.text("case"), row.count("cycles"), issued.cycles, refreshed, issued)


def _run(device: Device, case: Case) -> Issued:
    return channels(device).run(case.stream(device), 0, False)


def reproduce_device(
    name: str, cases: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Outcome]:
    """Run all cases of a table (None = the shipped one of a key of `TABLES`). Raises InputError."""
    table = TABLES[name]
    rows = read_rows(cases or folder("published") / table.file, table.columns)
    outcomes = []
    for done, row in enumerate(rows, 1):
        outcomes.append(run_row(row, table))
        if progress:
            progress(done, len(rows))
    return outcomes


def markdown(name: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of a device's section in docs/validation.md."""
    yield f"Generated by `pimloom reproduce {name} --write-docs docs`; do not edit this part."
    yield ""
    equal = sum(o.cycles == o.reference_cycles for o in outcomes)
    worst = max(abs(o.difference) for o in outcomes)
    yield f"{equal} of {len(outcomes)} cases are equal to the clock; the largest difference is {100 * worst:.2f} %."
    yield ""
    has_refreshed = any(o.cycles_refreshed is not None for o in outcomes)
    yield "| case | reference (clocks) | ours | difference |" + (" with refresh |" if has_refreshed else "")
    yield "| --- | --- | --- | --- |" + (" --- |" if has_refreshed else "")
    for o in outcomes:
        refreshed = f" {o.cycles_refreshed:,} |" if has_refreshed else ""
        percent = "0" if o.difference == 0 else f"{100 * o.difference:+.2f} %"
        yield f"| {o.case} | {o.reference_cycles:,} | {o.cycles:,} | {percent} |{refreshed}"


# --- CENT, end to end ------------------------------------------------------------------------------------------------

CENT_QUANTITIES = {
    "block_latency_ms": ("PIM latency", "block_ms"),
    "link_latency_ms": ("CXL latency", "link_ms"),
    "accelerator_latency_ms": ("Acc latency", "accelerator_ms"),
    "token_latency_ms": ("Token latency (ms)", "latency_ms"),
    "throughput_tokens_per_s": ("Throughput (tokens/s)", "throughput_tokens_per_s"),
    "energy_per_token_mJ": ("Token energy (mJ)", "energy_mJ"),
    "power_W": ("Total power (W)", "power_W"),
}
"""Quantity -> its column in CENT's published table, its name in `reports.cent.Token`."""
CENT_COLUMNS = ("Model", "Device number", "Tensor parallelism", "Sequence length")


def reproduce_cent(
    cases: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """Return CENT's published rows (None = the shipped ones) beside ours, as plain JSON types. Raises InputError."""
    published = [column for column, _ in CENT_QUANTITIES.values()]
    rows = read_rows(cases or folder("published") / "cent_end_to_end.csv", [*CENT_COLUMNS, *published])
    system, found = load_cent(), []
    clocks_per_ms = system.device.dram.clock_Hz / 1000
    for done, row in enumerate(rows, 1):
        model, tokens = row.text("Model"), row.count("Sequence length")
        devices, sharing = row.count("Device number"), row.count("Tensor parallelism")
        try:
            ours = token(system, model, tokens, System(devices, sharing if sharing > 1 else 0))
        except InputError as error:
            raise row.wrong(error) from None
        reference, cycles = (
            round(row.number("PIM latency") * clocks_per_ms),
            round(ours.block_ms * clocks_per_ms),
        )
        told: dict[str, Any] = {
            "case": f"{model}_d{devices}_tp{sharing}_L{tokens}",
            "reference_cycles": reference,
            "cycles": cycles,
            "difference": cycles / reference - 1,
        }
        for name, (column, attribute) in CENT_QUANTITIES.items():
            theirs, value = row.number(column), getattr(ours, attribute)
            told[name] = {"reference": theirs, "ours": value, "difference": value / theirs - 1}
        found.append(told)
        if progress:
            progress(done, len(rows))
    return found


def cent_markdown(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of CENT's part of docs/validation.md."""
    yield "Generated by `pimloom reproduce cent --write-docs docs`; do not edit this part."
    yield ""
    worst = max(abs(row[name]["difference"]) for row in told for name in CENT_QUANTITIES)
    yield (
        f"{len(told)} published rows; of latencies, throughput, energy and power the largest difference is "
        f"{100 * worst:.2g} %. Refresh is off in all of them, as in CENT's own simulator."
    )
    yield ""
    yield "| case | block (clocks) | ours | token latency (ms) | ours | tokens/s | ours | energy (mJ) | ours |"
    yield "| --- |" + " --- |" * 8
    for row in told:
        pairs = [row[name] for name in ("token_latency_ms", "throughput_tokens_per_s", "energy_per_token_mJ")]
        cells = [f"{row['reference_cycles']:,}", f"{row['cycles']:,}"]
        cells += [f"{q[side]:.5g}" for q in pairs for side in ("reference", "ours")]
        yield f"| {row['case']} | " + " | ".join(cells) + " |"

"""Published figures beside ours: runs the machine as published and says quantity, theirs, ours, difference, why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from pimloom.arch.base import Count, Description, Strict
from pimloom.arch.document import load
from pimloom.configs import folder
from pimloom.run import prepare, run
from pimloom.workloads.graph import MATRIX_VECTOR

if TYPE_CHECKING:
    from pimloom.reports.result import Result

SLOW_ASIC = "asic.clock_Hz=1e8"
BOUND_POSITION = 512


class Quantity(Strict):
    """A published quantity: a range, or one value as both ends; `tolerance` beyond the ends, relative."""

    what: str
    unit: str
    low: float
    high: float | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None
    why: str


class Published(Description):
    """What a paper says of its machine."""

    kind: Literal["published"]
    arch: str
    models: list[str]
    tokens: Count
    quantities: dict[str, Quantity]


class Finding(NamedTuple):
    """One line of the comparison; `ours` and `theirs` are ranges (low, high); None = open end."""

    quantity: str
    unit: str
    source: str
    theirs: tuple[float, float | None]
    ours: tuple[float, float]
    within: bool
    why: str


class Runs(NamedTuple):
    """The results by model: as published, with a slow ASIC, and of one token at `BOUND_POSITION`."""

    whole: dict[str, Result]
    slow: dict[str, Result]
    bound: dict[str, Result]


PAPERS = {"pim-gpt": "pim_gpt"}
"""Name on the command line -> file in `configs/baselines`."""


def _one_token(model: str, arch: str) -> Result:
    """Return the pass of one token at `BOUND_POSITION`: decoder only, refresh off."""
    from pimloom.mapping.plan import Planner
    from pimloom.reports.result import Result
    from pimloom.sim import engine
    from pimloom.sim.record import Record, Recorder

    setup = prepare(
        model,
        arch,
        prompt=1,
        generate=BOUND_POSITION,
        embedding=False,
        head=False,
        overrides=["dram.refresh.policy=none"],
    )
    notes = Recorder()
    last = Planner(setup.site).pass_at(BOUND_POSITION - 1)
    outcome = engine.run(setup.arch, [last], notes)
    alone = setup.workload.model_copy(update={"generate": 1})
    return Result.of_run(
        model=setup.model,
        arch=setup.arch,
        workload=alone,
        site=setup.site,
        record=Record(notes, outcome),
        documents=setup.documents,
        engine="fast",
        wall_s=0.0,
    )


def run_all(published: Published, progress: Callable[[str], None] = lambda text: None) -> Runs:
    """Run what the comparison needs."""
    runs = Runs({}, {}, {})
    for model in published.models:
        progress(model)
        for results, overrides in ((runs.whole, []), (runs.slow, [SLOW_ASIC])):
            setup = prepare(model, published.arch, prompt=1, generate=published.tokens, overrides=overrides)
            results[model] = run(setup)
        runs.bound[model] = _one_token(model, published.arch)
    return runs


def lower_bound_ns(result: Result) -> float:
    """Return the least time of one token: a column step a nCCD, nRCDMAC + nRP a row, all banks busy all the time.

    Rows and steps are those of the data without padding: matrices, and K and V of `BOUND_POSITION` tokens.
    """
    model, dram = result.model, result.arch.dram
    values = model.decoder_parameters + 2 * model.layers * model.kv_width * BOUND_POSITION
    lanes = dram.channels * dram.banks * result.arch.elements_per_access
    steps = values / lanes
    clocks = steps * result.arch.nMAC + steps / dram.columns * (dram.timing["nRCDMAC"] + dram.timing["nRP"])
    return clocks / dram.clock_Hz * 1e9


def not_matrix_vector(result: Result) -> float:
    """Return the share of latency outside matrix-vector work, which includes the ASIC's adding of partial sums."""
    shares: dict[str, float] = result.summary["latency_share"]
    return sum(share for group, share in shares.items() if group not in MATRIX_VECTOR)


def _against(results: dict[str, Result], name: str, energy: bool) -> list[float]:
    from pimloom.reports.baselines import compare

    ratios = []
    for result in results.values():
        other = next(b for b in compare(result.model, result.workload) if b.name.startswith(name))
        if energy:
            ours = result.energy_pJ["total"]
            assert other.energy_pJ is not None and ours is not None
            ratios.append(other.energy_pJ / ours)
        else:
            ratios.append(other.time_ns / result.total_time_ns)
    return ratios


def _reduction(results: dict[str, Result], way: str) -> list[float]:
    return [r.summary["interface_bytes"]["reduction"][way]["factor"] for r in results.values()]


def _ours(runs: Runs, published: Published) -> dict[str, list[float]]:
    """Return our values of every quantity."""
    largest, whole = published.models[-1], runs.whole
    arch = whole[largest].arch
    slowdown = [runs.slow[m].total_time_ns / whole[m].total_time_ns * 100 - 100 for m in published.models]
    ratio = {m: r.total_time_ns / lower_bound_ns(r) for m, r in runs.bound.items()}
    return {
        "speedup_gpu": _against(whole, "NVIDIA T4", energy=False),
        "speedup_cpu": _against(whole, "Intel Xeon", energy=False),
        "energy_gpu": _against(whole, "NVIDIA T4", energy=True),
        "energy_cpu": _against(whole, "Intel Xeon", energy=True),
        "traffic": _reduction(whole, "decoder_payload"),
        "traffic_parameters": _reduction(whole, "decoder_payload_with_parameters"),
        "traffic_bus": _reduction(whole, "decoder_bus"),
        "traffic_whole": _reduction(whole, "whole_bus"),
        "row_hit": [100 * r.summary["row_hit_rate"] for r in whole.values()],
        "not_vmm": [100 * not_matrix_vector(whole[largest])],
        "asic_busy": [100 * whole[largest].counts.asic_busy_ps / whole[largest].counts.time_ps],
        "slow_asic": [max(slowdown)],
        "peak_compute": [2 * arch.peaks.mac_per_s / 1e12],
        "peak_bandwidth": [arch.peaks.internal_Bps / 1e9],
        "mac_power": [arch.pim.mac_power_W * 1e3],
        "asic_power": [arch.asic.active_power_W * 1e3],
        "parameters_xl": [whole[largest].model.decoder_parameters / 2**20],
        "parameters_largest": [max(r.model.decoder_parameters for r in whole.values()) / 2**20],
        "time_bound_xl": [ratio[largest]],
        "time_bound_small": [x for m, x in ratio.items() if m != largest],
    }


def reproduce(name: str, progress: Callable[[str], None] = lambda text: None) -> tuple[list[Finding], Runs]:
    """Return the comparison with a paper (a key of `PAPERS`) and the runs behind it."""
    published, document = load(Published, "published", str(folder("published") / f"{PAPERS[name]}.yaml"))
    runs = run_all(published, progress)
    ours = _ours(runs, published)
    sources = document.sources()
    findings = []
    for key, q in published.quantities.items():
        low, high = min(ours[key]), max(ours[key])
        slack = q.tolerance or 0.0
        above = q.low * (1 - slack) - 1e-9 <= low
        within = above and (q.high is None or high <= q.high * (1 + slack) + 1e-9)
        source = sources[f"quantities.{key}.low"]
        findings.append(Finding(q.what, q.unit, source, (q.low, q.high), (low, high), within, q.why))
    return findings, runs


def spread(ends: tuple[float, float | None]) -> str:
    """Return a range as text, or the one value of it."""
    low, high = ends
    if high is None:
        return f"at least {low:.4g}"
    return f"{low:.4g}" if abs(high - low) <= 1e-9 * abs(high) else f"{low:.4g} – {high:.4g}"


def difference(finding: Finding) -> str:
    """Return how far ours is from theirs: inside, or the relative distance of the ends."""
    if finding.within:
        return "inside"
    low, high = finding.theirs
    ends = sorted(finding.ours)
    if finding.unit == "%":
        points = (end - (low if end < low else high or low) for end in ends)
        return " … ".join(dict.fromkeys(f"{p:+.1f}" for p in points)) + " points"
    pairs = zip(ends, (low, high or low), strict=True)
    return " … ".join(dict.fromkeys(f"{100 * (ours / theirs - 1):+.0f}" for ours, theirs in pairs)) + " %"


def markdown(name: str, findings: list[Finding], runs: Runs) -> Iterator[str]:
    """Yield the lines of the paper's part of `docs/validation.md`."""
    yield f"Generated by `pimloom reproduce {name} --write-docs docs`; do not edit this part."
    yield ""
    yield "| quantity | source | theirs | ours | difference | why |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for f in findings:
        yield (
            f"| {f.quantity} ({f.unit}) | {f.source} | {spread(f.theirs)} | {spread(f.ours)} | {difference(f)} "
            f"| {f.why.strip()} |"
        )
    yield ""
    yield "### Where the time goes"
    yield ""
    yield "1,024 tokens from one prompt token, embedding and LM head included; per cent of the run."
    yield ""
    yield from _shares(runs.whole, "latency_share")
    yield ""
    yield f"One token at position {BOUND_POSITION}, decoder only, refresh off; per cent of the channels' clocks."
    yield ""
    yield from _shares(runs.bound, "command_time_share")
    yield ""
    yield "| model | time per token (ms) | lower bound (ms) | ratio |"
    yield "| --- | --- | --- | --- |"
    for model, r in runs.bound.items():
        bound = lower_bound_ns(r)
        yield f"| {model} | {r.total_time_ns / 1e6:.4f} | {bound / 1e6:.4f} | {r.total_time_ns / bound:.3f} |"


def _shares(results: dict[str, Result], key: str) -> Iterator[str]:
    names = list(next(iter(results.values())).summary[key])
    yield "| model | " + " | ".join(name.replace("_", " ") for name in names) + " |"
    yield "| --- |" + " --- |" * len(names)
    for model, r in results.items():
        yield f"| {model} | " + " | ".join(f"{100 * r.summary[key][name]:.2f}" for name in names) + " |"

"""What figures of a sweep call keys, metrics, values and processors, and the units in which they give numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from pimloom.reports.plots import LABELS
from pimloom.reports.sweep_data import RATIOS, Axis, word


class Unit(NamedTuple):
    """Names of a unit and its multiples, each `step` of the one before; a number times `factor` is in the first."""

    names: tuple[str, ...] = ("",)
    step: int = 1000
    factor: float = 1

    def fit(self, value: float) -> tuple[str, float]:
        """Return the multiple in which `value` is readable, and the factor to get there."""
        factors = [self.factor / self.step**i for i in range(len(self.names))]
        fit = (i for i, factor in enumerate(factors) if abs(value) * factor < self.step)
        i = next(fit, len(factors) - 1)
        return self.names[i], factors[i]


CLOCKS, TIMES, PERCENT = Unit(("clocks",)), Unit(("×",)), Unit(("%",), factor=100)
UNITS = {
    "per_s": Unit(("1/s",)), "pJ_per_bit": Unit(("pJ/bit",)), "Hz": Unit(("Hz", "kHz", "MHz", "GHz")),
    "bps": Unit(("b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s")), "Bps": Unit(("B/s", "kB/s", "MB/s", "GB/s", "TB/s")),
    "B": Unit(("B", "KiB", "MiB", "GiB", "TiB"), 1024), "bit": Unit(("bit",)), "s": Unit(("s",)),
    "ns": Unit(("ns", "µs", "ms", "s")), "ps": Unit(("ps", "ns", "µs", "ms", "s")), "W": Unit(("W", "kW")),
    "pJ": Unit(("pJ", "nJ", "µJ", "mJ", "J", "kJ")), "mA": Unit(("mA", "A")), "V": Unit(("V",)),
    "share": PERCENT, "utilisation": PERCENT, "utilisation_useful": PERCENT, "hit_rate": PERCENT,
}  # fmt: skip
"""End of a key's word -> unit: names carry their unit throughout."""

NAMES = {
    "model": "model", "arch": "machine", "dram.channels": "DRAM channels", "dram.clock_Hz": "DRAM clock",
    "dram.io.rate_bps": "pin rate", "dram.io.width_bit": "pins per channel", "dram.bankgroups": "bank groups",
    "dram.banks_per_bankgroup": "banks per bank group", "dram.rows": "rows per bank",
    "dram.columns": "columns per row", "pim.lanes": "MAC lanes per bank", "pim.clock_Hz": "MAC clock",
    "pim.buffer_B": "input buffer", "asic.clock_Hz": "ASIC clock", "asic.adders": "ASIC adders",
    "asic.multipliers": "ASIC multipliers", "asic.sram_B": "ASIC SRAM", "link.rate_bps": "link rate",
    "link.width_bit": "link width", "link.latency_ns": "link latency", "mapping.barrier": "barrier",
    "mapping.max_tokens": "reserved tokens", "workload.prompt": "prompt tokens",
    "workload.generate": "new tokens", "workload.batch": "batch size", "workload.embedding": "embedding",
    "workload.head": "LM head", "tokens_per_s": "tokens per second", "energy_per_token_pJ": "energy per token",
    "energy_pJ.total": "energy", "ttft_ns": "time to first token", "tpot_ns": "time per output token",
    "total_time_ns": "total time", "average_power_W": "average power", "pim_utilisation": "PIM utilisation",
    "pim_utilisation_useful": "PIM utilisation without padding", "row_hit_rate": "row hits",
    "bandwidth_inside_Bps.achieved": "bandwidth inside", "bandwidth_pins_Bps.achieved": "bandwidth of the pins",
    "interface_bytes.reduction.decoder_payload.factor": "traffic reduction",
    "speedup": "speedup", "energy_saving": "energy saving",
}  # fmt: skip
"""Swept key or result -> how a figure calls it; others go by their dotted name without the unit."""
FAMILIES = {"energy_pJ": "energy", "energy_by_operator_pJ": "energy", "latency_share": "time share"}
"""Results by component or operator class, which `plots.LABELS` names."""


def unit_of(key: str) -> Unit:
    """Return the unit that a swept key or a result has by its name."""
    if key in RATIOS or key.startswith(tuple(ratio.column for ratio in RATIOS.values())):
        return TIMES
    for part in reversed(key.split(".")):
        if re.fullmatch("n[A-Z][A-Za-z]*", part):
            return CLOCKS
        for end, unit in UNITS.items():
            if part == end or part.endswith(f"_{end}"):
                return unit
    return Unit()


def name_of(key: str) -> str:
    """Return what figures call a swept key or a result, without its unit."""
    if key in NAMES:
        return NAMES[key]
    family, _, member = key.partition(".")
    for name, ratio in RATIOS.items():
        if key.startswith(ratio.column):
            return f"{NAMES[name]} over {processor_name(member)}"
    if family in FAMILIES and member:
        return f"{FAMILIES[family]}: {LABELS.get(member, member)}"
    if unit_of(key) is CLOCKS:
        return key.rpartition(".")[2]
    ends = "|".join(end for end, unit in UNITS.items() if unit is not PERCENT)
    return re.sub(rf"_({ends})(?=\.|$)", "", key)


def processor_name(name: str) -> str:
    """Return what figures call a processor: without its maker, and with what its numbers are."""
    kind = "roofline" if name.endswith("_roofline") else "measured"
    words = name.removesuffix("_roofline").replace("_", " ")
    return f"{re.sub('^(NVIDIA|Intel|AMD) ', '', words)} ({kind})"


def value_text(key: str, text: str) -> str:
    """Return a swept key's value with its unit: 16 Gb/s, 12 clocks, data."""
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            unit, factor = unit_of(key).fit(number)
            return f"{_number(number * factor)} {unit}".rstrip()
    return text


def place_text(where: Mapping[str, str]) -> str:
    """Return swept keys and the values that they are held at."""
    return ", ".join(f"{name_of(key)} = {value_text(key, text)}" for key, text in where.items())


def axis_labels(axis: Axis, key: str, texts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the label of a swept key and those of its values, in one unit where that reads well."""
    equals = [name_of(other) for other in axis.keys if other != key and axis.of(other) == axis.of(key)]
    name = " = ".join([name_of(key), *equals])
    numbers = [float(text) for text in texts] if axis.is_numeric(key) else []
    unit, factor = unit_of(key).fit(min((abs(n) for n in numbers if n), default=0))
    five_digits = 10_000
    if not numbers or (unit and max(numbers) * factor >= five_digits):
        return name, [value_text(key, text) for text in texts]
    labels = [_number(n * factor) for n in numbers]
    if len(set(labels)) < len(set(numbers)):
        labels = [f"{n * factor:.12g}" for n in numbers]
    return f"{name} ({unit})" if unit else name, labels


def metric_label(metric: str, over: str | None, values: Sequence[float], is_log: bool) -> tuple[str, float]:
    """Return the label of a metric, in the unit that suits `values`, and the factor to that unit.

    over: what a ratio is over, as in a figure's `Spec`; None = several processors
    """
    unit, factor = unit_of(metric).fit(max(map(abs, values)))
    name = name_of(metric)
    if metric in RATIOS:
        name += f" over {'…' if over is None else _reference(over)}"
    said = ", ".join(filter(None, (unit, "log scale" if is_log else "")))
    return f"{name} ({said})" if said else name, factor


def _reference(over: str) -> str:
    if "=" not in over:
        return processor_name(over)
    pairs = [part.partition("=") for part in over.split(",")]
    texts = [(key.strip(), value_text(key.strip(), word(text))) for key, _, text in pairs]
    return ", ".join(text if key in ("model", "arch") else f"{name_of(key)} = {text}" for key, text in texts)


def _number(value: float) -> str:
    """Return a number in full if it is a whole one, else to four digits."""
    whole = round(value)
    return f"{whole}" if math.isclose(value, whole, rel_tol=1e-12) else f"{value:.4g}"

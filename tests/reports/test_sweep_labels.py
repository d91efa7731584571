"""What figures call keys and metrics, in which units."""

from collections.abc import Sequence

import pytest

from pimloom.reports.definitions import definitions
from pimloom.reports.sweep_data import Axis
from pimloom.reports.sweep_labels import axis_labels, metric_label, name_of, unit_of, value_text

SWEPT: dict[str, tuple[str, Sequence[float], list[str]]] = {
    "dram.channels": ("DRAM channels", (8, 16), ["8", "16"]),
    "dram.io.rate_bps": ("pin rate (Gb/s)", (8e9, 16e9), ["8", "16"]),
    "asic.clock_Hz": ("ASIC clock (MHz)", (5e8, 1e9), ["500", "1000"]),
    "pim.lanes": ("MAC lanes per bank", (8, 16), ["8", "16"]),
    "pim.buffer_B": ("input buffer (KiB)", (1024, 2048), ["1", "2"]),
    "dram.timing.nRP": ("nRP (clocks)", (12, 24), ["12", "24"]),
    "link.latency_ns": ("link latency (ns)", (2, 4), ["2", "4"]),
    "pim.mac_power_W": ("pim.mac_power (W)", (0.1, 0.2), ["0.1", "0.2"]),
    "pim.buffer_read_pJ": ("pim.buffer_read (pJ)", (0.25, 0.5), ["0.25", "0.5"]),
    "energy.io_pJ_per_bit": ("energy.io (pJ/bit)", (4, 5.5), ["4", "5.5"]),
    "dram.currents.IDD0_mA": ("dram.currents.IDD0 (mA)", (100, 122), ["100", "122"]),
    "asic.taylor_terms": ("asic.taylor_terms", (4, 6), ["4", "6"]),
    "workload.generate": ("new tokens", (128, 1024), ["128", "1024"]),
}


def labels(key: str, values: Sequence[float]) -> tuple[str, list[str]]:
    return axis_labels(Axis((key,), tuple((v,) for v in values)), key, [f"{v:.12g}" for v in values])


@pytest.mark.parametrize("key", SWEPT)
def test_swept_keys_are_labelled_with_their_unit(key: str) -> None:
    name, values, texts = SWEPT[key]
    assert labels(key, values) == (name, texts)


def test_labels_are_rounded_as_long_as_they_differ() -> None:
    assert labels("asic.clock_Hz", (129154967, 215443469))[1] == ["129.2", "215.4"]
    assert labels("asic.clock_Hz", (100001000, 100002000))[1] == ["100.001", "100.002"]


def test_values_of_different_units_carry_them() -> None:
    found = labels("asic.sram_B", (512, 65536, 2**26))
    assert found == ("ASIC SRAM", ["512 B", "64 KiB", "64 MiB"])


@pytest.mark.parametrize(
    ("metric", "over", "value", "label"),
    [
        ("tokens_per_s", None, 40, "tokens per second (1/s)"),
        ("energy_per_token_pJ", None, 8e9, "energy per token (mJ)"),
        ("ttft_ns", None, 5e6, "time to first token (ms)"),
        ("pim_utilisation", None, 0.25, "PIM utilisation (%)"),
        ("energy_pJ.dram_read", None, 3e9, "energy: DRAM reads (mJ)"),
        ("speedup_over.NVIDIA_T4_roofline", None, 2, "speedup over T4 (roofline) (×)"),
        ("speedup", None, 2, "speedup over … (×)"),
        ("speedup", "NVIDIA_H200_graph", 2, "speedup over H200 graph (measured) (×)"),
        ("speedup", "arch=pim-gpt", 2, "speedup over pim-gpt (×)"),
        ("energy_saving", "asic.clock_Hz=1e8", 2, "energy saving over ASIC clock = 100 MHz (×)"),
    ],
)
def test_metrics_are_labelled_with_their_unit(
    metric: str, over: str | None, value: float, label: str
) -> None:
    assert metric_label(metric, over, [value], is_log=False)[0] == label


def test_a_key_has_the_unit_that_the_glossary_says() -> None:
    shares = {"pim_utilisation", "pim_utilisation_useful", "row_hit_rate", "refresh_time_share"}
    for key, definition in definitions().items():
        first = unit_of(key).names[0]
        if definition.unit.endswith("_unit") or key.startswith(("energy_rows", "interface_bytes.reduction")):
            continue
        is_share = key in shares or key.split(".")[0].endswith("_share")
        assert first == ("%" if is_share else definition.unit), key


def test_names_do_not_repeat_the_unit() -> None:
    assert name_of("latency_share.qkv") == "time share: Q, K, V"
    assert name_of("memory.wasted_B") == "memory.wasted"
    assert name_of("commands.ACT") == "commands.ACT"


def test_values_as_titles_say_them() -> None:
    assert value_text("dram.io.rate_bps", "16000000000") == "16 Gb/s"
    assert value_text("asic.clock_Hz", "100000000") == "100 MHz"
    assert value_text("mapping.barrier", "data") == "data"
    assert value_text("dram.rows", "16384") == "16384"
    assert value_text("asic.clock_Hz", "129154967") == "129.2 MHz"

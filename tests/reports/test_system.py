"""What results of systems and kernels say, and that every key of them is explained."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from pimloom import system
from pimloom.arch.device import load_device
from pimloom.bench import kernel_result, run_kernel
from pimloom.reports.definitions import device_keys
from pimloom.reports.system import CAUSES, comparison_row, time_share
from pimloom.traces.stream import Gemv


def keys(value: Any, path: str) -> Iterator[str]:
    """Dotted paths of all leaves; a list is one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys(inner, f"{path}.{key}")
    else:
        yield path


def unexplained(told: dict[str, Any], name: str) -> list[str]:
    known = device_keys()
    return [key for key in keys(told, name) if not any(fnmatchcase(key, pattern) for pattern in known)]


def test_every_key_is_explained() -> None:
    plan = system.prepare("opt-125m", "newton", generate=2, overrides=["model.layers=1", "model.vocab=97"])
    assert unexplained(system.simulate(plan).summary, "system") == []
    told = kernel_result(run_kernel(load_device("gddr6-aim")[0], Gemv(17, 40)))
    assert unexplained(told, "kernel") == []
    assert unexplained({"new": 1}, "kernel") == ["kernel.new"]


def test_a_machine_with_an_asic_is_compared_by_the_same_causes() -> None:
    waits = {
        "mac_streaming": 0.4, "mac_stalls": 0.1, "row_switching": 0.1, "transfer_in": 0.02, "transfer_out": 0.03,
        "cache_and_table_access": 0.05, "refresh": 0.1, "data_tail": 0.01, "waiting": 0.19,
    }  # fmt: skip
    share = time_share({"command_time_share": waits})
    assert list(share) == list(CAUSES)
    assert abs(sum(share.values()) - 1) < 1e-12
    assert (share["compute"], share["row_switching"], share["host"]) == (0.4, 0.2, 0.19)


def test_energy_of_a_token_is_unknown_where_all_of_it_is() -> None:
    told = {
        "arch": "x", "workload": {"batch": 2, "generate": 5}, "total_time_ns": 1.0, "ttft_ns": 1.0, "tpot_ns": None,
        "tokens_per_s": 1.0, "energy_pJ": {"total": None}, "energy_left_out": ["MAC"], "pim_utilisation": None,
        "time_share": dict.fromkeys(CAUSES, 0.0),
    }  # fmt: skip
    assert comparison_row(told)["energy_per_token_pJ"] is None
    assert comparison_row({**told, "energy_pJ": {"total": 50.0}})["energy_per_token_pJ"] == 5

"""The summary of small runs against counts made in other ways."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from pimloom.reports.definitions import definitions
from pimloom.reports.result import Result
from pimloom.traces.task import PimTask
from tests.reports.conftest import simulate

CHANNELS, BANKS, ACCESS_B = 8, 16, 32


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from leaves(item, f"{path}.*")
    else:
        yield path


def test_it_is_plain_json_in_a_fixed_order(tiny: Result) -> None:
    assert json.loads(tiny.json()) == tiny.summary
    again = simulate(prompt=2, generate=3)
    ours, theirs = (dict(r.summary, simulator=None) for r in (tiny, again))
    assert json.dumps(ours) == json.dumps(theirs)


def test_every_key_is_defined_and_every_definition_used(tiny: Result) -> None:
    known = definitions()
    paths = set(leaves(tiny.summary))
    assert [p for p in paths if not any(fnmatchcase(p, key) for key in known)] == []
    assert [key for key in known if not any(fnmatchcase(p, key) for p in paths)] == []
    assert all(d.text for d in known.values())


def test_times(tiny: Result) -> None:
    assert tiny.record is not None
    ends_ps = tiny.record.notes.ends_ps
    assert len(tiny.time_per_token_ns) == 2 + 3 - 1
    assert tiny.total_time_ns == ends_ps[-1] / 1000
    assert sum(tiny.time_per_token_ns) == pytest.approx(tiny.total_time_ns, rel=1e-12)
    assert tiny.ttft_ns == ends_ps[1] / 1000
    assert tiny.tpot_ns == pytest.approx((ends_ps[-1] - ends_ps[1]) / 2 / 1000)
    assert tiny.tokens_per_s == pytest.approx(3 / (tiny.total_time_ns * 1e-9))


def test_one_new_token_has_no_time_per_output_token() -> None:
    one = simulate(prompt=1, generate=1)
    assert one.tpot_ns is None
    assert '"tpot_ns": null' in one.json()


@pytest.mark.parametrize("which", ["tiny", "overlapped"])
def test_shares_add_up(which: str, request: pytest.FixtureRequest) -> None:
    summary = request.getfixturevalue(which).summary
    for key in ("latency_share", "command_time_share"):
        assert sum(summary[key].values()) == pytest.approx(1)
        assert all(share >= 0 for share in summary[key].values())


def test_counts_and_rates(tiny: Result) -> None:
    s, counts = tiny.summary, tiny.summary["commands"]
    seconds = tiny.total_time_ns * 1e-9
    assert s["pim_utilisation"] == pytest.approx(counts["MAC_AB"] / (CHANNELS * tiny.total_time_ns))
    assert s["command_time_share"]["mac_streaming"] == pytest.approx(s["pim_utilisation"])
    moved = counts["MAC_AB"] * BANKS * ACCESS_B
    assert s["bandwidth_inside_Bps"]["achieved"] == pytest.approx(moved / seconds)
    assert s["bandwidth_inside_Bps"]["peak"] == 4096e9
    assert s["bandwidth_pins_Bps"]["peak"] == 256e9
    activations = counts["ACT"] + BANKS * counts["ACT_AB"]
    accesses = counts["RD"] + counts["WR"] + BANKS * counts["MAC_AB"]
    assert s["row_hit_rate"] == pytest.approx(1 - activations / accesses)
    assert s["refresh_time_share"] == pytest.approx(counts["REFab"] * 455 / (CHANNELS * tiny.total_time_ns))
    simulator = s["simulator"]
    issued = simulator["commands_simulated"] + simulator["commands_skipped"]
    assert issued == sum(counts.values())


def test_useful_multiplications(tiny: Result) -> None:
    m = tiny.model
    layer = 4 * m.d_model**2 + 2 * m.d_model * m.d_ff
    attention = 2 * m.d_model * (1 + 2 + 3 + 4)
    macs = m.layers * (4 * layer + attention) + 3 * m.vocab * m.d_model
    share = macs / (CHANNELS * BANKS * 16 * tiny.total_time_ns)
    assert tiny.summary["pim_utilisation_useful"] == pytest.approx(share)
    assert share < tiny.summary["pim_utilisation"]


def test_bytes_of_the_programs_are_the_bytes_of_the_channels(tiny: Result) -> None:
    """Twice the same: from the commands that channels issued, and from the programs of all tasks."""
    moved = tiny.summary["interface_bytes"]
    for way in ("to_memory", "from_memory"):
        assert moved["bus_B"][way] == sum(group[way] for group in moved["bus_by_class_B"].values())
    counts = tiny.summary["commands"]
    assert moved["bus_B"]["to_memory"] == (counts["WR"] + counts["WR_GB"]) * ACCESS_B
    assert moved["bus_B"]["total"] == moved["bus_B"]["to_memory"] + moved["bus_B"]["from_memory"]
    for group, payload in moved["payload_by_class_B"].items():
        assert payload["sent_once"] <= payload["sent"] <= moved["bus_by_class_B"][group]["to_memory"]
        assert payload["received"] <= moved["bus_by_class_B"][group]["from_memory"]


def test_interface_reduction_by_hand(tiny: Result) -> None:
    """A copy of the input to every channel with a tile; a dot product is one chunk and comes back once."""
    m = tiny.model
    d, tokens = m.d_model, range(1, 5)

    def product(out: int, size: int) -> int:
        return min(CHANNELS, -(-out // BANKS)) * size + out

    layer = product(3 * d, d) + product(d, d) + product(m.d_ff, d) + product(d, m.d_ff)
    writes, keys, values = 2 * d, (d + m.heads * t for t in tokens), (m.heads * t + d for t in tokens)
    ours_B = 2 * m.layers * (4 * (layer + writes) + sum(keys) + sum(values))
    baseline_B = 2 * m.layers * (4 * (4 * d * d + 2 * d * m.d_ff) + sum(2 * t * d for t in tokens))
    reduction = tiny.summary["interface_bytes"]["reduction"]["decoder_payload"]
    assert reduction == {"ours_B": ours_B, "baseline_B": baseline_B, "factor": baseline_B / ours_B}
    everything = tiny.summary["interface_bytes"]["reduction"]
    assert everything["whole_bus"]["ours_B"] == tiny.summary["interface_bytes"]["bus_B"]["total"]


def test_what_lies_outside_the_decoder_can_be_left_out() -> None:
    bare = simulate(prompt=1, generate=2, embedding=False, head=False).summary["interface_bytes"]
    assert bare["bus_by_class_B"].keys().isdisjoint({"embedding", "lm_head"})
    assert bare["reduction"]["whole_bus"] == bare["reduction"]["decoder_bus"]


def test_a_pass_is_all_there(tiny: Result) -> None:
    """Only passes from the last prompt token's on need the head."""
    assert tiny.record is not None
    heads = [
        sum(isinstance(t, PimTask) and t.group == "lm_head" for b in item.blocks for t in b.tasks)
        for item, _ in tiny.record.notes.passes
    ]
    assert heads == [0, 1, 1, 1]

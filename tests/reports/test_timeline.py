"""The trace that Perfetto opens."""

import json
from collections import defaultdict
from typing import Any

import pytest

from pimloom.reports.result import Result
from pimloom.reports.timeline import timeline

TRACKS = [*(f"channel {c}" for c in range(8)), "ASIC", "link to memory", "link from memory"]


def slices(trace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names, found = {}, defaultdict(list)
    for event in trace["traceEvents"]:
        if event["name"] == "thread_name":
            names[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    assert list(names.values()) == TRACKS
    return found


@pytest.mark.parametrize("which", ["tiny", "overlapped"])
def test_slices_of_a_track_never_overlap(which: str, request: pytest.FixtureRequest) -> None:
    result: Result = request.getfixturevalue(which)
    assert result.record is not None
    trace = timeline(result.arch, result.record.notes, 0)
    for track in slices(json.loads(json.dumps(trace))).values():
        begin_ps = [round(e["ts"] * 1e6) for e in track]
        end_ps = [round((e["ts"] + e["dur"]) * 1e6) for e in track]
        assert all(a < b for a, b in zip(begin_ps, end_ps, strict=True))
        assert all(e <= b for e, b in zip(end_ps, begin_ps[1:], strict=False))
        assert end_ps[-1] <= result.counts.time_ps


def test_it_shows_the_last_pass_unless_told_otherwise(tiny: Result) -> None:
    assert tiny.record is not None
    notes = tiny.record.notes
    last = slices(timeline(tiny.arch, notes))
    begin_us = min(event["ts"] for track in last.values() for event in track)
    assert begin_us == notes.ends_ps[-2] / 1e6
    end_us = max(event["ts"] + event["dur"] for track in last.values() for event in track)
    assert end_us == pytest.approx(notes.ends_ps[-1] / 1e6, abs=1e-9)
    assert {e["args"]["position"] for track in last.values() for e in track} == {3}
    two = slices(timeline(tiny.arch, notes, 1, 3))
    assert timeline(tiny.arch, notes)["otherData"] == {
        "arch": "pim-gpt", "positions_shown": [3], "passes_of_the_run": 4,
    }  # fmt: skip
    assert {e["args"]["position"] for track in two.values() for e in track} == {1, 2}


def test_with_barrier_every_task_is_there_in_full(tiny: Result) -> None:
    assert tiny.record is not None
    last = slices(timeline(tiny.arch, tiny.record.notes))
    steps = list(tiny.record.notes.steps(3))
    on_asic = [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in last["ASIC"]]
    assert on_asic == [
        (s.name, s.begin_ps / 1e6, pytest.approx(s.end_ps / 1e6)) for s in steps if s.unit == "asic"
    ]
    there = [e["name"] for e in last["link to memory"]]
    assert there == [s.name for s in steps if s.unit == "pim"]
    sent = {e["name"]: e["args"]["payload_sent_B"] for e in last["link to memory"]}
    assert sent["layer0.qkv"] == 8 * tiny.model.d_model * 2

"""A run as slices over time in Chrome's trace format, which Perfetto opens (https://ui.perfetto.dev)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pimloom.arch.machine import Arch
from pimloom.sim.record import Recorder
from pimloom.traces.task import AsicTask, PimTask

Event = dict[str, Any]

PROCESS = 1
"""All tracks belong to one process, the machine."""


class Slice(NamedTuple):
    """One stretch of work on a track."""

    begin_ps: int
    end_ps: int
    name: str
    group: str
    args: dict[str, Any]


def timeline(
    arch: Arch, notes: Recorder, first: int | None = None, stop: int | None = None
) -> dict[str, Any]:
    """Return the trace of the passes first .. stop - 1 (default: the last pass alone).

    Tracks: every channel, the ASIC, the link in each direction. A task's slice ends with its slowest channel.
    Slices of a track never overlap: one that would begin before the end of the one before is cut to begin
    there. `ts` and `dur` are in us, as the format wants.
    """
    if first is None:
        first = max(len(notes.passes) - 1, 0)
    channels = arch.dram.channels
    names = [*(f"channel {c}" for c in range(channels)), "ASIC", "link to memory", "link from memory"]
    asic, to_memory, from_memory = channels, channels + 1, channels + 2
    link_ps = round(arch.link.latency_ns * 1000)
    tracks: list[list[Slice]] = [[] for _ in names]
    for item, times in notes.passes[first:stop]:
        for block, t in zip(item.blocks, times, strict=True):
            for turn in range(block.repeat):
                label = block.label.format(turn)
                for k, task in enumerate(block.tasks):
                    begin, end = int(t.begin[turn, k]), int(t.end[turn, k])
                    name, group = label + task.name, task.group
                    args: dict[str, Any] = {"position": item.position, "operator_class": group}
                    if isinstance(task, AsicTask):
                        args |= {"function": task.function, "group_values": task.size, "groups": task.count}
                        tracks[asic].append(Slice(begin, end, name, group, args))
                        continue
                    args |= _payload(arch, task)
                    there, back = begin + link_ps, end - link_ps
                    tracks[to_memory].append(Slice(begin, there, name, group, args))
                    for c, program in enumerate(task.programs):
                        if program is not None:
                            tracks[c].append(Slice(there, back, name, group, args))
                    tracks[from_memory].append(Slice(back, end, name, group, args))
    # A channel takes its tasks in order of issue; the link carries what is ready.
    tracks[to_memory].sort(key=lambda s: s.begin_ps)
    tracks[from_memory].sort(key=lambda s: s.begin_ps)
    events = [_metadata("process_name", 0, arch.name)]
    for track, (name, slices) in enumerate(zip(names, tracks, strict=True)):
        events += [_metadata("thread_name", track, name), _metadata("thread_sort_index", track, track)]
        events += _cut(track, slices)
    shown = [item.position for item, _ in notes.passes[first:stop]]
    told = {"arch": arch.name, "positions_shown": shown, "passes_of_the_run": len(notes.passes)}
    return {"displayTimeUnit": "ns", "otherData": told, "traceEvents": events}


def _cut(track: int, slices: list[Slice]) -> Iterator[Event]:
    """Yield the slices of a track as events that do not overlap."""
    free = 0
    for begin, end, name, group, args in slices:
        start = max(begin, free)
        if end > start:
            free = end
            yield {
                "name": name, "cat": group, "ph": "X", "pid": PROCESS, "tid": track,
                "ts": start / 1e6, "dur": (end - start) / 1e6, "args": args,
            }  # fmt: skip


def _metadata(name: str, track: int, value: str | int) -> Event:
    key = "sort_index" if isinstance(value, int) else "name"
    return {"name": name, "ph": "M", "pid": PROCESS, "tid": track, "args": {key: value}}


def _payload(arch: Arch, task: PimTask) -> dict[str, Any]:
    """Return the bytes of a task's values that are meant, of all channels."""
    sent, _, received = (values * arch.pim.element_B for values in task.traffic)
    busy = sum(program is not None for program in task.programs)
    return {"channels": busy, "payload_sent_B": sent, "payload_received_B": received}

"""Golden runs: exact times and counts of whole runs, and the first commands that a channel issues."""

from collections.abc import Callable

import pytest

from pimloom.mapping.plan import Planner
from pimloom.run import prepare, trace
from pimloom.sim.engine import run
from pimloom.sim.record import Recorder

RUNS = {
    "gpt2-small_pim-gpt": ("gpt2-small", "pim-gpt", []),
    "gpt2-xl_pim-gpt_data": ("gpt2-xl", "pim-gpt", ["mapping.barrier=data", "model.layers=2"]),
    "gpt3-xl_pim-gpt-aim-timing": ("gpt3-xl", "pim-gpt-aim-timing", ["model.layers=2"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_is_exactly_as_reviewed(name: str, golden: Callable[[str, str], None]) -> None:
    model, arch, overrides = RUNS[name]
    setup = prepare(model, arch, prompt=2, generate=3, overrides=overrides)
    notes = Recorder()
    outcome = run(setup.arch, Planner(setup.site).passes(), notes)
    commands = setup.arch.dram.command_names
    lines = [f"ends_ps {' '.join(map(str, notes.ends_ps))}", f"asic_busy_ps {outcome.asic_busy_ps}"]
    lines += [f"{group}_ps {ps}" for group, ps in notes.group_ps.items()]
    for c, totals in enumerate(outcome.totals[:, : len(commands)].tolist()):
        lines.append(f"channel {c}: " + " ".join(f"{n} {k}" for n, k in zip(commands, totals, strict=True)))
    golden(f"{name}.txt", "\n".join(lines) + "\n")


def test_first_commands_are_exactly_as_reviewed(golden: Callable[[str, str], None]) -> None:
    setup = prepare("gpt2-small", "pim-gpt", generate=1, head=False, overrides=["model.layers=1"])
    t = trace(setup, 0, 1)
    rows = zip(t.cycle, t.command, t.channel, t.bankgroup, t.bank, t.row, t.column, strict=True)
    lines = [
        f"{cycle} {t.commands[command]} {group} {bank} {row} {column}"
        for cycle, command, channel, group, bank, row, column in rows
        if channel == 0
    ]
    golden("gpt2-small_layer0_channel0.txt", "\n".join(lines[:600]) + "\n")

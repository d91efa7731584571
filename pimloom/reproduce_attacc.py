"""AttAcc's end-to-end rows: a generation step of a model on GPUs whose attention is in PIM stacks, beside ours."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

from pimloom.arch.device import load_device
from pimloom.arch.gpu import load_gpu
from pimloom.arch.tree import InputError
from pimloom.configs import folder
from pimloom.mapping.devices import lower
from pimloom.offload import Decoder, Memory, Offloaded, Step, generation_step
from pimloom.reports.cases import Row, read_rows
from pimloom.sim.bench import channels
from pimloom.sim.roofline import Energy
from pimloom.traces.stream import Attention, Site

COLUMNS = (
    "case",
    "arguments",
    "model",
    "hw",
    "cores",
    "power constraint",
    "Lin",
    "bs",
    "g_time (ms)",
    "g_energy (nJ)",
)
CLOCK_ns = 0.769
"""As the AttAcc simulator counts (5.2 Gb/s pins / 4)."""
GPT, OPT, LLAMA = 8, 1, 9
MODELS = {
    "GPT-175B": Decoder(96, 12288, 96, 4 * 12288, False, GPT),
    "LLAMA-65B": Decoder(80, 8192, 64, 8 / 3 * 8192, True, LLAMA),
    "OPT-66B": Decoder(64, 9216, 72, 4 * 9216, False, OPT),
    "GPT-13B": Decoder(40, 5120, 40, 4 * 5120, False, GPT),
}
"""As the AttAcc simulator has them; the last number: operations of the activation for a value."""
STACKS, STACK_Bps = 5, 670.4e9
"""Of one GPU (AttAcc, ASPLOS 2024)."""
RATE = {("bank", "True"): 9, ("bank", "False"): 16, ("bg", "True"): 3, ("bg", "False"): 8}
"""Level, whether power is limited -> internal bandwidth over a GPU's memory's, in AttAcc's simulator."""


def reproduce_steps(
    cases: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a table (None = the shipped one) beside ours, as plain JSON types; cycles are of CLOCK_ns.

    Raises InputError.
    """
    rows = read_rows(cases or folder("published") / "attacc_end_to_end.csv", COLUMNS)
    gpu, found = load_gpu("a100a")[0], []
    for done, row in enumerate(rows, 1):
        decoder = MODELS[row.text("model", tuple(MODELS))]
        try:
            memory = (
                None if row.text("hw", ("BA", "BG", "NONE")) == "NONE" else memory_of(row, decoder.d_head)
            )
            step = generation_step(
                gpu, row.count("cores"), decoder, row.count("bs"), row.count("Lin") + 1, memory
            )
        except InputError as error:
            raise row.wrong(error) from None
        ours = columns(step)
        told: dict[str, Any] = {"case": row.text("case")}
        clocks = [round(ms * 1e6 / CLOCK_ns) for ms in (row.number("g_time (ms)"), ours["g_time (ms)"])]
        told["reference_cycles"], told["cycles"] = clocks
        told["difference"] = ours["g_time (ms)"] / row.number("g_time (ms)") - 1
        for name, column in (("step_ms", "g_time (ms)"), ("energy_nJ", "g_energy (nJ)")):
            theirs = row.number(column)
            told[name] = {"reference": theirs, "ours": ours[column], "difference": ours[column] / theirs - 1}
        found.append(told)
        if progress:
            progress(done, len(rows))
    return found


def step_lines(steps: list[dict[str, Any]]) -> list[str]:
    """Return what `reproduce_steps` has found as lines of a table."""
    width = max(len(step["case"]) for step in steps)
    lines = [
        f"{'generation step':{width}}  {'reference ms':>12}  {'ours':>9}  difference  {'energy J':>9}  {'ours':>9}"
    ]
    for step in steps:
        ms, nJ = step["step_ms"], step["energy_nJ"]
        lines.append(
            f"{step['case']:{width}}  {ms['reference']:>12.5g}  {ms['ours']:>9.5g}  {abs(step['difference']):>10.4%}  "
            f"{nJ['reference'] * 1e-9:>9.5g}  {nJ['ours'] * 1e-9:>9.5g}"
        )
    return lines


def steps_markdown(steps: list[dict[str, Any]]) -> list[str]:
    """Return the lines of docs/validation.md on end-to-end rows."""
    return ["", "Generation steps, end to end:", "", "```", *step_lines(steps), "```"]


def memory_of(row: Row, d_head: int) -> Memory:
    """The stacks of one GPU as the simulator counts them: bytes over paths at pJ per bit, units of the score only."""
    level, name = {"BA": ("bank", "MACAB"), "BG": ("bg", "MACSB")}[row.text("hw", ("BA", "BG"))]
    overrides = ["options.as_generated=1", f"options.round_rows={ceil(4096 * d_head / 64) // 1024}"]
    overrides += ["options.value_row=8192"]
    limited = row.text("power constraint", ("True", "False"))
    if limited == "False":
        overrides.append(f"dram.timing.{'nCCDAB' if level == 'bank' else 'nCCDSB'}=4")
    device = load_device(f"attacc-{level}", overrides)[0]
    cell_pJ_per_B = {"bank": 4.4, "bg": 12.48}[level]
    path_pJ_per_B = {"WRGB": 3.04, "MVSB": 2.74, "MVGB": 2.74}

    def attention(heads: int, tokens: int) -> Offloaded:
        here = ceil(heads / STACKS)
        work = Attention("attention", here, here, d_head, tokens)
        issued = channels(device).run(lower(device, work, Site(device.dram.channels)).stream, 0, False)
        counts = dict(zip(device.dram.command_names, issued.counts.sum(axis=0).tolist(), strict=True))
        moved = sum(counts[command] * device.dram.access_B * pJ for command, pJ in path_pJ_per_B.items())
        cells = counts[name] * device.dram.access_B * device.units * cell_pJ_per_B
        flop, bytes_moved = 5 * tokens * heads, 4 * tokens * heads
        return Offloaded(
            issued.cycles * CLOCK_ns * 1e-9,
            max(flop, bytes_moved) / (STACKS * STACK_Bps),
            Energy(memory=(moved + cells) * STACKS, alu=tokens * d_head * heads * 0.32),
            Energy(memory=bytes_moved * 0.0034, alu=flop / 2 * 0.32),
        )

    arguments = row.text("arguments").split()
    return Memory(attention, RATE[level, limited], "--pipeopt" in arguments, "--ffopt" in arguments)


def columns(step: Step) -> dict[str, float]:
    """The columns of a generation step: ms, and nJ."""
    ms = {
        "g_time (ms)": step.seconds(),
        "g_matmul": step.seconds("attention"),
        "g_fc": step.seconds("fc"),
        "g_comm": step.seconds("transfer", "reduce"),
        "g_etc": step.seconds("activation", "norm"),
        "g_qkv_time": step.seconds(name="qkv"),
        "g_prj_time": step.seconds(name="proj"),
        "g_ff_time": step.seconds(name="ffn"),
        "g2g_comm": step.seconds("reduce"),
        "c2g_comm": step.seconds("transfer"),
        "g_softmax": step.seconds("softmax"),
        "g_act": step.seconds("activation"),
        "g_lnorm": step.seconds("norm"),
    }
    whole = step.energy()
    fc, attention = step.energy("fc"), step.energy("attention", "softmax")
    etc = step.energy("activation", "norm")
    pJ = {
        "g_energy (nJ)": whole.total,
        "g_dram_energy": whole.memory,
        "g_l2_energy": whole.l2,
        "g_l1_energy": whole.l1,
        "g_reg_energy": whole.register,
        "g_alu_energy": whole.alu,
        "g_fc_mem_energy": fc.memory,
        "g_fc_comp_energy": fc.compute,
        "g_attn_mem_energy": attention.memory,
        "g_attn_comp_energy": attention.compute,
        "g_etc_mem_energy": etc.memory,
        "g_etc_comp_energy": etc.compute,
        "g_comm_energy": whole.link,
    }
    return {key: value * 1e3 for key, value in ms.items()} | {key: value / 1e3 for key, value in pJ.items()}

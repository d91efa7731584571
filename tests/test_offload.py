"""Generation steps with attention in memory, against the figures of AttAcc's simulator."""

from __future__ import annotations

import csv
from math import ceil
from pathlib import Path

import pytest

from pimloom.arch.device import load_device
from pimloom.arch.gpu import load_gpu
from pimloom.mapping.devices import lower
from pimloom.offload import Decoder, Memory, Offloaded, Step, generation_step
from pimloom.sim.roofline import Energy
from pimloom.sim.window import Window
from pimloom.traces.stream import Attention, Site

DATA = Path(__file__).parent / "data" / "pim" / "attacc"
ROWS = [row for row in csv.DictReader((DATA / "end_to_end.csv").open()) if not row["case"].startswith("lut")]
HOST = load_gpu("a100a")[0]
GPT, OPT, LLAMA = 8, 1, 9
MODELS = {
    "GPT-175B": Decoder(96, 12288, 96, 4 * 12288, False, GPT),
    "LLAMA-65B": Decoder(80, 8192, 64, 8 / 3 * 8192, True, LLAMA),
    "OPT-66B": Decoder(64, 9216, 72, 4 * 9216, False, OPT),
    "GPT-13B": Decoder(40, 5120, 40, 4 * 5120, False, GPT),
}
STACKS, STACK_Bps = 5, 670.4e9
RATE = {("BA", "True"): 9, ("BA", "False"): 16, ("BG", "True"): 3, ("BG", "False"): 8}


def memory_of(row: dict[str, str], d_head: int) -> Memory:
    """The stacks of one GPU as the simulator counts them: bytes over paths at pJ per bit, units of the score only."""
    level, name = {"BA": ("bank", "MACAB"), "BG": ("bg", "MACSB")}[row["hw"]]
    overrides = ["options.as_generated=1", f"options.round_rows={ceil(4096 * d_head / 64) // 1024}"]
    overrides += ["options.value_row=8192"]
    if row["power constraint"] == "False":
        overrides.append("dram.timing.nCCDAB=4")
    device = load_device(f"attacc-{level}", overrides)[0]
    cell_pJ_per_B = {"bank": 4.4, "bg": 12.48}[level]
    path_pJ_per_B = {"WRGB": 3.04, "MVSB": 2.74, "MVGB": 2.74}

    def attention(heads: int, tokens: int) -> Offloaded:
        here = ceil(heads / STACKS)
        work = Attention("attention", here, here, d_head, tokens)
        issued = Window(device).run(lower(device, work, Site(16)).stream, 0, False)
        counts = dict(zip(device.dram.command_names, issued.counts.sum(axis=0).tolist(), strict=True))
        moved = sum(counts[command] * 32 * pJ for command, pJ in path_pJ_per_B.items())
        cells = counts[name] * 32 * device.units * cell_pJ_per_B
        flop, bytes_moved = 5 * tokens * heads, 4 * tokens * heads
        return Offloaded(
            issued.cycles * 0.769e-9,
            max(flop, bytes_moved) / (STACKS * STACK_Bps),
            Energy(memory=(moved + cells) * STACKS, alu=tokens * d_head * heads * 0.32),
            Energy(memory=bytes_moved * 0.0034, alu=flop / 2 * 0.32),
        )

    arguments = row["arguments"]
    rate = RATE[row["hw"], row["power constraint"]]
    return Memory(attention, rate, "--pipeopt" in arguments, "--ffopt" in arguments)


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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["case"])
def test_generation_steps_of_the_reference(row: dict[str, str]) -> None:
    decoder = MODELS[row["model"]]
    memory = None if row["hw"] == "NONE" else memory_of(row, decoder.d_head)
    step = generation_step(HOST, int(row["cores"]), decoder, int(row["bs"]), int(row["Lin"]) + 1, memory)
    for key, value in columns(step).items():
        assert value == pytest.approx(float(row[key]), rel=1e-9, abs=1e-12), key

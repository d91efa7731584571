"""Small machines and models of awkward sizes, shared by tests."""

from functools import cache
from pathlib import Path

from pimloom.arch.machine import Arch, load_arch
from pimloom.mapping.site import Site
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.request import Workload

DATA = Path(__file__).parent / "data" / "functional"
ROWS = 16384
ACCESS_B = 32
LANES = 16


def machine_keys(channels: int, bankgroups: int, banks: int, columns: int) -> list[str]:
    """Overrides that make pim-gpt a machine of another size; `banks` are those of a bank group."""
    capacity = bankgroups * banks * ROWS * columns * ACCESS_B
    return [
        f"dram.channels={channels}",
        f"dram.bankgroups={bankgroups}",
        f"dram.banks_per_bankgroup={banks}",
        f"dram.columns={columns}",
        f"dram.channel_capacity_B={capacity}",
        f"pim.buffer_B={columns * ACCESS_B}",
    ]


@cache
def machine(channels: int = 3, bankgroups: int = 2, banks: int = 1, columns: int = 4) -> Arch:
    return load_arch("pim-gpt", machine_keys(channels, bankgroups, banks, columns))[0]


@cache
def model(
    layers: int = 1, heads: int = 2, d_head: int = 8, d_ff: int = 24, vocab: int = 19, positions: int = 12,
    **more: bool | str,
) -> Model:  # fmt: skip
    fields = {
        "layers": layers, "d_model": heads * d_head, "heads": heads, "d_head": d_head, "d_ff": d_ff,
        "vocab": vocab, "positions": positions,
    }  # fmt: skip
    keys = [f"{name}={str(value).lower()}" for name, value in (fields | more).items()]
    return load_model(str(DATA / "gpt2-tiny"), keys)[0]


def site(
    network: Model, arch: Arch, tokens: list[list[int]], embedding: bool = True, head: bool = True
) -> Site:
    """A site on which every sequence of the batch is given as a prompt."""
    workload = Workload(prompt=len(tokens[0]), generate=1, batch=len(tokens), embedding=embedding, head=head)
    placed = Site(network, arch, workload)
    placed.tokens = tokens
    return placed

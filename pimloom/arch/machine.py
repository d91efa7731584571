"""A PIM machine: memory, processing units in the banks, the ASIC beside it, the link between them."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pimloom.arch.base import Count, Description, Int, Strict, raise_located
from pimloom.arch.document import Document, Override, load
from pimloom.arch.dram import Dram, Tables
from pimloom.arch.tree import Keys

Hz = Annotated[Count, Field(le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]


class Pim(Strict):
    """One MAC unit per bank and one input buffer per channel."""

    lanes: Annotated[Count, Field(le=4096, description="multipliers of one MAC unit")]
    clock_Hz: Hz
    element_B: Annotated[Int, Field(ge=1, le=8)]
    buffer_B: Annotated[Count, Field(description="input buffer of one channel, at most one DRAM row")]
    mac_power_W: Annotated[NotNegative, Field(description="all MAC units of one channel, working")]
    buffer_read_pJ: NotNegative | None = Field(
        description="per access of the memory's access_B; null = unknown"
    )
    buffer_write_pJ: NotNegative | None = Field(
        description="per access of the memory's access_B; null = unknown"
    )

    @property
    def buffer_elements(self) -> int:
        """Elements that the input buffer holds."""
        return self.buffer_B // self.element_B


class Asic(Strict):
    """The chip that does whatever is no matrix-vector product."""

    clock_Hz: Hz
    adders: Annotated[Count, Field(le=2**20)]
    multipliers: Annotated[Count, Field(le=2**20)]
    sram_B: Count
    taylor_terms: Annotated[Count, Field(le=64)]
    newton_iterations: Annotated[Int, Field(ge=0, le=64)]
    rsqrt_iterations: Annotated[Int, Field(ge=0, le=64)]
    active_power_W: NotNegative
    idle_power_W: NotNegative | None


class Link(Strict):
    """Between the ASIC and the pins of one channel; every channel has its own. Data moves at the slower rate."""

    width_bit: Count
    rate_bps: Annotated[Count, Field(description="bits per second of one wire")]
    latency_ns: NotNegative


class Energy(Strict):
    """Coefficients that turn counts into joules, beside the memory's currents."""

    mac_read_factor: Annotated[
        NotNegative, Field(description="core energy of a MAC on all banks over one read's")
    ]
    io_pJ_per_bit: NotNegative | None
    standby_shared_fraction: Annotated[
        float, Field(ge=0, le=1, description="share of the standby current above IDD2N common to all banks")
    ]


class Mapping(Strict):
    """Choices of the mapping that belong to the machine."""

    barrier: Literal["instruction", "data"] = Field(
        description="instruction: one operator after the other, as published; data: overlap where data allow"
    )
    masked_write_B: Annotated[Count, Field(description="bytes on the pins for the write of one element")]
    max_tokens: Count | None = Field(
        description="tokens to reserve cache for; null = the model's longest sequence"
    )


class Peaks(NamedTuple):
    """What the machine can do at most."""

    mac_per_s: float
    internal_Bps: float
    pin_Bps: float


class Arch(Description):
    """One machine, as its YAML says it."""

    kind: Literal["arch"]
    dram: Dram
    pim: Pim
    asic: Asic
    link: Link
    energy: Energy
    mapping: Mapping

    @property
    def elements_per_access(self) -> int:
        """Elements in one column access of one bank."""
        return self.dram.access_B // self.pim.element_B

    @property
    def nMAC(self) -> int:
        """DRAM clocks from one MAC command to the next: the column rate or the unit's, the slower one."""
        steps = -(-self.elements_per_access // self.pim.lanes)
        return max(self.dram.timing.get("nCCD", 1), -(-steps * self.dram.clock_Hz // self.pim.clock_Hz))

    @property
    def pin_bps(self) -> int:
        """Bits per second between the ASIC and one channel: the memory's pins or the link, the slower one."""
        io, link = self.dram.io, self.link
        return min(io.width_bit * io.rate_bps, link.width_bit * link.rate_bps)

    @property
    def symbols(self) -> dict[str, int]:
        """Everything a rule of the memory may name, with this machine's nMAC and nBL."""
        nBL = -(-self.dram.access_B * 8 * self.dram.clock_Hz // self.pin_bps)
        return self.dram.symbols({"nMAC": self.nMAC, "nBL": nBL})

    @property
    def peaks(self) -> Peaks:
        """MACs, bytes from the banks into the MAC units, and bytes over the pins per second; all channels."""
        dram = self.dram
        mac_commands_per_s = dram.channels * dram.banks * dram.clock_Hz / self.nMAC
        return Peaks(
            mac_per_s=mac_commands_per_s * self.elements_per_access,
            internal_Bps=mac_commands_per_s * dram.access_B,
            pin_Bps=dram.channels * self.pin_bps / 8,
        )

    def tables(self) -> Tables:
        """The memory's integer tables with this machine's nMAC and nBL."""
        return self.dram.tables(self.symbols)

    @model_validator(mode="after")
    def _physical(self) -> Self:
        raise_located("Arch", [*self._findings()] or self._memory_findings())
        return self

    def _findings(self) -> Iterator[tuple[Keys, str]]:
        access, pim = self.dram.access_B, self.pim
        if access % pim.element_B:
            yield ("pim", "element_B"), f"{pim.element_B} B do not divide an access of {access} B"
        elif pim.lanes > self.elements_per_access:
            n = self.elements_per_access
            yield (
                ("pim", "lanes"),
                f"{pim.lanes} lanes, but an access of {access} B has only {n} elements of {pim.element_B} B",
            )
        if pim.buffer_B > self.dram.row_B:
            yield ("pim", "buffer_B"), f"{pim.buffer_B} B are more than a DRAM row of {self.dram.row_B} B"
        for path, size in (
            (("pim", "buffer_B"), pim.buffer_B),
            (("mapping", "masked_write_B"), self.mapping.masked_write_B),
        ):
            if size % access:
                yield path, f"{size} B are no whole number of accesses of {access} B"

        for key, plain in (
            ("pseudochannels", 1), ("ranks", 1), ("stack_ids", 1), ("command_bus", "shared"),
        ):  # fmt: skip
            if getattr(self.dram, key) != plain:
                yield ("dram", key), f"{getattr(self.dram, key)}, but a machine's memory has {plain} so far"
        if "nBL" in self.dram.timing:
            yield ("dram", "timing", "nBL"), "nBL follows from the slower of pins and link, and is not given"
        if self.dram.refresh.policy not in ("all_bank", "none"):
            policy = self.dram.refresh.policy
            yield ("dram", "refresh", "policy"), f"{policy!r}, but a machine knows all_bank and none so far"
        if any(c.meaning == "activate_first" for c in self.dram.commands.values()):
            yield ("dram", "commands"), "a machine's memory opens a row by one command so far"

    def _memory_findings(self) -> list[tuple[Keys, str]]:
        """The memory checked once more, now with this machine's nMAC and nBL."""
        return [(("dram", *path), text) for path, text in self.dram.findings(self.symbols)]


def load_arch(name_or_path: str, overrides: Sequence[str | Override] = ()) -> tuple[Arch, Document]:
    """The machine of a shipped name or a file.

    Raises InputError with everything that is wrong with it.
    """
    return load(Arch, "arch", name_or_path, overrides)

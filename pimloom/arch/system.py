"""A system: PIM devices, the host beside them, the links between them, and what is done where."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pimloom.arch.base import Count, Description, Strict, raise_located
from pimloom.arch.device import Device
from pimloom.arch.document import Document, Override, load
from pimloom.arch.host import Host, NotNegative, Positive
from pimloom.arch.tree import Keys


class HostLink(Strict):
    """Between the host and one device; every device has its own.

    A device that is the host's own memory has no link: latency 0 and bandwidth null.
    """

    latency_ns: Annotated[NotNegative, Field(description="one way")]
    bandwidth_Bps: Annotated[Positive | None, Field(description="one way; null = the memory's pins alone")]
    pJ_per_bit: NotNegative | None


class Partition(Strict):
    """How a model is spread over the devices.

    Of `stages` pipeline stages each holds an equal part of the layers, on `tensor_parallel` devices that share each
    matrix by its outputs and attention by its heads. Several stages may share a device by its channels.
    """

    stages: Count = 1
    tensor_parallel: Count = 1
    channels: Annotated[
        Count | None, Field(description="channels of a device that one stage uses; null = all")
    ] = None


class System(Description):
    """One system, as its YAML says it."""

    kind: Literal["system"]
    device: Device
    devices: Count = 1
    host: Host
    link: HostLink
    partition: Partition = Partition()
    on_device: Annotated[
        list[Literal["linear", "attention"]],
        Field(description="what the devices do; the host does the rest"),
    ]

    @property
    def channels(self) -> int:
        """Channels of a device that one pipeline stage uses."""
        return self.partition.channels or self.device.dram.channels

    @property
    def stages_per_device(self) -> int:
        """Pipeline stages that share one device."""
        return self.device.dram.channels // self.channels

    @model_validator(mode="after")
    def _physical(self) -> Self:
        raise_located("System", [*self._findings()])
        return self

    def _findings(self) -> Iterator[tuple[Keys, str]]:
        split, of = self.partition, self.device.dram.channels
        if self.channels > of:
            yield ("partition", "channels"), f"{self.channels}, but a device has {of}"
            return
        if split.tensor_parallel > 1 and self.channels < of:
            yield ("partition", "channels"), "stages of several devices use whole devices"
            return
        needed = -(-split.stages // self.stages_per_device) * split.tensor_parallel
        if self.devices < needed:
            yield (
                ("devices",),
                f"{self.devices}, but {split.stages} stages of {split.tensor_parallel} x {self.channels} channels "
                f"take {needed}",
            )


def load_system(name_or_path: str, overrides: Sequence[str | Override] = ()) -> tuple[System, Document]:
    """The system of a shipped name or a file.

    Raises InputError with everything that is wrong with it.
    """
    return load(System, "system", name_or_path, overrides)

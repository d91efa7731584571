"""The processor beside PIM devices: a roofline, since only its limits are known."""

from typing import Annotated, Literal

from pydantic import Field

from pimloom.arch.base import Description

Positive = Annotated[float, Field(gt=0, le=1e18)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]
Share = Annotated[float, Field(gt=0, le=1)]


class Host(Description):
    """A CPU, a GPU or an accelerator that does whatever the PIM devices do not."""

    kind: Literal["host"]
    peak_FLOPps: Annotated[Positive, Field(description="of the arithmetic that it computes in")]
    compute_efficiency: Annotated[Share, Field(description="of the peak that operators reach at best")]
    memory_Bps: Annotated[
        Positive | None,
        Field(description="of a memory of its own; null = the devices' memory, over their pins"),
    ]
    memory_efficiency: Annotated[Share, Field(description="of memory_Bps that operators reach at best")]
    operator_ns: Annotated[NotNegative, Field(description="to start one operator")]
    active_W: NotNegative | None
    idle_W: NotNegative | None

    def time_ns(self, operations: float, moved_B: float, memory_Bps: float) -> float:
        """Time of one operator: the longer of computing and moving (Williams et al., CACM 2009), and its start.

        memory_Bps: what the memory that the bytes come from can do, its efficiency included
        """
        computing_s = operations / (self.peak_FLOPps * self.compute_efficiency)
        return self.operator_ns + max(computing_s, moved_B / memory_Bps) * 1e9

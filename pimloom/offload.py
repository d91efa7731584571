"""One token of a decoder whose attention is in PIM memory while all else is on processors beside it.

The composition of AttAcc's simulator (revision c600051), as the README of the reference data describes it: the layers
are cut over the processors, each of which has PIM stacks of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pimloom.arch.gpu import Gpu
from pimloom.sim import roofline
from pimloom.sim.roofline import Cost, Energy, Product

Group = Literal["fc", "attention", "softmax", "transfer", "reduce", "activation", "norm"]


class Decoder(NamedTuple):
    """The sizes of a model that count here.

    d_ff: may be fractional, such as 8/3 of d_model
    gated: three matrices in the feed-forward part, and an activation of two inputs
    activation_FLOP: per value
    """

    layers: int
    d_model: int
    heads: int
    d_ff: float
    gated: bool
    activation_FLOP: int

    @property
    def d_head(self) -> int:
        """Dimensions of a head."""
        return self.d_model // self.heads


class Offloaded(NamedTuple):
    """The attention of one layer in the memory of one processor.

    seconds: of products and whatever runs beside them
    softmax_seconds: of the softmax alone, which runs beside them
    products, softmax: their energies
    """

    seconds: float
    softmax_seconds: float
    products: Energy
    softmax: Energy


class Memory(NamedTuple):
    """PIM memory of one processor.

    attention: what it takes for so many heads and tokens
    rate: its internal bandwidth over the bandwidth of the processor's memory
    overlap_fc: the projections of one head run beside the attention of others, not transfers alone
    share_ffn: it takes its share of the feed-forward part
    """

    attention: Callable[[int, int], Offloaded]
    rate: float
    overlap_fc: bool = False
    share_ffn: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator of a layer: time, and energy of all processors."""

    name: str
    group: Group
    seconds: float
    energy: Energy
    is_memory_bound: bool = True


@dataclass(frozen=True)
class Step:
    """One token of each sequence of a batch."""

    layers: int
    operators: tuple[Operator, ...]

    def seconds(self, *groups: Group, name: str = "") -> float:
        """Time of all layers; of some groups of operators, or of those whose name begins with `name`."""
        return self.layers * sum(o.seconds for o in self._some(groups, name))

    def energy(self, *groups: Group) -> Energy:
        """Energy of all layers and processors, or of some groups of operators."""
        some = [o.energy for o in self._some(groups, "")]
        return Energy(*(self.layers * sum(parts) for parts in zip(*some, strict=True)))

    def _some(self, groups: tuple[Group, ...], name: str) -> list[Operator]:
        return [o for o in self.operators if (not groups or o.group in groups) and o.name.startswith(name)]


def generation_step(
    gpu: Gpu, processors: int, decoder: Decoder, batch: int, tokens: int, memory: Memory | None = None
) -> Step:
    """One token for each of `batch` sequences, which then have `tokens`; two bytes a value."""
    width, d = decoder.d_model // processors, decoder.d_model
    heads = decoder.heads // processors * batch
    d_ff = decoder.d_ff / processors
    found: list[Operator] = []

    def add(name: str, group: Group, cost: Cost) -> None:
        found.append(Operator(name, group, cost.seconds, cost.energy * processors, cost.is_memory_bound))

    def add_fc(name: str, inputs: float, outputs: float) -> None:
        add(name, "fc", roofline.product(gpu, Product(batch, outputs, inputs)))

    def add_norm(name: str) -> None:
        add("reduce", "reduce", roofline.all_reduce(gpu, processors, 2 * batch * d))
        add(name, "norm", roofline.streamed(gpu, 5 * batch * d, 6 * batch * d, fit=gpu.norm))

    add_fc("qkv", d, 3 * width)
    if memory:
        done = memory.attention(heads, tokens)
        add("transfer_in", "transfer", roofline.transfer(gpu, 2 * batch * 3 * width))
        add("score", "attention", Cost(done.seconds, True, done.products))
        add("softmax", "softmax", Cost(done.softmax_seconds, True, done.softmax))
        add("transfer_out", "transfer", roofline.transfer(gpu, 2 * heads * decoder.d_head))
    else:
        scores = heads * tokens
        score = Product(1, tokens, decoder.d_head, heads, weights=False)
        context = Product(1, decoder.d_head, tokens, heads, weights=False)
        add("score", "attention", roofline.product(gpu, score))
        add("softmax", "softmax", roofline.streamed(gpu, 5 * scores, 4 * scores, blocks=heads))
        add("context", "attention", roofline.product(gpu, context))
    add_fc("proj", width, d)
    add_norm("norm1")
    values = batch * d_ff
    add_fc("ffn_up", d, d_ff)
    if decoder.gated:
        add_fc("ffn_gate", d, d_ff)
    moved = (6 if decoder.gated else 4) * values
    flop = decoder.activation_FLOP * values
    add("activation", "activation", roofline.streamed(gpu, flop, moved, fit=gpu.activation))
    add_fc("ffn_down", d_ff, d)
    add_norm("norm2")
    if memory:
        found = _overlapped(found, memory, processors / decoder.heads)
        if memory.share_ffn:
            found = [_shared(o, gpu, memory, batch) for o in found]
    return Step(decoder.layers, tuple(found))


def _overlapped(operators: list[Operator], memory: Memory, shown: float) -> list[Operator]:
    """What runs beside attention takes time only for the first head, `shown` of it, or as far as it takes longer."""
    times = {o.name: o.seconds for o in operators}
    attention = times["score"] + times["softmax"]
    moving = times["transfer_in"] + times["transfer_out"]
    fc = times["qkv"] + times["proj"] if memory.overlap_fc else 0.0
    left = {"softmax": 0.0}
    hidden = attention * (1 - shown)
    if attention > fc:
        left |= {name: times[name] * shown for name in ("qkv", "proj")} if memory.overlap_fc else {}
        moving = moving * shown if attention > moving else moving - hidden
    elif fc > moving:
        moving *= shown
        # Three of the four matrices are those of qkv.
        left |= {"qkv": times["qkv"] - hidden * 3 / 4, "proj": times["proj"] - hidden / 4}
    else:
        moving -= hidden
        left |= {name: times[name] * shown for name in ("qkv", "proj")}
    left |= {"transfer_in": moving / 2, "transfer_out": moving / 2}
    return [replace(o, seconds=left.get(o.name, o.seconds)) for o in operators]


def _shared(operator: Operator, gpu: Gpu, memory: Memory, batch: int) -> Operator:
    """A matrix of the feed-forward part, cut so that processor and memory end together.

    The memory reads the matrix once for each sequence, and makes one multiply-add for each value that it reads.
    """
    if not operator.name.startswith("ffn"):
        return operator
    share = 1 / (1 + memory.rate / batch)
    if not operator.is_memory_bound:
        share = gpu.peak_FLOPps / (gpu.peak_FLOPps + gpu.memory_Bps * memory.rate)
    return replace(operator, seconds=operator.seconds * share)

"""Lowered programs compute what NumPy computes on sizes that fit nothing, with the commands that it takes."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.proof import Proof
from pimloom.sim.functional import Arithmetic
from pimloom.traces.task import PimTask
from pimloom.workloads import tensors
from pimloom.workloads.model import Model
from pimloom.workloads.reference import ReferenceDecoder
from tests import small
from tests.small import LANES

Sizes = tuple[int, int, int, int]
SIZES: list[Sizes] = [(1, 1, 1, 2), (3, 2, 1, 2), (2, 2, 2, 3), (3, 1, 4, 8), (8, 4, 4, 64)]
"""Channels, bank groups, banks of a group, columns."""
MODELS = st.builds(
    small.model,
    heads=st.sampled_from([1, 2, 3]),
    d_head=st.sampled_from([1, 7, 15, 16, 17, 31, 32]),
    d_ff=st.sampled_from([1, 31, 65, 128]),
    vocab=st.sampled_from([2, 33, 127]),
    positions=st.sampled_from([5, 70]),
    tied_head=st.booleans(),
    activation=st.sampled_from(["gelu_tanh", "relu"]),
    scale_by_layer=st.booleans(),
)


def proof_of(site: Site, arithmetic: Arithmetic = "fp32", seed: int = 0) -> Proof:
    return Proof(site, dict(tensors.random(site.model, seed)), arithmetic)


def pim_tasks(site: Site, position: int) -> list[PimTask]:
    item = Planner(site).pass_at(position)
    return [task for block in item.blocks for task in block.tasks if isinstance(task, PimTask)]


@settings(max_examples=40)
@given(sizes=st.sampled_from(SIZES), network=MODELS, seed=st.integers(0, 9))
def test_every_register_is_what_the_reference_has(sizes: Sizes, network: Model, seed: int) -> None:
    """GEMV, scores, context and cache writes, and everything on the ASIC, for the first tokens."""
    tokens = np.random.default_rng(seed).integers(0, network.vocab, 4).tolist()
    site = small.site(network, small.machine(*sizes), [tokens])
    proof, planner = proof_of(site, seed=seed), Planner(site)
    decoder = ReferenceDecoder(network, tensors.random(network, seed))
    for position, token in enumerate(tokens):
        logits = proof.run(planner.pass_at(position))
        assert proof.mismatch == ""
        seen: dict[str, np.ndarray] = {}
        expected = decoder.step(token, lambda op, value, seen=seen: seen.update({op.output: value}))
        for output in seen.keys() - {"K", "V"}:
            got, wanted = proof.executor.registers[f"{output}.0"], seen[output].ravel()
            np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
        assert logits is not None
        assert proof.executor.registers["token.0"][0] == np.argmax(logits)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@settings(max_examples=30)
@given(
    sizes=st.sampled_from(SIZES), network=MODELS, seed=st.integers(0, 9),
    arithmetic=st.sampled_from(["fp32", "device"]), scale=st.sampled_from([1.0, 40.0, 2000.0]),
)  # fmt: skip
def test_rounding_is_never_taken_for_a_mistake(
    sizes: Sizes, network: Model, seed: int, arithmetic: Arithmetic, scale: float
) -> None:
    """The bounds hold for weights of any size, also where softmax and GELU are saturated."""
    tokens = np.random.default_rng(seed).integers(0, network.vocab, 3).tolist()
    site = small.site(network, small.machine(*sizes), [tokens])
    weights = {name: value * np.float32(scale) for name, value in tensors.random(network, seed).items()}
    proof, planner = Proof(site, weights, arithmetic), Planner(site)
    for position in range(3):
        proof.run(planner.pass_at(position))
        assert proof.mismatch == ""


@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_contexts_longer_than_a_chunk(sizes: Sizes) -> None:
    """Two or three columns hold 32 or 48 tokens, so 70 tokens take up to three chunks."""
    network = small.model(positions=70)
    tokens = np.random.default_rng(1).integers(0, network.vocab, 70).tolist()
    site = small.site(network, small.machine(*sizes), [tokens])
    proof, planner = proof_of(site), Planner(site)
    decoder = ReferenceDecoder(network, tensors.random(network, 0))
    for position, token in enumerate(tokens):
        logits = proof.run(planner.pass_at(position))
        assert logits is not None, proof.mismatch
        expected = decoder.step(token)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert proof.mismatch == ""
    assert "context.sum" in {task.name for task in planner.pass_at(69).blocks[1].tasks}


@pytest.mark.parametrize("sizes", SIZES[1:], ids=str)
def test_sequences_of_a_batch_do_not_mix(sizes: Sizes) -> None:
    network = small.model(layers=2)
    tokens = np.random.default_rng(2).integers(0, network.vocab, (2, 5)).tolist()
    site = small.site(network, small.machine(*sizes), tokens)
    proof, planner = proof_of(site), Planner(site)
    decoders = [ReferenceDecoder(network, tensors.random(network, 0)) for _ in tokens]
    for position in range(5):
        proof.run(planner.pass_at(position))
        assert proof.mismatch == ""
        for sequence, decoder in enumerate(decoders):
            expected = decoder.step(tokens[sequence][position])
            got = proof.executor.registers[f"logits.{sequence}"]
            np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_without_embedding_and_head() -> None:
    network = small.model(layers=2)
    site = small.site(network, small.machine(*SIZES[1]), [[3]], embedding=False, head=False)
    assert {"wte", "wpe", "head.weight"}.isdisjoint(site.regions)
    weights = dict(tensors.random(network, 0))
    machine = Proof(site, weights, "fp32").executor
    machine.registers["x.0"] = weights["wte"][3] + weights["wpe"][0]
    for block in Planner(site).pass_at(0).blocks:
        for turn in range(block.repeat):
            for task in block.tasks:
                machine.run(task, turn, block.row_stride)
    seen: dict[str, np.ndarray] = {}
    ReferenceDecoder(network, weights).step(3, lambda op, value: seen.update({op.name: value}))
    np.testing.assert_allclose(machine.registers["n.0"], seen["ln_f"], rtol=0, atol=1e-5)


def test_padding_and_what_lies_beyond_the_tokens_never_count() -> None:
    """Cells that hold no element may hold anything."""
    network = small.model(heads=3, d_head=7, positions=70)
    results = []
    for junk in (False, True):
        site = small.site(network, small.machine(*SIZES[1]), [[1, 2, 3]])
        proof, planner = proof_of(site), Planner(site)
        if junk:
            cells = proof.memory.cells
            noise = np.random.default_rng(0).standard_normal(cells.shape).astype(np.float32)
            np.copyto(cells, noise, where=cells == 0)
        results.append([proof.run(planner.pass_at(position)) for position in range(3)])
        assert proof.mismatch == ""
    np.testing.assert_array_equal(*results)


@settings(max_examples=30)
@given(
    sizes=st.sampled_from(SIZES), network=MODELS, position=st.sampled_from([0, 1, 4]), batch=st.integers(1, 2)
)
def test_traffic_is_what_the_maps_move(sizes: Sizes, network: Model, position: int, batch: int) -> None:
    site = small.site(network, small.machine(*sizes), [[1] * 5] * batch)
    for task in pim_tasks(site, position):
        sent = np.concatenate([m[m >= 0] for m in task.feed()]) if task.feed else np.empty(0)
        received = np.concatenate([m[m >= 0] for m in task.drain()]) if task.drain else np.empty(0)
        assert task.traffic == (len(sent), len(np.unique(sent)), len(received)), task.name
        assert len(np.unique(received)) == len(received) == task.sink_size, task.name


class Matrix(NamedTuple):
    """Sizes of a stored matrix: a row holds `segments` dot products of `length` values."""

    rows: int
    length: int
    segments: int = 1


def up(a: int, b: int) -> int:
    return -(-a // b)


def matrices(m: Model, banks: int) -> dict[str, Matrix]:
    """What a task works on by its name; a head's dimensions in V fill whole tiles."""
    d = m.d_model
    keys = Matrix(m.positions, m.d_head, m.heads)
    values = Matrix(m.heads * up(m.d_head, banks) * banks, m.positions)
    return {
        "qkv": Matrix(3 * d, d), "proj": Matrix(d, d), "ffn1": Matrix(m.d_ff, d), "ffn2": Matrix(d, m.d_ff),
        "lm_head": Matrix(m.vocab, d), "embed.wte": Matrix(m.vocab, d), "embed.wpe": Matrix(m.positions, d),
        "cache_k": keys, "score": keys, "cache_v": values, "context": values,
    }  # fmt: skip


def widths_of(matrix: Matrix, columns: int) -> list[int]:
    """Columns of a row's pieces; the buffer holds as many columns as a DRAM row.

    As many whole dot products as the buffer takes at a time; one that is longer in pieces of the buffer's size.
    """
    segment = up(matrix.length, LANES)
    if segment <= columns:
        together = columns // segment
        groups = [min(together, matrix.segments - k) for k in range(0, matrix.segments, together)]
        return [segment * n for n in groups]
    return [min(columns, segment - k) for k in range(0, segment, columns)] * matrix.segments


def rows_touched(columns: int, slots: range, width: int, used: int) -> int:
    """DRAM rows in which the first `used` columns of dot products of `width` columns lie, `slots` of them."""
    return len({(slot * width + at) // columns for slot in slots for at in range(used)})


def expected_counts(
    sizes: Sizes, m: Model, task: str, item: str, position: int, channel: int
) -> Counter[str]:
    """The commands of a task on a channel in closed form, from sizes alone.

    item: for parameters, whose: the layer's or the epilogue's
    """
    channels, groups, per_group, columns = sizes
    banks, d = groups * per_group, m.d_model
    if task == "parameters":
        # ln1 (weight, bias), qkv, proj, ln2 (two), ffn1, ffn2; or ln_f (two): each in bursts of its own.
        vectors = [d, d, 3 * d, d, d, d, m.d_ff, d] if item.startswith("layer") else [d, d]
        bursts = len(range(channel, sum(up(n, LANES) for n in vectors), channels))
        rows = up(bursts, columns)
        return Counter(ACT=rows, RD=bursts, PREA=up(rows, banks))
    matrix = matrices(m, banks)[task]
    widths = widths_of(matrix, columns)
    if task in ("embed.wte", "embed.wpe", "cache_k"):
        row = 1 if task == "embed.wte" else position
        slot, owner = divmod(row // banks, channels)
        if owner != channel:
            return Counter()
        opened = sum(rows_touched(columns, range(slot, slot + 1), w, w) for w in widths)
        return Counter({"ACT": opened, "PRE": opened, "RD" if task[0] == "e" else "WR": sum(widths)})
    at = position // LANES
    if task in ("cache_v", "context"):
        # Tiles in runs: a head's stay together.
        per_head = up(m.d_head, banks)
        slots = up(m.heads * per_head, channels)
        owned = range(m.heads * per_head)[channel * slots : (channel + 1) * slots]
        if task == "cache_v":
            filled = [min(banks, m.d_head - tile % per_head * banks) for tile in owned]
            rows = len(
                {(slot * widths[at // columns] + at % columns) // columns for slot in range(len(owned))}
            )
            return Counter(ACT_AB=rows, WR=sum(filled), PREA=rows)
        heads = [tile // per_head for tile in owned]
        used = [min(w, at + 1 - k * columns) for k, w in enumerate(widths) if at + 1 > k * columns]
        rows = 0
        for head in set(heads):
            run = range(heads.index(head), heads.index(head) + heads.count(head))
            rows += sum(rows_touched(columns, run, w, u) for w, u in zip(widths, used, strict=False))
        return Counter(
            WR_GB=len(set(heads)) * (at + 1), ACT_AB=rows, MAC_AB=len(owned) * (at + 1),
            RD_MAC=len(owned) * len(used), PREA=rows,
        )  # fmt: skip
    outputs = position + 1 if task == "score" else matrix.rows
    slots = len(range(channel, up(outputs, banks), channels))
    rows = sum(up(slots * w, columns) for w in widths)
    results = m.heads if task == "score" else len(widths)
    return Counter(
        WR_GB=sum(widths) if slots else 0, ACT_AB=rows, MAC_AB=slots * sum(widths), RD_MAC=slots * results,
        PREA=rows,
    )  # fmt: skip


@settings(max_examples=40)
@given(sizes=st.sampled_from(SIZES), network=MODELS, position=st.sampled_from([0, 1, 4, 33, 69]))
def test_command_counts_follow_from_the_sizes(sizes: Sizes, network: Model, position: int) -> None:
    position = min(position, network.positions - 1)
    site = small.site(network, small.machine(*sizes), [[1] * (position + 1)])
    for task in pim_tasks(site, position):
        for channel, program in enumerate(task.programs):
            counts = dict(zip(site.commands, program.counts().tolist(), strict=True)) if program else {}
            expected = +expected_counts(sizes, network, task.name, task.region, position, channel)
            assert +Counter(counts) == expected, (task.name, channel)

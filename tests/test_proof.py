"""The functional proof: whole models against Hugging Face, and mistakes of every kind, which must show."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.document import InputError
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.proof import Proof, validate
from pimloom.sim.functional import Arithmetic, Memory
from pimloom.traces.program import END, LOOP, Program
from pimloom.traces.task import AsicTask, Block, Pass, PimTask, Task
from pimloom.workloads import tensors
from tests import opt, small

TOKENS = {"gpt2-tiny": (12, 16), "gpt2-uneven": (33, 12)}
MACHINES: dict[str, list[str]] = {
    "published": [],
    "3 channels": small.machine_keys(3, 2, 2, 8),
    "2 columns": small.machine_keys(2, 4, 4, 2),  # a row holds 32 values: 44 tokens take two chunks
}


RUNS = [
    *(("gpt2-tiny", machine) for machine in MACHINES),
    ("gpt2-uneven", "published"),
    ("gpt2-uneven", "2 columns"),
]


@pytest.mark.parametrize(("name", "machine"), RUNS)
def test_hugging_face_fp32(name: str, machine: str) -> None:
    result = validate(str(small.DATA / name), "pim-gpt", overrides=MACHINES[machine])
    prompt, generated = TOKENS[name]
    assert result.first_mismatch == ""
    assert result.passed
    assert result.max_relative_error is not None
    assert result.max_relative_error < 1e-5  # the bar is 1e-4
    assert result.tokens_compared == result.tokens_equal == generated
    assert result.positions_compared == prompt + generated - 1
    assert (result.arithmetic, result.near_ties) == ("fp32", 0)


@pytest.mark.parametrize(("name", "machine"), RUNS[:4])
def test_hugging_face_device(name: str, machine: str) -> None:
    result = validate(str(small.DATA / name), "pim-gpt", "device", overrides=MACHINES[machine])
    assert result.first_mismatch == ""
    assert result.passed
    assert result.max_relative_error is not None
    assert 1e-4 < result.max_relative_error < 2e-2
    assert result.tokens_compared - result.tokens_equal <= result.near_ties


def test_random_weights_and_overrides() -> None:
    calls: list[tuple[int, int]] = []
    keys = ["workload.prompt=2", "model.layers=1", "dram.channels=4"]
    model = str(small.DATA / "gpt2-tiny")
    with pytest.raises(InputError, match="io.npz: this run has prompt 12 and generate 16, not 2 and 16"):
        validate(model, "pim-gpt", overrides=keys[:1])
    with pytest.raises(InputError, match="not part of the model: h.1"):
        validate(model, "pim-gpt", overrides=keys[1:2])
    sizes = {"layers": 2, "d_model": 48, "heads": 3, "d_head": 16, "d_ff": 50, "vocab": 31, "positions": 9}
    keys += [f"model.{name}={value}" for name, value in sizes.items()]
    result = validate(
        "gpt2-small", "pim-gpt", generate=3, seed=5, overrides=keys, progress=lambda *call: calls.append(call)
    )
    assert result.passed
    assert (result.tokens_compared, result.positions_compared) == (3, 4)
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4)]
    with pytest.raises(InputError, match="10 positions, but gpt2-small has 9"):
        validate("gpt2-small", "pim-gpt", prompt=8, generate=3, overrides=keys[3:])
    with pytest.raises(InputError, match="validate runs one sequence"):
        validate("gpt2-small", "pim-gpt", overrides=[*keys, "workload.batch=2"])
    with pytest.raises(InputError, match="device arithmetic is bf16, 2 B an element, not 4"):
        changes = ["pim.element_B=4", "pim.lanes=8"]
        validate("gpt2-small", "pim-gpt", "device", overrides=[*keys[2:], *changes])
    assert validate("gpt2-small", "pim-gpt", overrides=[*keys, *changes]).passed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of gpt2-tiny that a test may change."""
    return Path(shutil.copytree(small.DATA / "gpt2-tiny", tmp_path / "copy"))


def test_folder_without_io_is_held_against_the_numpy_decoder(folder: Path) -> None:
    (folder / "io.npz").unlink()
    result = validate(str(folder), "pim-gpt", prompt=3, generate=2)
    assert result.passed
    assert (result.tokens_compared, result.positions_compared) == (2, 4)


@pytest.mark.parametrize("arithmetic", ["fp32", "device"])
@pytest.mark.parametrize("machine", MACHINES)
def test_opt_from_a_folder(tmp_path: Path, machine: str, arithmetic: Arithmetic) -> None:
    """Logits by code of the tests' own, as io.npz has them."""
    stored = opt.weights()
    prompt = np.random.default_rng(0).integers(0, opt.VOCAB, 5)
    generated: list[int] = []
    while len(generated) < opt.POSITIONS - len(prompt) + 1:
        generated.append(int(opt.logits(stored, [*prompt.tolist(), *generated])[-1].argmax()))
    every = opt.logits(stored, [*prompt.tolist(), *generated[:-1]]).astype(np.float32)
    folder = opt.folder(tmp_path, stored)
    np.savez(
        folder / "io.npz", prompt=prompt, prefill_logits=every[:5], generated=np.array(generated),
        step_logits=every[4:],
    )  # fmt: skip
    result = validate(str(folder), "pim-gpt", arithmetic, overrides=MACHINES[machine])
    assert result.first_mismatch == ""
    assert result.passed
    assert result.tokens_compared == len(generated)


def test_a_model_that_cannot_run_is_refused_before_its_weights_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(self: tensors.Tensors, name: str) -> None:
        raise AssertionError

    monkeypatch.setattr(tensors.Tensors, "__getitem__", never)
    for model in ("llama2-7b", str(small.DATA / "llama-gqa")):
        with pytest.raises(
            InputError, match="does not run on pim-gpt: the machine has no lowering for rmsnorm"
        ):
            validate(model, "pim-gpt")
    with pytest.raises(InputError, match="opt-66b does not fit into pim-gpt"):
        validate("opt-66b", "pim-gpt")


def test_missing_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors: no such file"):
        validate(str(folder), "pim-gpt")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="holds no config.json"):
        validate(str(folder), "pim-gpt")
    with pytest.raises(InputError, match="no-such-model"):
        validate("no-such-model", "pim-gpt")


UNFIT = {
    "missing": (lambda io: io.pop("generated"), "generated is missing"),
    "empty": (lambda io: io.update(prompt=io["prompt"][:0]), "prompt should be a list of token numbers"),
    "type": (lambda io: io.update(prompt=io["prompt"] / 2), "prompt should be a list of token numbers"),
    "token": (
        lambda io: io.update(generated=io["generated"] + 250),
        "is not in the vocabulary of 257 entries",
    ),
    "shape": (
        lambda io: io.update(step_logits=io["step_logits"][:-1]),
        r"step_logits should be finite numbers of shape \(16, 257\), not float32\(15, 257\)",
    ),
    "infinite": (lambda io: io["prefill_logits"].fill(np.inf), "prefill_logits should be finite"),
}


def changed_io(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    io = dict(np.load(folder / "io.npz"))
    change(io)
    np.savez(folder / "io.npz", **io)


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_io(folder: Path, name: str) -> None:
    change, message = UNFIT[name]
    changed_io(folder, change)
    with pytest.raises(InputError, match=message):
        validate(str(folder), "pim-gpt")


def test_unreadable_io(folder: Path) -> None:
    (folder / "io.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="io.npz: not a readable npz file"):
        validate(str(folder), "pim-gpt")


def test_logits_of_another_model(folder: Path) -> None:
    def change(io: dict[str, np.ndarray]) -> None:
        largest = max(np.abs(io[key]).max() for key in ("prefill_logits", "step_logits"))
        io["prefill_logits"][3, 7] += 0.01 * largest

    changed_io(folder, change)
    result = validate(str(folder), "pim-gpt")
    assert not result.passed
    assert result.first_mismatch.startswith("logits at position 3: element 7 is ")
    assert result.max_relative_error == pytest.approx(0.01, rel=1e-3)
    assert result.tokens_equal == result.tokens_compared


def runner_up_wins(io: dict[str, np.ndarray]) -> None:
    """Make the last step's second token the reference's choice, by next to nothing."""
    row = io["step_logits"][15]
    second, best = np.argsort(row)[-2:]
    row[second] = row[best] + 1e-6
    io["generated"][15] = second


def test_another_token_is_a_mismatch_in_fp32_even_at_a_near_tie(folder: Path) -> None:
    changed_io(folder, runner_up_wins)
    result = validate(str(folder), "pim-gpt")
    assert not result.passed
    assert result.tokens_equal == 15


def test_a_near_tie_excuses_another_token_in_device_arithmetic(folder: Path) -> None:
    changed_io(folder, runner_up_wins)
    result = validate(str(folder), "pim-gpt", "device")
    assert result.first_mismatch == ""
    assert (result.passed, result.tokens_equal) == (True, 15)
    assert result.near_ties >= 1


def test_a_wrong_token_that_is_no_tie_fails_in_device_arithmetic(folder: Path) -> None:
    def change(io: dict[str, np.ndarray]) -> None:
        io["generated"][15] = (io["generated"][15] + 1) % 257

    changed_io(folder, change)
    result = validate(str(folder), "pim-gpt", "device")
    assert not result.passed
    assert result.first_mismatch.startswith("logits at position 26: token ")


# --- mistakes in the memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["fp32", "device"])
@pytest.mark.parametrize(
    ("layer", "region", "output", "position", "operator"),
    [
        (1, "ffn1.weight", 200, 37, "layer1.ffn1"),
        (0, "qkv.weight", 0, 0, "layer0.qkv"),
        (1, "proj.weight", 63, 63, "layer1.proj"),
        (0, "ffn2.weight", 17, 255, "layer0.ffn2"),
        (0, "wte", 256, 5, "lm_head"),
    ],
)
def test_one_wrong_cell(
    layer: int, region: str, output: int, position: int, operator: str, arithmetic: Arithmetic
) -> None:
    where: list[str] = []

    def tamper(memory: Memory, site: Site) -> None:
        place = site.regions[region].layout.place(output, 0, position)
        channel, bank, row, column, lane = (int(part) for part in place)
        row += site.regions[region].base_row + layer * site.layer_rows
        memory.cells[channel, bank, row, lane, column] = 8
        where.append(f"channel {channel}, bank {bank}, row {row}, column {column}: value {lane} there is 8, ")

    result = validate(str(small.DATA / "gpt2-tiny"), "pim-gpt", arithmetic, tamper=tamper)
    assert not result.passed
    assert result.first_mismatch.startswith(f"{operator} at position 0: element {output} is ")
    assert where[0] in result.first_mismatch


def test_wrong_parameter_and_table_cells() -> None:
    for region, element, operator in (
        ("layer.parameters", 64, "layer0.parameters at position 0: element 64 is 3, should be "),
        ("epilogue.parameters", 1, "parameters at position 0: element 1 is 3, "),
        ("wpe", 5, "embed.wpe at position 2: element 5 is 3, "),
    ):

        def tamper(memory: Memory, site: Site, region: str = region, element: int = element) -> None:
            layout = site.regions[region].layout
            at = (2, 0, element) if region == "wpe" else (element,)
            channel, bank, row, column, lane = (int(part) for part in layout.place(*at))  # type: ignore[call-arg]
            memory.cells[channel, bank, row + site.regions[region].base_row, lane, column] = 3

        result = validate(str(small.DATA / "gpt2-tiny"), "pim-gpt", tamper=tamper)
        assert result.first_mismatch.startswith(operator)
        assert "value " in result.first_mismatch


def test_wrong_layout_is_found() -> None:
    """Two banks exchanged, as if the layout had dealt the outputs in another order."""

    def tamper(memory: Memory, site: Site) -> None:
        memory.cells[:, [3, 4]] = memory.cells[:, [4, 3]]

    result = validate(str(small.DATA / "gpt2-tiny"), "pim-gpt", tamper=tamper)
    assert not result.passed
    assert result.first_mismatch.startswith("layer0.qkv at position 0: element 3 is ")
    assert "channel 0, bank 3, row 0, column 0: value 0 there is " in result.first_mismatch


def test_numbers_that_are_none() -> None:
    def tamper(memory: Memory, site: Site) -> None:
        memory.cells[:] = np.nan

    result = validate(str(small.DATA / "gpt2-tiny"), "pim-gpt", tamper=tamper)
    assert not result.passed
    assert result.max_relative_error is None
    assert result.tokens_equal < result.tokens_compared


# --- mistakes in the programs ------------------------------------------------------------------------------

NETWORK = small.model(layers=2, heads=2, d_head=16, d_ff=48, vocab=37, positions=40)
SITE = small.site(NETWORK, small.machine(2, 2, 1, 2), [[5, 6]])


def mismatch_with(change: Callable[[Task], Task | None], label: str = "layer{}.", clean: bool = False) -> str:
    """What is found in two tokens when the tasks of a block are changed (None: left out).

    clean: cells that hold nothing are 0; else anything, so that a program that uses them is found
    """
    proof, planner = Proof(SITE, dict(tensors.random(NETWORK, 0)), "fp32"), Planner(SITE)
    if not clean:
        cells = proof.memory.cells
        noise = np.random.default_rng(0).standard_normal(cells.shape).astype(np.float32)
        np.copyto(cells, noise, where=cells == 0)
    for position in range(2):
        item = planner.pass_at(position)
        blocks = [
            replace(block, tasks=tuple(new for task in block.tasks if (new := change(task)) is not None))
            if block.label == label
            else block
            for block in item.blocks
        ]
        proof.run(Pass(item.position, tuple(blocks)))
    return proof.mismatch


def test_the_right_programs_pass() -> None:
    assert mismatch_with(lambda task: task) == ""


@pytest.mark.parametrize(
    ("left_out", "found"),
    [
        ("qkv", "layer0.qkv.sum at position 0: register 'qkv.0.parts' holds nothing yet"),
        ("parameters", "layer0.ln1 at position 0: register 'params' holds nothing yet"),
        ("cache_k", "layer0.score at position 0: element 0 is 0, should be "),
        ("cache_v", "layer0.context at position 0: element 0 is 0, should be "),
        ("softmax", "layer0.context at position 0: register 'p.0' holds nothing yet"),
        ("add2", "layer0.add2 at position 0: not carried out in its turn"),
    ],
)
def test_a_task_left_out(left_out: str, found: str) -> None:
    message = mismatch_with(lambda task: None if task.name == left_out else task, clean=True)
    assert message.startswith(found)
    if left_out.startswith("cache"):
        assert "channel 0, bank 0, row " in message


def test_a_step_left_out_where_an_old_result_is_at_hand() -> None:
    """From the second token on, every register holds something."""
    proof, planner = Proof(SITE, dict(tensors.random(NETWORK, 0)), "device"), Planner(SITE)
    proof.run(planner.pass_at(0))
    item = planner.pass_at(1)
    block = item.blocks[1]
    fewer = replace(block, tasks=tuple(task for task in block.tasks if task.name != "ffn1.sum"))
    proof.run(Pass(1, (item.blocks[0], fewer, item.blocks[2])))
    assert proof.mismatch == "layer0.ffn1 at position 1: not carried out in its turn"


@pytest.mark.parametrize("name", ["qkv", "score", "context", "ffn2"])
def test_a_task_on_the_wrong_rows(name: str) -> None:
    def change(task: Task) -> Task:
        return (
            replace(task, base_row=task.base_row + 1)
            if isinstance(task, PimTask) and task.name == name
            else task
        )

    assert mismatch_with(change).startswith(f"layer0.{name} at position 0: ")


def test_the_wrong_part_of_a_register() -> None:
    def change(task: Task) -> Task:
        if isinstance(task, AsicTask) and task.name == "ln2":
            x, weight, bias = task.inputs
            return replace(task, inputs=(x, bias, weight))
        return task

    assert mismatch_with(change).startswith("layer0.ln2 at position 0 on the ASIC: element 0 is ")


FIELDS = ("times", "row", "column", "buffer", "bank", "d_bank", "d_column", "d_buffer")


def mutants(program: Program) -> Iterator[tuple[str, Program]]:
    """The program with one instruction left out or one of its numbers raised by one, where that matters."""
    for i, code in enumerate(program.code.tolist()):
        if code in (LOOP, END):
            continue
        name = program.commands[code]
        keep = np.arange(len(program.code)) != i
        # An empty loop is no program: its only command cannot be left out alone.
        lone = i and program.code[i - 1] == LOOP and program.code[i + 1] == END
        if not lone:
            arrays = {field: getattr(program, field)[keep] for field in ("code", *FIELDS)}
            yield f"{name} {i} left out", replace(program, **arrays)
        for field in FIELDS:
            values = getattr(program, field)
            unused = (field.startswith("d_") and program.times[i] == 1) or values[i] < 0
            moves = field.startswith("d_") and getattr(program, field[2:])[i] < 0
            if unused or moves:
                continue
            changed = values.copy()
            changed[i] += 1
            yield f"{name} {i} {field} + 1", replace(program, **{field: changed})


def blocks_of(item: Pass) -> Iterator[tuple[Block, PimTask]]:
    for block in item.blocks:
        for task in block.tasks:
            if isinstance(task, PimTask):
                yield block, task


HARMLESS = {"PREA", "PRE"}
"""A bank closed twice or twice as often is closed; to leave the command out is found at the next activate."""


@pytest.mark.parametrize("name", [task.name for _, task in blocks_of(Planner(SITE).pass_at(0))])
def test_every_mutation_of_a_program_is_found(name: str) -> None:
    """One command left out, or one address or count off by one, in any program of any operator."""
    tried = 0
    for block, original in blocks_of(Planner(SITE).pass_at(0)):
        if original.name != name:
            continue
        channel = next(c for c, program in enumerate(original.programs) if program is not None)
        for what, mutant in mutants(original.programs[channel]):
            if what.endswith("times + 1") and what.split()[0] in HARMLESS:
                continue

            def change(task: Task, channel: int = channel, mutant: Program = mutant) -> Task:
                if not isinstance(task, PimTask) or task.name != name:
                    return task
                programs = list(task.programs)
                programs[channel] = mutant
                return replace(task, programs=tuple(programs))

            assert mismatch_with(change, block.label) != "", what
            tried += 1
    assert tried >= 3

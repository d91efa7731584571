"""The command line.

Results go to stdout; errors, progress, notes to stderr. Exit codes: 0 done, 1 failed, 2 bad usage or input,
3 it ran and found a mismatch (validate), a violation (check-trace) or a difference (diff), 130 interrupted.

Only typer is imported here, everything else by the command that needs it: `pimloom --help` shall be instant.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Protocol

import typer
from typer.core import TyperGroup

from pimloom import __version__

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pimloom.arch.device import Device
    from pimloom.arch.document import Document
    from pimloom.arch.dram import Dram
    from pimloom.sim.bench import Issued
    from pimloom.sweeps.description import Request
    from pimloom.sweeps.sweep import Swept, Tally
    from pimloom.system import SystemResult

FAILED, BAD_INPUT, MISMATCH, INTERRUPTED = 1, 2, 3, 130
PATIENCE_s = 1.0
"""A run that takes longer gets a progress bar."""
LOG_s = 60.0
"""Without a terminal a sweep says this often how far it is."""
SHOWN_VIOLATIONS = 20
PIPE_COLUMNS = 110
"""Width of tables that go to no terminal."""
CLASSES = {
    "arch": ("pimloom.arch.machine", "Arch"),
    "host": ("pimloom.arch.host", "Host"),
    "gpu": ("pimloom.arch.gpu", "Gpu"),
    "device": ("pimloom.arch.device", "Device"),
    "system": ("pimloom.arch.system", "System"),
    "dram": ("pimloom.arch.dram", "Dram"),
    "memory": ("pimloom.arch.memory", "Memory"),
    "model": ("pimloom.workloads.model", "Model"),
    "measured": ("pimloom.reports.baselines", "Measured"),
    "processors": ("pimloom.reports.baselines", "Processors"),
    "cent": ("pimloom.reports.cent", "Cent"),
    "published": ("pimloom.reproduce", "Published"),
    "sweep": ("pimloom.sweeps.description", "Sweep"),
}
"""Kind of a description -> where its class is."""


class Tell(Protocol):
    """Takes how many steps are done, of how many, and what is going on if that changes."""

    def __call__(self, done: int, total: int, now: str = ...) -> None:
        """Show it."""


app = typer.Typer(
    help="Cycle-accurate, functionally proven simulation of language models in processing-in-memory.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad usage or input, 3 mismatch, violation or difference found, "
    "130 interrupted.",
    no_args_is_help=True,
    # Boxes and colours on a terminal; plain text, in half the time, into a pipe.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Shipped name, YAML, Hugging Face config.json, or a folder with one.",
    ),
]
ArchName = Annotated[str, typer.Argument(metavar="ARCH", help="Shipped name or YAML of a machine.")]
Prompt = Annotated[int, typer.Option(help="Tokens given.")]
Generate = Annotated[int, typer.Option(help="New tokens.")]
Batch = Annotated[int, typer.Option(help="Sequences side by side.")]
Embedding = Annotated[
    bool, typer.Option("--embedding/--no-embedding", help="With the look-up of token and position.")
]
Head = Annotated[bool, typer.Option("--head/--no-head", help="With the LM head.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Change a value by its path in the YAML: dram.channels=16, asic.clock_Hz=1e8, model.layers=2, "
        "workload.generate=64. May stand several times.",
    ),
]
CommandsOut = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the commands: .csv, .csv.gz or .parquet.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with `arguments`, by default the process's own, and exit with its code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app([word for word in words if word != "--debug"], prog_name="pimloom")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough (`| head`). Python flushes once more at its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        from pimloom.arch.tree import InputError

        if isinstance(error, InputError):
            typer.echo(str(error), err=True)
            sys.exit(BAD_INPUT)
        if debug:
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        typer.echo(f"pimloom failed: {text} (--debug shows where)", err=True)
    sys.exit(FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pimloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="After a failure show where; may stand anywhere.")
    ] = False,
) -> None:
    # `main` takes --debug out of the words; it is declared here for --help.
    del version, debug


# --- simulating ---------------------------------------------------------------------------------------------


@app.command(epilog="Example: pimloom simulate gpt3-xl pim-gpt --generate 1024 --out out/gpt3-xl")
def simulate(
    model: ModelName,
    arch: ArchName,
    prompt: Prompt = 1,
    generate: Generate = 128,
    batch: Batch = 1,
    engine: Annotated[
        Literal["fast", "naive", "events"],
        typer.Option(help="fast; naive: plain Python, every command one by one; events: SimPy processes."),
    ] = "fast",
    embedding: Embedding = True,
    head: Head = True,
    override: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for tables, figures, resolved descriptions and the timeline.",
        ),
    ] = None,
    timeline: Annotated[
        str | None,
        typer.Option(
            metavar="A:B", help="The timeline shows the passes A to B - 1.", show_default="the last pass"
        ),
    ] = None,
    json: Json = False,
    pim: Annotated[
        bool,
        typer.Option(
            "--pim/--no-pim",
            help="Without: the same memory read in the ordinary way by the same host (systems).",
        ),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")] = False,
) -> None:
    """Time and energy of a model on a machine, token by token."""
    started = time.perf_counter()
    shown = None if timeline is None else _range("--timeline", timeline)
    if out is not None:
        _check_folder(out)
    from pimloom.arch.tree import InputError
    from pimloom.run import prepare, run

    if _kind(arch, ("arch", "system")) == "system":
        for option, wrong in (("--timeline", timeline is not None), ("--engine", engine != "fast")):
            if wrong:
                raise InputError(f"{option}: {arch} is a system of PIM devices, which has no such choice")
        result_of_system = _run_system(
            model, arch, pim, started, quiet, prompt=prompt, generate=generate, batch=batch, embedding=embedding,
            head=head, overrides=override or (),
        )  # fmt: skip
        _show_system(result_of_system, out, json)
        return
    if not pim:
        raise InputError(f"--no-pim: {arch} has no host that could read its memory; systems have")
    setup = prepare(
        model, arch, prompt=prompt, generate=generate, batch=batch, embedding=embedding, head=head,
        overrides=override or (),
    )  # fmt: skip
    if shown and not shown[0] < shown[1] <= setup.workload.passes:
        raise InputError(
            f"--timeline {timeline}: should be a part, not empty, of the run's passes 0:{setup.workload.passes}"
        )
    if engine != "naive" and not quiet:
        _announce_compilation()
    with _progress(f"{setup.model.name} on {setup.arch.name}", quiet) as progress:
        result = run(setup, engine, progress, started)
    written = [] if out is None else _files(result.save(out, timeline=shown))
    if json:
        typer.echo(result.json(), nl=False)
        return
    from rich.console import Console

    from pimloom.reports.tables import print_summary

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    print_summary(result.summary, console, result.baselines())
    if written:
        typer.echo("\nFiles")
    for path in written:
        typer.echo(f"  {path}")


def _run_system(
    model: str, arch: str, pim: bool, started: float, quiet: bool, **options: Any
) -> SystemResult:
    from pimloom import system

    plan = system.prepare(model, arch, pim=pim, **options)
    if not quiet:
        _announce_compilation()
    with _progress(f"{plan.model.name} on {plan.system.name}", quiet) as progress:
        return system.simulate(plan, progress, started)


def _show_system(result: SystemResult, out: Path | None, json: bool) -> None:
    if out is not None:
        result.save(out)
    if json:
        typer.echo(result.json(), nl=False)
        return
    from rich.console import Console

    from pimloom.reports.system import print_system

    print_system(result.summary, Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    if out is not None:
        typer.echo("\nFiles")
        for path in _files(out):
            typer.echo(f"  {path}")


@app.command(epilog="Example: pimloom compare llama2-7b gddr6-aim,hbm2-pim,newton --prompt 1024 --generate 4")
def compare(
    model: ModelName,
    archs: Annotated[
        str, typer.Argument(metavar="ARCH,...", help="Machines and systems, with commas between them.")
    ],
    prompt: Prompt = 1,
    generate: Generate = 16,
    batch: Batch = 1,
    embedding: Embedding = True,
    head: Head = True,
    twins: Annotated[
        bool, typer.Option("--twins/--no-twins", help="With each system's twin without PIM.")
    ] = True,
    override: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the table and the figure.")
    ] = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")] = False,
) -> None:
    """One model and workload on many machines: time, energy, and what the time goes into."""
    from pimloom.compare import compare as run_all
    from pimloom.compare import save

    if out is not None:
        _check_folder(out)
    names = [name.strip() for name in archs.split(",")]
    if not quiet:
        _announce_compilation()
    with _progress(f"{model} on {len(names)} machines", quiet) as progress:
        compared = run_all(
            model, names, twins=twins, prompt=prompt, generate=generate, batch=batch, embedding=embedding,
            head=head, overrides=override or (), progress=progress,
        )  # fmt: skip
    written = [] if out is None else save(compared, out)
    if json:
        _print_json(compared.rows)
        return
    from rich.console import Console

    from pimloom.reports.system import print_comparison

    print_comparison(compared.rows, Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    for path in written:
        typer.echo(path)


@app.command(epilog="Example: pimloom kernel gemv gddr6-aim --shape 4096x4096 --channels 8")
def kernel(
    kind: Annotated[
        Literal["gemv", "add", "mul", "relu", "score", "context", "attention", "block"],
        typer.Argument(metavar="KERNEL", help="gemv, add, mul, relu, score, context, attention or block."),
    ],
    device: Annotated[
        str,
        typer.Argument(metavar="DEVICE", help="Shipped name or YAML of a PIM device; of block, of a system."),
    ],
    shape: Annotated[
        str,
        typer.Option(
            help="gemv OUTxIN; add, mul, relu N; score, context, attention HEADSxD_HEADxTOKENS, heads as 64/8 with "
            "fewer key-value heads; block MODEL:CONTEXT."
        ),
    ],
    channels: Annotated[
        int | None, typer.Option(help="Channels that hold the operands.", show_default="all")
    ] = None,
    commands: CommandsOut = None,
    stream: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the program in the form of the device's own simulator."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Execute the program on random numbers and compare with NumPy.")
    ] = False,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """One kernel on one PIM device whose channels are idle: clocks, commands, energy."""
    from pimloom.arch.device import load_device
    from pimloom.arch.tree import InputError
    from pimloom.bench import kernel_result, parse_shape, run_kernel

    if kind == "block":
        for option, given in (
            ("--commands", commands is not None), ("--stream", stream is not None), ("--check", check),
        ):  # fmt: skip
            if given:
                raise InputError(f"{option}: a block is many kernels on a system, which have no such choice")
        changes = [] if channels is None else [f"partition.channels={channels}"]
        _block(device, shape, [*changes, *(override or ())], json)
        return
    described, _ = load_device(device, override or ())
    work = parse_shape(kind, shape)
    if commands:
        _check_folder(commands.parent)
    _announce_compilation(described.controller.order)
    with _busy(f"{kind} on {described.name}"):
        run = run_kernel(described, work, channels, log=commands is not None)
        result = kernel_result(run)
        if check:
            from pimloom.device_proof import check as execute

            result["largest_relative_error"] = execute(run)
    if stream:
        from pimloom.traces.foreign import write_stream

        write_stream(stream, run.kernel.stream, described)
    _write_commands(commands, described, run.issued)
    _show_kernel(result, commands, json)


def _block(device: str, shape: str, overrides: Sequence[str], json: bool) -> None:
    from pimloom.arch.tree import InputError
    from pimloom.system import block

    model, colon, context = shape.rpartition(":")
    if not (colon and context.isdecimal() and 0 < int(context) < 2**24):
        raise InputError(f"--shape {shape}: of block should be MODEL:CONTEXT, such as llama2-7b:128")
    _announce_compilation()
    result = block(model, device, int(context), overrides)
    if json:
        typer.echo(result.json(), nl=False)
        return
    _show_system(result, None, False)


def _write_commands(path: Path | None, device: Device, issued: Issued) -> None:
    if path:
        from pimloom.traces import io

        assert issued.logs is not None
        io.write(path, io.merge([io.from_log(device.dram, c, log) for c, log in enumerate(issued.logs)]))


def _show_kernel(result: dict[str, Any], commands: Path | None, json: bool) -> None:
    if json:
        _print_json(result)
        return
    from rich.console import Console

    from pimloom.reports.kernel import print_kernel

    print_kernel(result, Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    if commands:
        typer.echo(f"commands: {commands}")


@app.command(
    epilog="Example: pimloom validate ./gpt2 pim-gpt --arithmetic device. "
    "A folder with io.npz is held against the logits in it."
)
def validate(
    model: ModelName,
    arch: ArchName,
    arithmetic: Annotated[
        Literal["fp32", "device"],
        typer.Option(help="fp32, or the device's: bf16 operands and the ASIC's approximations."),
    ] = "fp32",
    prompt: Annotated[int | None, typer.Option(help="Tokens given.", show_default="4")] = None,
    generate: Annotated[int | None, typer.Option(help="New tokens.", show_default="4")] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights and prompt of a model without.")] = 0,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """Execute the very programs that are timed and compare their numbers with a reference."""
    from dataclasses import asdict

    prove: Any
    if _kind(arch, ("arch", "system")) == "system":
        from pimloom.device_proof import validate_system as prove
    else:
        from pimloom.proof import validate as prove

    with _progress(f"{model} on {arch}") as progress:
        outcome = prove(
            model, arch, arithmetic, prompt=prompt, generate=generate, seed=seed,
            overrides=override or (), progress=progress,
        )  # fmt: skip
    if json:
        _print_json({"model": model, "arch": arch, **asdict(outcome)})
    else:
        error = outcome.max_relative_error
        typer.echo(f"{'passed' if outcome.passed else 'FAILED'}: {model} on {arch}, {arithmetic} arithmetic")
        typer.echo(f"  tokens equal to the reference's   {outcome.tokens_equal} of {outcome.tokens_compared}")
        typer.echo(f"  largest difference of the logits  {_figure(error)} of the largest logit")
        typer.echo(f"  positions compared                {outcome.positions_compared}")
        if arithmetic == "device":
            typer.echo(f"  near ties among the tokens        {outcome.near_ties}")
    if not outcome.passed:
        typer.echo(f"first mismatch: {outcome.first_mismatch}", err=True)
        raise typer.Exit(MISMATCH)


class _WithDefault(TyperGroup):
    """Commands of which one need not be named: `pimloom trace MODEL ARCH` is `pimloom trace model MODEL ARCH`."""

    default = "model"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


traces = typer.Typer(
    cls=_WithDefault,
    no_args_is_help=True,
    help="Commands of some passes of a model; or of a program of another tool.",
)
app.add_typer(traces, name="trace")


@traces.command("run", epilog="Example: pimloom trace run isr.csv.gz gddr6-aim --commands out.csv")
def trace_run(
    stream: Annotated[
        Path, typer.Argument(metavar="STREAM", help="AiM instructions or AttAcc requests, plain or gzip.")
    ],
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Shipped name or YAML of a PIM device.")],
    commands: CommandsOut = None,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """Run a program of another tool on a PIM device, so that mapping and timing errors separate."""
    from pimloom.arch.device import load_device
    from pimloom.bench import issued_result
    from pimloom.sim.bench import channels
    from pimloom.traces.foreign import read_stream

    described, _ = load_device(device, override or ())
    if commands:
        _check_folder(commands.parent)
    program = read_stream(stream, described)
    _announce_compilation(described.controller.order)
    with _busy(f"{stream} on {described.name}"):
        issued = channels(described).run(program, 0, log=commands is not None)
    result = {"device": described.name, "stream": str(stream), **issued_result(described, issued)}
    _write_commands(commands, described, issued)
    _show_kernel(result, commands, json)


@traces.command(
    "model", epilog="Example: pimloom trace gpt2-small pim-gpt --generate 4 --tokens 0:2 --out trace.parquet"
)
def trace(
    model: ModelName,
    arch: ArchName,
    tokens: Annotated[
        str, typer.Option(metavar="A:B", help="The passes A to B - 1; one token each, from 0.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Ends in .csv, .csv.gz or .parquet."),
    ],
    prompt: Prompt = 1,
    generate: Generate = 128,
    batch: Batch = 1,
    embedding: Embedding = True,
    head: Head = True,
    override: Overrides = None,
) -> None:
    """Write every command issued in some passes, with its cycle and address."""
    from pimloom.arch.tree import InputError
    from pimloom.run import prepare
    from pimloom.run import trace as record
    from pimloom.traces import io

    first, stop = _range("--tokens", tokens)
    _check_folder(out.parent)
    if out.is_dir():
        raise InputError(f"{out}: is a folder, not a file")
    io.form_of(out)
    setup = prepare(
        model, arch, prompt=prompt, generate=generate, batch=batch, embedding=embedding, head=head,
        overrides=override or (),
    )  # fmt: skip
    _announce_compilation()
    with _busy(f"{setup.model.name} on {setup.arch.name}: passes {first} to {stop - 1}"):
        commands = record(setup, first, stop)
        io.write(out, commands)
    typer.echo(f"{out}: {len(commands)} commands, cycles {commands.cycle[0]} to {commands.cycle[-1]}")


# --- sweeping -----------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: pimloom sweep gpt2-small,gpt2-medium pim-gpt -s dram.channels=4,8,16 "
    "-s asic.clock_Hz=1e8:1e9:log5 --out out/sweep"
)
def sweep(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SWEEP | MODEL,... ARCH,...",
            help="A sweep by shipped name or YAML; or models and machines, several with commas between them.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder for the table and all points; what is done there is not run again."
        ),
    ],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--sweep",
            metavar="KEY=VALUES",
            help="Values with commas between them, or a range: 4:64:4 in steps of 4, 4:64:x2 doubled, 1e8:1e9:log5 "
            "or lin5 for five values. May stand several times; all values are combined. KEY,KEY=VALUES changes keys "
            "together, each by itself as KEY,KEY=[1,2],[3,4].",
        ),
    ] = None,
    override: Overrides = None,
    prompt: Annotated[int | None, typer.Option(help="Tokens given, as -o workload.prompt.")] = None,
    generate: Annotated[int | None, typer.Option(help="New tokens, as -o workload.generate.")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences, as -o workload.batch.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes.", show_default="one a core")
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR2", help="Take points over from another sweep's folder. May stand several times."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points that failed once more.")
    ] = False,
    max_points: Annotated[int, typer.Option(metavar="N", help="Refuse a sweep that has more.")] = 10_000,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")] = False,
) -> None:
    """Run many points on all cores, and write one table. The same command goes on where it was interrupted."""
    from dataclasses import asdict

    from pimloom.sweeps.sweep import Tally, run_sweep

    _check_folder(out)
    options = {"prompt": prompt, "generate": generate, "batch": batch}
    given = [f"workload.{name}={value}" for name, value in options.items() if value is not None]
    request = _request(names, axis or [], [*(override or []), *given])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as batch systems end a job
    first, last = None, Tally(request.count)
    started = said = time.monotonic()
    try:
        with _progress(request.name, quiet) as progress:

            def tell(tally: Tally) -> None:
                nonlocal first, last, said
                first, last = first or tally, tally
                if progress:
                    # The time left is reckoned from points that are run, not from those that were there.
                    done, total = tally.done - first.done, tally.points - first.done
                    progress(done, total, f"{request.name}: {_tally(tally)}")
                elif not quiet and time.monotonic() - said > LOG_s:
                    said = time.monotonic()
                    typer.echo(f"{tally.done} of {tally.points} points: {_tally(tally)}", err=True)

            swept = run_sweep(
                request, out, workers=workers, reuse=reuse or [], retry_failed=retry_failed,
                max_points=max_points, progress=tell, announce=None if quiet else _announce_compilation,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: {last.done} of {last.points} points are done and kept in {out}; "
            "the same command goes on from there",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    files = [str(path) for path in swept.files]
    if json:
        _print_json(asdict(swept.tally) | {"seconds": round(time.monotonic() - started, 3), "files": files})
    else:
        _print_points(swept)
        typer.echo(f"{swept.tally.points} points: {_tally(swept.tally)}")
        for file in files:
            typer.echo(f"  {file}")
    for reason, rows in swept.failures.items():
        # Of several grids most keys would only repeat what is not swept.
        keys = ("model", "arch", *(swept.plan.keys if len(swept.plan.members) == 1 else ()))
        first_row = ", ".join(f"{key}={rows[0][key]}" for key in keys)
        typer.echo(f"{len(rows)} failed: {reason} (first: {first_row})", err=True)
    if any(row["error"] and row["point"] for row in swept.rows):
        typer.echo("failed points are not run again unless with --retry-failed", err=True)
    if swept.tally.failed == swept.tally.points:
        raise typer.Exit(FAILED)


@app.command(epilog="Example: pimloom plot out/sweep --x dram.channels --y energy_per_token_pJ --hue model")
def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a sweep.")],
    x: Annotated[
        str | None, typer.Option(metavar="KEY", help="Swept key, model or arch; pareto: a metric.")
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="A column of the table, speedup or energy_saving."),
    ] = None,
    hue: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="One line or bar for each of its values; heat: the rows; bars: also processor.",
        ),
    ] = None,
    kind: Annotated[Literal["line", "heat", "bars", "pareto"] | None, typer.Option(help="Of figure.")] = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="What a ratio is over: T4_roofline, or KEY=VALUE,... such as arch=pim-gpt."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Value of a swept key that the figure does not show. May stand several times.",
            show_default="the last one swept",
        ),
    ] = None,
    grid: Annotated[str | None, typer.Option(metavar="NAME", help="Only this grid of the sweep.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where figures go.", show_default="DIR/figures")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="png|pdf|svg",
            help="Write only this. May stand several times.",
            show_default="all three",
        ),
    ] = None,
) -> None:
    """Draw a sweep as PNG, PDF and SVG; what is not said is chosen by what was swept."""
    from pimloom.arch.tree import InputError
    from pimloom.reports.sweep_choice import Wanted, figures
    from pimloom.reports.sweep_data import load_sweep
    from pimloom.reports.sweep_plots import SUFFIXES, save

    fixed = {}
    for text in where or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--where {text}: should be KEY=VALUE, such as workload.generate=128")
        fixed[key] = value
    target = out or folder / "figures"
    _check_folder(target)
    swept = load_sweep(folder)
    specs = figures(swept, Wanted(kind=kind, x=x, y=y, hue=hue, over=over, grid=grid, where=fixed))
    with _busy(f"drawing {len(specs)} figures"):
        paths = save(swept, specs, target, formats or SUFFIXES)
    for path in paths:
        typer.echo(path)
    if swept.failed:
        typer.echo(f"points that failed, and are not drawn: {swept.failed}", err=True)


# --- checking -----------------------------------------------------------------------------------------------


@app.command(epilog="Example: pimloom check my-arch.yaml ./gpt2/config.json")
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Descriptions of any kind, or config.json."),
    ],
) -> None:
    """Say whether descriptions are right, and if not, what and where; nothing is simulated."""
    from pimloom.arch.document import InputError

    wrong = False
    for file in files:
        try:
            described, document = _load(file)
            gist = _sweep_gist(file) if document.kind == "sweep" else _gist(described)
            typer.echo(f"{file}: OK: {document.kind} {gist}")
        except InputError as error:
            typer.echo(str(error), err=True)
            wrong = True
    if wrong:
        raise typer.Exit(BAD_INPUT)


@app.command(epilog="Example: pimloom dram ddr4_3200 requests.txt.gz --commands commands.csv")
def dram(
    memory: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="DRAM or memory, by shipped name or YAML, or a configuration of the DRAM reference data.",
        ),
    ],
    requests: Annotated[
        Path,
        typer.Argument(
            metavar="REQUESTS",
            help="Request trace, plain or gzip: `cycle,op,address` rows, or of DRAMsim3 or Ramulator.",
        ),
    ],
    commands: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the commands: .csv, .csv.gz or .parquet."),
    ] = None,
    max_commands: Annotated[
        int | None,
        typer.Option(min=0, help="Write no more commands than this; all are simulated and counted."),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option(metavar="MEMORY", help="For a DRAM: shipped memory whose controller stands before it."),
    ] = None,
    wrap: Annotated[
        bool, typer.Option("--wrap", help="Take addresses beyond the memory modulo its size.")
    ] = False,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """Simulate a request trace on one channel of a memory, command for command."""
    from pimloom.arch.memory import load_memory
    from pimloom.memory import controller_class, run_requests
    from pimloom.sim.controller import StuckError

    described, _ = load_memory(memory, override or (), controller)
    if commands:
        _check_folder(commands.parent)
    _announce_compilation(controller_class(described).__module__)
    try:
        with _busy(f"simulating {requests}"):
            begin = time.perf_counter()
            result = run_requests(described, requests, commands, max_commands, wrap)
            wall_s = time.perf_counter() - begin
    except StuckError as error:
        typer.echo(f"{requests}: {error}", err=True)
        raise typer.Exit(FAILED) from None
    if json:
        from pimloom.reports.summary import host_block

        speed = {"wall_s": wall_s, "requests_per_s": result["requests"] / wall_s}
        _print_json({**result, "simulator": {**speed, **host_block()}})
        return
    from rich.console import Console

    from pimloom.reports.memory import print_memory

    print_memory(result, Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    if commands:
        typer.echo(f"commands: {commands}")


@app.command(epilog="Example: pimloom selftest ddr4_3200 hbm3_6400")
def selftest(
    standards: Annotated[
        list[str] | None, typer.Argument(metavar="[STANDARD]...", help="Shipped DRAM standards; none = all.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold bandwidth and unloaded latency of DRAM standards against the closed forms of their timings."""
    from dataclasses import asdict

    from pimloom.selftest import selftest

    _announce_compilation()
    with _busy("running traffic"):
        rows = selftest(standards or ())
    failed = [row for row in rows if not row.passed]
    if json:
        _print_json([asdict(row) | {"deviation": row.deviation, "passed": row.passed} for row in rows])
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(
            "standard", "controller", "one channel", box=None, title_justify="left",
            title="Reads achieved beside the closed form of the standard's timings",
        )  # fmt: skip
        for heading in ("achieved", "closed form", "deviation", "tolerated", "peak", ""):
            table.add_column(heading, justify="right")
        for row in rows:
            is_exact = row.tolerance_below == row.tolerance_above == 0
            table.add_row(
                row.dram,
                row.controller,
                row.quantity,
                f"{row.achieved:.4g} {row.unit}",
                f"{row.closed_form:.4g}",
                f"{row.deviation:+.2%}",
                "exact" if is_exact else f"-{row.tolerance_below:.1%} +{row.tolerance_above:.1%}",
                "" if row.peak is None else f"{row.achieved / row.peak:.1%} of {row.peak:.4g}",
                "ok" if row.passed else "FAILED",
            )
        Console(width=None if sys.stdout.isatty() else 150).print(table)
    if failed:
        names = ", ".join(dict.fromkeys(row.dram for row in failed))
        typer.echo(f"{len(failed)} of {len(rows)} figures are off: {names}", err=True)
        raise typer.Exit(FAILED)
    if not json:
        typer.echo(f"{len(rows)} figures as they should be")


@app.command("check-trace", epilog="Example: pimloom check-trace pim-gpt trace.parquet")
def check_trace(
    memory: Annotated[
        str,
        typer.Argument(
            metavar="ARCH|CONFIG",
            help="Machine, DRAM or memory, by shipped name or YAML, or a configuration of the DRAM reference data.",
        ),
    ],
    commands: Annotated[Path, typer.Argument(metavar="COMMANDS", help=".csv, .csv.gz or .parquet")],
    partial: Annotated[bool, typer.Option("--partial", help="The trace may end anywhere.")] = False,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """Check a command trace against every rule of its memory and name the violations."""
    from dataclasses import asdict

    from pimloom.arch.machine import Arch
    from pimloom.traces import check as rules
    from pimloom.traces import io

    described, document = _load(memory, override, ("arch", "dram", "memory"))
    dram = _dram_of(described)
    symbols = described.symbols if isinstance(described, Arch) else dram.symbols({})
    found = io.read(commands, dram)
    # A PIM program closes what it opens and uses every channel; requests leave rows open, and channels idle.
    is_plain = document.kind == "memory" or not dram.is_pim
    channels = set(found.channel.tolist()) if is_plain else None
    with _busy(f"checking {len(found)} commands"):
        violations = rules.check(dram, symbols, found, partial, channels, rows_may_stay_open=is_plain)
    if json:
        _print_json(
            {
                "memory": dram.name,
                "commands_checked": len(found),
                "partial": partial,
                "passed": not violations,
                "violations": [asdict(violation) for violation in violations],
            }
        )
    else:
        for violation in violations[:SHOWN_VIOLATIONS]:
            typer.echo(violation)
        if len(violations) > SHOWN_VIOLATIONS:
            by_rule = Counter(violation.rule for violation in violations).most_common()
            typer.echo(f"... in all: {', '.join(f'{rule} {n}' for rule, n in by_rule)}; --json has them")
        count = f"{len(violations)} violation{'s' * (len(violations) != 1)}"
        typer.echo(f"{commands}: {len(found)} commands checked against {dram.name}: {count}")
    if violations:
        raise typer.Exit(MISMATCH)


@app.command(
    "export-trace", epilog="Example: pimloom export-trace ddr4_3200 commands.csv power.csv --form drampower"
)
def export_trace(
    memory: Annotated[str, typer.Argument(metavar="CONFIG", help="As of `dram`.")],
    commands: Annotated[Path, typer.Argument(metavar="COMMANDS", help=".csv, .csv.gz or .parquet")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    form: Annotated[
        Literal["drampower", "ramulator2"],
        typer.Option(help="Input of DRAMPower 6, or what Ramulator 2.1's command recorder writes."),
    ],
    override: Overrides = None,
) -> None:
    """Write a command trace in the form of another tool."""
    from pimloom.traces import io
    from pimloom.traces.export import export

    dram = _dram_of(_load(memory, override, ("arch", "dram", "memory"))[0])
    _check_folder(out.parent)
    export(out, io.read(commands, dram), dram, form)
    typer.echo(out)


# --- looking ------------------------------------------------------------------------------------------------


@app.command("list", epilog="Example: pimloom list models")
def list_shipped(
    what: Annotated[
        Literal["models", "archs", "systems", "devices", "hosts", "dram", "memories", "sweeps", "baselines"]
        | None,
        typer.Argument(help="Only these."),
    ] = None,
) -> None:
    """Name what is shipped."""
    from pimloom.arch.document import shipped
    from pimloom.reports.baselines import measured, processors

    for heading, kind in (
        ("models", "model"),
        ("archs", "arch"),
        ("systems", "system"),
        ("devices", "device"),
        ("hosts", "host"),
        ("dram", "dram"),
        ("memories", "memory"),
        ("sweeps", "sweep"),
    ):
        if what in (None, heading):
            names = {name: _load(name, kinds=(kind,))[0].description for name in shipped(kind)}
            _print_names(heading, names, what is None)
    if what in (None, "baselines"):
        data = {measured().processor: f"measured; {', '.join(measured().shapes)}"}
        sheets = {p.name: "roofline from data-sheet peaks" for p in processors().values()}
        _print_names("baselines", {**sheets, **data}, what is None)


@app.command(epilog="Example: pimloom show pim-gpt -o dram.channels=16 > my-arch.yaml")
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME_OR_FILE", help="Description of any kind, or config.json."),
    ],
    override: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="JSON Schema of descriptions of this kind, for editors.")
    ] = False,
    sources: Annotated[bool, typer.Option("--sources", help="Where each value comes from.")] = False,
) -> None:
    """Print a description with everything that it extends and every override merged in."""
    from pimloom.arch.base import json_schema

    described, document = _load(name, override)
    if schema:
        _print_json(json_schema(type(described)))
    elif sources:
        for path, source in document.sources().items():
            typer.echo(f"{path}: {source}")
    else:
        typer.echo(document.text(), nl=False)


@app.command(epilog="Example: pimloom datasheet ./my-dram.yaml --out out")
def datasheet(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="DRAMs and PIM devices by shipped name or YAML; none = all shipped, and an index.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pages.")] = Path("out/datasheets"),
) -> None:
    """Write pages on DRAMs and PIM devices: organisation, timings, rules, their sources, and timing diagrams."""
    from pimloom.arch.device import Device
    from pimloom.reports.devices import write_device, write_devices
    from pimloom.reports.standards import write_page, write_standards

    loaded = [(Path(name).stem, *_load(name, kinds=("dram", "device"))) for name in names or ()]
    _check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    _announce_compilation()
    with _busy("drawing"):
        written = []
        for stem, described, document in loaded:
            write = write_device if isinstance(described, Device) else write_page
            written += write(described, document, out / stem)
        written = written or [*write_standards(out), *write_devices(out)]
    for path in written:
        typer.echo(path)


@app.command(epilog="Example: pimloom explain row_hit_rate")
def explain(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="A key of the result, or one that others stand under."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what the keys of a result (--json, result.json) mean, and in which units they are."""
    from fnmatch import fnmatchcase

    from pimloom.arch.tree import InputError, did_you_mean
    from pimloom.reports.definitions import COLUMNS, definitions, device_keys, request_keys

    known = definitions() | COLUMNS | request_keys() | device_keys()
    found = {
        name: meaning
        for name, meaning in known.items()
        if key is None or name == key or name.startswith(f"{key}.")
    }
    if key is not None and not found:
        found = {name: meaning for name, meaning in known.items() if fnmatchcase(key, name)}
    if not found:
        raise InputError(f"a result has no key {key!r}{did_you_mean(str(key), list(known))}")
    if json:
        _print_json({name: meaning._asdict() for name, meaning in found.items()})
        return
    for name, (unit, text) in found.items():
        typer.echo(f"{name}{f' ({unit})' if unit else ''}: {text}")


@app.command(epilog="Example: pimloom diff out/before out/after")
def diff(
    left: Annotated[
        str, typer.Argument(metavar="A", help="Folder of a result, machine, device, memory or model.")
    ],
    right: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    json: Json = False,
) -> None:
    """Name what differs between two results or two descriptions."""
    from pimloom.reports.diff import diff as compare
    from pimloom.reports.diff import load_side

    found = compare(load_side(left), load_side(right))
    if json:
        _print_json({"equal": not found, "differences": [d._asdict() for d in found]})
    else:
        for d in found:
            change = "" if d.relative is None else f"  ({d.relative:+.3%})"
            others = "" if d.entries == 1 else f", and {d.entries - 1} more of the list"
            typer.echo(f"{d.path}: {d.left} -> {d.right}{change}{others}")
        if not found:
            typer.echo("equal")
    if found:
        raise typer.Exit(MISMATCH)


@app.command(epilog="Example: pimloom reproduce aim --cases my-cases.csv --json")
def reproduce(
    what: Annotated[
        Literal["pim-gpt", "hbm-pim", "aim", "cent", "attacc"],
        typer.Argument(metavar="WHAT", help="A paper: pim-gpt; or a device: hbm-pim, aim, cent, attacc."),
    ],
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of a device's cases.",
            show_default="the one of its own simulator, shipped",
        ),
    ] = None,
    write_docs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the comparison into its part of DIR/validation.md."),
    ] = None,
    json: Json = False,
) -> None:
    """Run a machine as published, or a device as its own simulator did, and print their figures beside ours."""
    from pimloom.arch.document import InputError

    if write_docs is not None and not write_docs.is_dir():
        raise InputError(f"{write_docs}: is not a folder")
    if what == "pim-gpt":
        if cases is not None:
            raise InputError(f"--cases {cases}: pim-gpt has no table of cases")
        told, page, lines = _reproduce_paper(what)
    else:
        told, page, lines = _reproduce_device(what, cases)
    if write_docs is not None:
        from pimloom.reports.validation import replace_part

        replace_part(write_docs / "validation.md", what, list(page))
    if json:
        _print_json(told)
        return
    for line in lines:
        typer.echo(line)


def _reproduce_paper(paper: str) -> tuple[Any, Iterator[str], list[str]]:
    from pimloom.reproduce import PAPERS, Published, difference, markdown, spread
    from pimloom.reproduce import reproduce as compare

    _announce_compilation()
    published: Published = _load(PAPERS[paper], kinds=("published",))[0]
    models = list(published.models)
    with _progress(paper) as progress:

        def tell(model: str) -> None:
            if progress:
                progress(models.index(model), len(models), f"{paper}: {model}, 3 runs")

        findings, runs = compare(paper, tell)
    lines = []
    for f in findings:
        lines.append(
            f"{f.quantity} ({f.unit}): published {spread(f.theirs)}, ours {spread(f.ours)}: {difference(f)}"
        )
        if not f.within:
            lines.append(f"    {f.why.strip()}")
    return [f._asdict() for f in findings], markdown(paper, findings, runs), lines


def _reproduce_device(device: str, cases: Path | None) -> tuple[Any, Iterator[str], list[str]]:
    from pimloom.reports.cases import has_column
    from pimloom.reproduce_devices import markdown, reproduce_device

    _announce_compilation()
    if device == "cent":
        return _reproduce_cent(cases)
    if device == "attacc" and cases is not None and has_column(cases, "g_time (ms)"):
        steps, lines = _reproduce_steps(cases)
        return steps, iter(lines), lines
    with _progress(device) as progress:
        outcomes = reproduce_device(device, cases, progress)
    width = max(len(o.case) for o in outcomes)
    lines = [f"{'case':{width}}  {'reference':>10}  {'ours':>10}  difference"]
    for o in outcomes:
        refreshed = "" if o.cycles_refreshed is None else f"  with refresh {o.cycles_refreshed:,}"
        lines.append(
            f"{o.case:{width}}  {o.reference_cycles:>10,}  {o.cycles:>10,}  {o.difference:>+10.2%}{refreshed}"
        )
    equal = sum(o.cycles == o.reference_cycles for o in outcomes)
    worst = max(abs(o.difference) for o in outcomes)
    lines.append(f"{equal} of {len(outcomes)} equal to the clock, the largest difference {worst:.2%}")
    told, page = [o.as_json() for o in outcomes], [*markdown(device, outcomes)]
    if device == "attacc" and cases is None:
        from pimloom.reproduce_attacc import steps_markdown

        steps, more = _reproduce_steps(None)
        told += steps
        lines += ["", *more]
        page += steps_markdown(steps)
    return told, iter(page), lines


def _reproduce_steps(cases: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return AttAcc's end-to-end rows beside ours, and the same as lines."""
    from pimloom.reproduce_attacc import reproduce_steps, step_lines

    with _progress("attacc, end to end") as progress:
        steps = reproduce_steps(cases, progress)
    return steps, step_lines(steps)


def _reproduce_cent(cases: Path | None) -> tuple[Any, Iterator[str], list[str]]:
    from pimloom.reproduce_devices import CENT_QUANTITIES, cent_markdown, reproduce_cent

    with _progress("cent") as progress:
        told = reproduce_cent(cases, progress)
    lines = []
    for row in told:
        lines.append(f"{row['case']}: block {row['reference_cycles']:,} clocks, ours {row['cycles']:,}")
        for name in CENT_QUANTITIES:
            q = row[name]
            lines.append(
                f"    {name.replace('_', ' '):28} {q['reference']:>12.5g} {q['ours']:>12.5g} {q['difference']:+.4%}"
            )
    return told, cent_markdown(told), lines


@app.command()
def version() -> None:
    """Print the versions of pimloom, Python and the libraries that its numbers come from."""
    import pimloom

    for name, number in pimloom.version().items():
        typer.echo(f"{name} {number}")


# --- descriptions -------------------------------------------------------------------------------------------


def _load(
    name: str, overrides: Sequence[str] | None = None, kinds: Sequence[str] = tuple(CLASSES)
) -> tuple[Any, Document]:
    """Load the description of a shipped name or a path, which must be of one of the kinds.

    Raises InputError.
    """
    from importlib import import_module

    from pimloom.arch.document import InputError, load

    kind = _kind(name, kinds)
    if kind not in kinds:
        raise InputError(f"{name}: its kind is {kind!r}, wanted is {' or '.join(map(repr, kinds))}")
    if kind == "model":
        from pimloom.workloads.model import load_model

        return load_model(name, overrides or ())
    if kind == "memory":
        from pimloom.arch.memory import load_memory

        return load_memory(name, overrides or ())
    module, of_kind = CLASSES[kind]
    cls: type[BaseModel] = getattr(import_module(module), of_kind)
    return load(cls, kind, name, overrides or ())


def _kind(name: str, kinds: Sequence[str]) -> str:
    from pimloom.arch.document import InputError, kind_of, shipped
    from pimloom.arch.tree import did_you_mean
    from pimloom.workloads.huggingface import config_path

    if "model" in kinds and config_path(name):
        return "model"
    if "/" in name or name.endswith((".yaml", ".yml", ".json")):
        return kind_of(name)
    known = {shipped_name: kind for kind in kinds for shipped_name in shipped(kind)}
    if name not in known:
        raise InputError(
            f"no description {name!r} is shipped{did_you_mean(name, list(known))}; there are: "
            f"{', '.join(known)}; a file is named by its path, such as ./my.yaml"
        )
    return known[name]


def _gist(described: Any) -> str:
    """Say in a line what a description amounts to."""
    from pimloom.arch.dram import Dram
    from pimloom.arch.machine import Arch
    from pimloom.workloads.model import Model

    text = f"{described.name}"
    if isinstance(described, Arch):
        peaks = described.peaks
        text += (
            f", {_memory(described.dram)}; peaks {peaks.mac_per_s / 1e12:.4g} TMAC/s, "
            f"{peaks.internal_Bps / 1e9:.4g} GB/s inside, {peaks.pin_Bps / 1e9:.4g} GB/s at the pins"
        )
    elif isinstance(described, Dram):
        rules = f"{len(described.commands)} commands, {len(described.constraints)} timing rules"
        pin_GBps = described.channels * described.pin_Bps / 1e9
        text += f", {_memory(described)}; {rules}; peak {pin_GBps:.4g} GB/s at the pins"
    elif isinstance(described, Model):
        text += (
            f", {described.parameters:,} parameters: {described.layers} layers of width {described.d_model}, "
            f"{described.heads} heads, vocabulary {described.vocab}, {described.positions} positions"
        )
    return text


def _sweep_gist(name: str) -> str:
    """Resolve all points of a sweep, which finds what is wrong with its keys and values, and count them."""
    from pimloom.sweeps.description import load_sweep
    from pimloom.sweeps.plan import plan
    from pimloom.sweeps.sweep import MAX_POINTS

    request = load_sweep(name)
    points = plan(request, MAX_POINTS).points
    refused = sum(point.id is None for point in points)
    also = f", {refused} of them impossible" if refused else ""
    grids = f"{len(request.grids)} grid{'s' * (len(request.grids) != 1)}"
    return f"{request.name}, {grids}, {len(points)} point{'s' * (len(points) != 1)}{also}"


def _request(names: Sequence[str], axes: Sequence[str], overrides: Sequence[str]) -> Request:
    """Return what a sweep is asked for, from its file or from the words of the command line."""
    from pimloom.arch.document import InputError, shipped
    from pimloom.sweeps.description import load_sweep, make_sweep
    from pimloom.workloads.huggingface import config_path

    split = [[word.strip() for word in name.split(",")] for name in names]
    match split:
        case [[name]] if name in shipped("model") or config_path(name):
            raise InputError(f"{name}: is a model, and a machine is missing after it")
        case [[name]] if axes:
            raise InputError(
                f"{name}: -s goes with a model and a machine; a sweep's file says what it sweeps"
            )
        case [[name]]:
            return load_sweep(name, overrides)
        case [models, archs] if set(models) <= set(shipped("arch")) and set(archs) <= set(shipped("model")):
            raise InputError(f"{' '.join(names)}: the model comes first: {names[1]} {names[0]}")
        case [models, archs]:
            return make_sweep(models, archs, axes, overrides)
        case _:
            raise InputError(
                f"{' '.join(names)}: should be a sweep, or a model and a machine; several of them, and the values of "
                "-s, have commas between them and no spaces"
            )


def _dram_of(described: Any) -> Dram:
    """Return the DRAM of a machine or a memory, or the one that is described."""
    from pimloom.arch.dram import Dram

    dram: Dram = described if isinstance(described, Dram) else described.dram
    return dram


def _memory(dram: Dram) -> str:
    capacity_GiB = dram.channels * dram.channel_capacity_B / 2**30
    return f"{dram.channels} channels x {dram.banks} banks, {capacity_GiB:.4g} GiB in rows of {dram.row_B} B"


# --- words in, words out ------------------------------------------------------------------------------------


def _range(option: str, text: str) -> tuple[int, int]:
    from pimloom.arch.tree import InputError

    numbers = re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", text)
    if not numbers:
        raise InputError(f"{option} {text}: should be the first pass and the one to stop before, such as 0:2")
    return int(numbers[1]), int(numbers[2])


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _print_points(swept: Swept) -> None:
    """Print the first rows of a sweep's only grid; of several grids a table would show what none of them asks."""
    from rich.console import Console

    from pimloom.reports.tables import MOST_POINTS, print_points

    grid, *others = swept.plan.request.grids
    if others:
        return
    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    print_points(swept.rows, [axis.keys[0] for axis in grid.axes], console)
    if len(swept.rows) > MOST_POINTS:
        typer.echo(f"... and {len(swept.rows) - MOST_POINTS} more points in the table\n")


def _tally(tally: Tally) -> str:
    return f"{tally.run} run, {tally.reused} reused, {tally.failed} failed"


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))


def _print_names(heading: str, names: dict[str, str], indented: bool) -> None:
    if indented:
        typer.echo(f"{heading}:")
    width = max(map(len, names))
    for name, text in sorted(names.items()):
        typer.echo(f"{'  ' * indented}{name:<{width}}  {text}".rstrip())


def _check_folder(folder: Path) -> None:
    """Raise InputError where no folder can be made or written, now and not after the simulation."""
    from pimloom.arch.tree import InputError, shown

    for place in (folder, *folder.absolute().parents):
        try:
            exists = place.exists()
        except OSError as error:
            raise InputError(f"{shown(str(folder))}: {error.strerror}") from None
        if exists:
            if not place.is_dir():
                raise InputError(f"{place}: is a file, not a folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise InputError(f"{place}: this folder cannot be written")
            return


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- waiting ------------------------------------------------------------------------------------------------


@contextmanager
def _progress(title: str, quiet: bool = False) -> Iterator[Tell | None]:
    """Give what takes the progress; on a terminal a bar shows it and the time left, if it takes long."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # Titles hold names from outside, which may look like markup.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=None)
    begin = time.monotonic()

    def tell(done: int, total: int, now: str = title) -> None:
        bar.update(task, completed=done, total=total, description=now)
        if not bar.live.is_started and time.monotonic() - begin > PATIENCE_s:
            bar.start()

    try:
        yield tell
    finally:
        bar.stop()


@contextmanager
def _busy(text: str) -> Iterator[None]:
    """Show on a terminal that something is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)):
        yield


def _announce_compilation(module: str = "") -> None:
    """Say why the first run, or the first with a kernel, takes long."""
    from pimloom.sim.jit import is_cold

    if is_cold(module):
        typer.echo("compiling kernels (first run only, about 20 s)", err=True)

"""Runs points in processes of their own, each with single-threaded kernels, and says what became of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from types import ModuleType
from typing import Literal

from pimloom.arch.document import InputError
from pimloom.run import run
from pimloom.sim.source import source_hash
from pimloom.sweeps.plan import Recipe, Resolver
from pimloom.sweeps.store import Store

Status = Literal["run", "failed", "reused"]
"""reused: another process had put its result into the same store by then."""
QUEUED = 2
"""Points handed to every worker: one at work and the next one."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Tell the libraries below NumPy that the processes are the parallelism."""
DIED = "the process that ran it died, most likely killed for want of memory"


@dataclass(frozen=True)
class Job:
    """A point to run, and whether it is run again although it failed before."""

    id: str
    recipe: Recipe
    again: bool = False


@dataclass(frozen=True)
class Office:
    """What every worker knows: the files as they were read, where results go, and which code they are of."""

    resolver: Resolver
    folder: Path
    source: str


def execute(
    jobs: Sequence[Job], office: Office, workers: int, alone_first: bool
) -> Generator[tuple[Job, Status]]:
    """Run jobs and yield each with what became of it, in the order of finishing.

    alone_first: the first job is done before the others start, so that kernels are compiled once
    When a process dies, the jobs that were under way are run again one at a time; one whose process dies then, too,
    has failed. An interrupt ends the processes at once. Raises OSError if results cannot be written.
    """
    todo, suspects = deque(jobs), deque[Job]()
    if alone_first and todo:
        suspects.append(todo.popleft())
    while todo or suspects:
        alone = bool(suspects)
        batch = deque([suspects.popleft()]) if alone else todo
        under_way: dict[Future[Status], Job] = {}
        with _pool(office, 1 if alone else min(workers, len(batch))) as pool:
            try:
                while batch or under_way:
                    while batch and len(under_way) < QUEUED * workers:
                        with _without_main():
                            under_way[pool.submit(_work, batch[0])] = batch[0]
                        batch.popleft()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        status = future.result()
                        yield under_way.pop(future), status
            except BrokenProcessPool:
                if alone:
                    (job,) = (*under_way.values(), *batch)
                    Store(office.folder).put_failure(job.id, DIED, "")
                    yield job, "failed"
                suspects.extend(() if alone else under_way.values())


@contextmanager
def _pool(office: Office, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give an executor whose processes end at once if the block is left by an exception."""
    before = set(active_children())
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        # Spawned, not forked: the parent has threads of its own, such as the progress bar's.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (office,))
        try:
            with _without_main():
                ready = pool.submit(_is_ready)
            try:
                is_ready = ready.result()
            except BrokenProcessPool as error:
                raise RuntimeError("processes for the sweep cannot start") from error
            if not is_ready:
                raise RuntimeError("the package's source has changed since the sweep began; start it again")
            yield pool
        except BaseException:
            for process in set(active_children()) - before:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a process that starts now not import the user's script: it needs nothing of it, and would run it again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    # The process inherits it: an interrupt while it starts is the parent's alone.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.modules["__main__"] = main


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_office: Office
_is_current: bool
"""This worker's; set by `_begin`."""


def _begin(office: Office) -> None:
    """Make this process a worker: an interrupt is for its parent to handle, and without parent it ends.

    All code that a run takes is loaded before the source is compared with the plan's: an edit after that changes
    neither what is run nor what it is called.
    """
    import pimloom.reports.result
    import pimloom.sim.engine
    import pimloom.sim.record  # noqa: F401

    global _office, _is_current  # noqa: PLW0603
    _office, _is_current = office, source_hash() == office.source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _is_ready() -> bool:
    """Tell whether this worker runs the code of the plan; that it answers shows that workers can start."""
    return _is_current


def _work(job: Job) -> Status:
    """Run a point and put what came of it into the store."""
    if not _is_current:
        raise RuntimeError("the package's source has changed since the sweep began; start it again")
    store = Store(_office.folder)
    found = store.read(job.id)
    if found and (found.summary is not None or not job.again):
        return "reused" if found.summary is not None else "failed"
    try:
        result = run(_office.resolver.setup(job.recipe))
        store.put(job.id, result.write_brief)
    except OSError:
        raise
    except InputError as error:
        store.put_failure(job.id, " ".join(str(error).split()), "")
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        store.put_failure(job.id, text, traceback.format_exc())
    else:
        return "run"
    return "failed"

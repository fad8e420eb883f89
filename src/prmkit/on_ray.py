"""Runs a worker on a Ray cluster: the same batches, the same output, many machines.

Ray Data hands the numbers of the batches to a pool of actors. An actor reads its batch, computes,
and writes the result as a file of the run folder before it says a word (`prmkit.engines.Batches`).
So nothing is lost with a node: Ray gives the batches that died with it to others, and a batch that
was finished is found. A driver that is started again goes on with the batches that are open.

This is the only file that imports Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import signal
import socket
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prmkit.engines import Batches, EngineSettings, MakeWorker, Tables, Worker, plan_batches
from prmkit.errors import MissingDependency, PrmkitError, WorkerError
from prmkit.records import Record

try:
    import ray
    import ray.data
except ImportError as error:
    raise MissingDependency("ray", "ray", "the engine ray") from error

logger = logging.getLogger(__name__)

TRIES = 5
"""How many workers may die over one batch before the run ends."""

_BLOCKS = 10_000
"""Tasks at most; with more batches than these, a task has several of them."""


def run_on_ray(
    source: Iterable[Record] | Tables,
    make: MakeWorker,
    folder: Path,
    settings: EngineSettings,
    *,
    batch_size: int,
    about: Mapping[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Record]:
    """Give records to a worker on Ray, batch by batch.

    Args:
        source: records, or tables of them.
        make: starts a worker, once in each actor; is pickled.
        folder: of the batches alone; made where absent, seen by all machines. It stays.
        settings: see `EngineSettings`.
        batch_size: records of a batch; see `EngineSettings.batch`.
        about: what the results depend on besides the records; as JSON.
        on_progress: told how many records are done, of how many.

    Yields:
        What became of the records, in their order: the same as
        ``worker(batch)`` in this process for one batch after the other.

    Raises:
        PrmkitError: what a worker raised, as it was.
        WorkerError: if a worker failed otherwise, died over the same batch again and again, or
            the cluster cannot be reached.
        RunFolderError: if the folder has batches of something else, or other machines do not see
            it.
    """
    batches = plan_batches(source, folder.resolve(), batch_size, about)
    todo = batches.open_ones()
    _forget_tries(batches)
    done = batches.n_records - sum(_size(batches, number) for number in todo)
    if on_progress is not None and done:
        on_progress(done, batches.n_records)
    if todo:
        with _connected(settings.address), _quiet():
            _warn_of_size(settings)
            for number in _finished(batches, todo, make, settings):
                done += _size(batches, number)
                if on_progress is not None:
                    on_progress(done, batches.n_records)
    yield from batches.results()


def _size(batches: Batches, number: int) -> int:
    begin, end = batches.span(number)
    return end - begin


def _finished(
    batches: Batches, todo: Sequence[int], make: MakeWorker, settings: EngineSettings
) -> Iterator[int]:
    """The numbers of batches as they are finished."""
    pickled: Callable[[MakeWorker], bytes] = ray.cloudpickle.dumps
    dataset = ray.data.from_items(
        [{"batch": number} for number in todo], override_num_blocks=min(len(todo), _BLOCKS)
    ).map_batches(
        _Actor,
        fn_constructor_args=(batches.folder, pickled(make), settings.gpus_per_actor == 0),
        batch_size=1,
        batch_format="numpy",
        # One task at a time: a second one would wait for its actor while others idle.
        compute=ray.data.ActorPoolStrategy(
            size=min(settings.actors, len(todo)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=settings.cpus_per_actor,
        num_gpus=settings.gpus_per_actor,
    )
    rows: Any = iter(dataset.iter_rows())
    # Closing them ends the tasks that run.
    with contextlib.closing(rows):
        try:
            for row in rows:
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield int(row["batch"])
        except ray.exceptions.RayError as error:
            raise WorkerError(
                f"Ray ended the run: {str(error).strip().splitlines()[-1]}. What is finished is "
                "kept; give the same command again to go on"
            ) from error


class _Actor:
    """A worker in a process of Ray: batch numbers to what became of them.

    Errors are told as values: raised ones, Ray would wrap, log and, of some kinds, try again.

    Args:
        folder: of the batches.
        make: starts the worker; pickled, since an actor that cannot be built is tried for ever.
        on_cpus: no GPU was given to it: it must not find those that others were given.
    """

    def __init__(self, folder: Path, make: bytes, on_cpus: bool):
        self._folder, self._make = folder, make
        if on_cpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._batches: Batches | None = None
        self._worker: Worker | None = None

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        number = int(rows["batch"][0])
        told = b""
        try:
            self._compute(number)
        except Exception as error:
            told = _packed(error, self._batches, number)
        return {"batch": [number], "error": [told]}

    def _compute(self, number: int) -> None:
        if self._batches is None:
            self._batches = Batches(self._folder)
        batches = self._batches
        if batches.is_done(number):
            return
        with _tried(batches, number):
            # Within the try: what dies while it loads a model dies over its first batch.
            if self._worker is None:
                make: MakeWorker = pickle.loads(self._make)
                self._worker = make()
            batches.finish(number, self._worker(batches.read(number)))


@contextlib.contextmanager
def _tried(batches: Batches, number: int) -> Iterator[None]:
    """Note that a batch is begun, so that it is known if nobody lives to end it.

    Raises:
        WorkerError: if that happened too often.
    """
    folder = batches.folder / "tries"
    folder.mkdir(exist_ok=True)
    died = len(list(folder.glob(f"{number}-*")))
    if died >= TRIES:
        begin, end = batches.span(number)
        raise WorkerError(
            f"{died} workers in turn died over the records {begin + 1} to {end}, such as for want "
            "of memory. Give a smaller batch_size, fewer actors or more memory; what is finished "
            "is kept"
        )
    mark = folder / f"{number}-{uuid.uuid4().hex}"
    mark.touch()
    yield
    for file in folder.glob(f"{number}-*"):
        file.unlink(missing_ok=True)


def _forget_tries(batches: Batches) -> None:
    shutil.rmtree(batches.folder / "tries", ignore_errors=True)


def _packed(error: Exception, batches: Batches | None, number: int) -> bytes:
    """An error for the way to the driver."""
    if isinstance(error, PrmkitError | OSError):
        with contextlib.suppress(Exception):
            packed = pickle.dumps(error)
            pickle.loads(packed)
            return packed
    where = traceback.extract_tb(error.__traceback__)[-1]
    begin, end = batches.span(number) if batches is not None else (0, 0)
    told = WorkerError(
        f"a worker failed on the records {begin + 1} to {end}: {type(error).__name__}: {error} "
        f"({where.filename}:{where.lineno})"
    )
    told.add_note("".join(traceback.format_exception(error)))
    return pickle.dumps(told)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Ray while a block runs: one that is there already, a cluster, or one of our own."""
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise WorkerError(
                f"this process is connected to the Ray cluster at {here} already, and the address "
                f"is {address!r}; call ray.shutdown() first, or leave the address out"
            )
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_kept_signals())
        _knock(address)
        try:
            with _mute():
                # "local" starts a cluster of our own even where one runs on this machine.
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if address is None else None,
                )
        except (ray.exceptions.RayError, OSError, ImportError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"there is no way to the Ray cluster at {address or 'this machine'}: {error}"
            ) from error
        stack.callback(ray.shutdown)
        yield


def _knock(address: str | None) -> None:
    """See that somebody is at an address: Ray would try for minutes, and then end the process."""
    if address is None or ":" not in address:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"nobody answers at {address!r} ({error}); give the HOST:PORT that `ray start --head` "
            "told, or ray://HOST:10001 of a cluster with a Ray client server"
        ) from None


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Put the handler of SIGTERM back, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Elsewhere than in the main thread, Ray leaves it alone, and nobody may set it.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    """Keep what Ray's C++ part has to say off standard error, now and later.

    Its level of logging is read once, from the environment, and the change of it is told at once.
    What goes wrong comes as an exception too.
    """
    with contextlib.ExitStack() as stack:
        if "RAY_BACKEND_LOG_LEVEL" not in os.environ:
            os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
            stack.callback(os.environ.pop, "RAY_BACKEND_LOG_LEVEL")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        there = os.dup(2)
        stack.callback(os.close, there)
        os.dup2(nowhere, 2)
        stack.callback(os.dup2, there, 2)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its bars and words on the console; its log files stay."""
    log = logging.getLogger("ray.data")
    consoles = [h for h in log.handlers if isinstance(h, logging.StreamHandler)]
    with warnings.catch_warnings():
        # Ray warns of its own default settings.
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A batch of long rollouts may take any time.
    context.execution_no_progress_timeout_s = -1
    for handler in consoles:
        log.removeHandler(handler)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        for handler in consoles:
            log.addHandler(handler)


def _warn_of_size(settings: EngineSettings) -> None:
    """Say so if no machine could hold an actor now: Ray would wait without a word."""
    need = {"CPU": settings.cpus_per_actor, "GPU": settings.gpus_per_actor}
    listed: Callable[[], list[dict[str, Any]]] = ray.nodes
    nodes = [node["Resources"] for node in listed() if node["Alive"]]
    if not any(all(node.get(k, 0) >= v for k, v in need.items()) for node in nodes):
        told = "; ".join(
            f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes
        )
        message = (
            f"no machine of the cluster has {settings.cpus_per_actor:g} cores and "
            f"{settings.gpus_per_actor:g} GPUs for an actor (there: {told})"
        )
        if settings.address is None:
            raise WorkerError(f"{message}; give smaller --cpus-per-actor and --gpus-per-actor")
        logger.warning("%s; waiting for one to join", message)

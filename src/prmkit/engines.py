"""Where the work is done, and the batches that it is done in.

A worker turns one batch of records into records. It is the same worker whoever calls it: this
process, or an actor on another machine (`prmkit.on_ray`). Batches are fixed before any work: batch
k is the records from k·B on, of any source; so what is computed together, and with it every last
digit, depends on neither the engine nor the order in which batches are finished.

A folder holds the batches of a run and what became of them: a finished batch is a file, whole or
absent. What is there already is never computed again.

    folder/plan.json                 what the batches are of
    folder/input/00000.parquet       the records, where their source has to be read in one go
    folder/done/000000/000000000.parquet
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import ValidationError

from prmkit.errors import FormatError, InvalidSetting, RunFolderError
from prmkit.files import atomic_binary, whole_folder, write_json
from prmkit.formats.base import ReadSettings, Row
from prmkit.formats.files import FORMATS, said
from prmkit.records import Record
from prmkit.settings import at_least

Engine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Where the work is done.

    Attributes:
        engine: local (this process) or ray (processes here or on many machines, which hold the
            model; the output is the same).
        address: of ray: a cluster that runs, as HOST:PORT, ray://HOST:PORT or auto; by default
            this machine alone.
        actors: of ray: processes that hold the model.
        gpus_per_actor: of ray: GPUs of each; a part of one is fine, and with 0 it sees none.
        cpus_per_actor: of ray: cores that are kept for each.
        batch_size: of ray: records that an actor takes at once, and that a killed one loses; by
            default as many as are computed together.
    """

    engine: Engine = "local"
    address: str | None = None
    actors: int = 1
    gpus_per_actor: float = 0.0
    cpus_per_actor: float = 1.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        at_least(1, actors=self.actors)
        at_least(0, gpus_per_actor=self.gpus_per_actor, cpus_per_actor=self.cpus_per_actor)
        if self.batch_size is not None:
            at_least(1, batch_size=self.batch_size)
        if self.gpus_per_actor > 1 and self.gpus_per_actor != int(self.gpus_per_actor):
            raise InvalidSetting(
                f"gpus_per_actor is {self.gpus_per_actor!r}; above 1 it must be a whole number"
            )
        if self.engine == "local":
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    raise InvalidSetting(
                        f"{field.name} has no meaning for the engine local; add --engine ray"
                    )

    def batch(self, together: int, *, whole: bool = False) -> int:
        """Records of one batch.

        Args:
            together: how many are computed together in this process.
            whole: whether only whole multiples of these give the same output, to the bit.

        Raises:
            InvalidSetting: if it is to be a multiple, and is none.
        """
        size = self.batch_size or together
        if whole and size % together:
            raise InvalidSetting(
                f"batch_size is {size}; {together} records are computed together, so give a "
                f"multiple of {together}: with others, scores would differ in their last digits"
            )
        return size


class Worker(Protocol):
    """Turns records into records, one batch at a time.

    What it gives for a batch must depend on that batch alone.
    """

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        """The records that a batch becomes, in order; as many as it likes."""


MakeWorker = Callable[[], Worker]
"""Starts a worker, such as by loading its model; can be pickled."""


class Tables(NamedTuple):
    """Files of records for which `is_table` holds: workers read their parts where they are."""

    paths: tuple[Path, ...]


_PLAN = "plan.json"
_BATCHES_A_FILE = 64
_ROWS_A_GROUP = 8192


class Batches:
    """The batches of a run, in a folder; to be opened by any process that sees it.

    Args:
        folder: made by `plan_batches`.

    Raises:
        RunFolderError: if there is no plan in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            plan = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{folder / _PLAN} is not there. On several machines, the run folder and the files "
                "that are read must be on storage that all of them share, under the same path"
            ) from None
        except ValueError as error:
            raise RunFolderError(
                f"{folder / _PLAN} is no JSON ({error}); remove {folder}"
            ) from None
        self.about: dict[str, Any] = plan["about"]
        self.n_records: int = plan["records"]
        self.size: int = plan["batch_size"]
        self._files: list[dict[str, Any]] | None = plan["files"]
        self._ends: list[int] = []
        for file in self._files or ():
            self._ends.append((self._ends[-1] if self._ends else 0) + file["rows"])

    def __len__(self) -> int:
        return -(-self.n_records // self.size)

    def span(self, number: int) -> tuple[int, int]:
        """The first record of a batch, and the one after its last; from 0."""
        return number * self.size, min((number + 1) * self.size, self.n_records)

    def read(self, number: int) -> list[Record]:
        """The records of a batch.

        Raises:
            FormatError: with file and row.
        """
        begin, end = self.span(number)
        if self._files is None:
            path = _input_file(self.folder, number // _BATCHES_A_FILE)
            group = number % _BATCHES_A_FILE
            return [Record.model_validate_json(text) for text in _texts(path, group)]
        records: list[Record] = []
        at = bisect_right(self._ends, begin)
        while begin < end:
            first = self._ends[at - 1] if at else 0
            stop = min(end, self._ends[at])
            records += _rows(Path(self._files[at]["path"]), begin - first, stop - first)
            begin, at = stop, at + 1
        return records

    def _file(self, number: int) -> Path:
        return self.folder / "done" / f"{number // 1000:06d}" / f"{number:09d}.parquet"

    def is_done(self, number: int) -> bool:
        """Whether a batch is finished."""
        return self._file(number).is_file()

    def open_ones(self) -> list[int]:
        """The batches that are not finished."""
        done = {int(file.stem) for file in (self.folder / "done").glob("*/*.parquet")}
        return [number for number in range(len(self)) if number not in done]

    def finish(self, number: int, records: Sequence[Record]) -> None:
        """Keep what became of a batch; on disk when this returns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {"record": pa.array([r.model_dump_json() for r in records], pa.large_string())}
        )
        with atomic_binary(self._file(number)) as file:
            pq.write_table(table, file, compression="zstd")

    def results(self) -> Iterator[Record]:
        """What became of all batches, in their order.

        Raises:
            RunFolderError: if one is not finished.
        """
        for number in range(len(self)):
            if not self.is_done(number):
                begin, end = self.span(number)
                raise RunFolderError(
                    f"the records {begin + 1} to {end} are not finished in {self.folder}. On "
                    "several machines, the run folder must be on storage that all of them share, "
                    "under the same path"
                )
            for text in _texts(self._file(number)):
                yield Record.model_validate_json(text)


def plan_batches(
    source: Iterable[Record] | Tables, folder: Path, batch_size: int, about: Mapping[str, Any]
) -> Batches:
    """Lay down the batches of a run, or find those that a killed run has left.

    Args:
        source: records, which are copied into the folder as they come; or tables.
        folder: of the batches alone; made where absent.
        batch_size: records of one.
        about: what the results depend on besides; as JSON.

    Raises:
        RunFolderError: if the folder has batches of something else.
    """
    plan: dict[str, Any] = {
        "about": json.loads(json.dumps(about, default=str)),
        "batch_size": batch_size,
    }
    known = (folder / _PLAN).is_file()
    if isinstance(source, Tables):
        files = [_described(path) for path in source.paths]
        plan |= {"files": files, "digest": None, "records": sum(f["rows"] for f in files)}
    else:
        # What is there is compared and not written again.
        digest, count = _spool(iter(source), None if known else folder, batch_size)
        plan |= {"files": None, "digest": digest, "records": count}
    if not known:
        write_json(folder / _PLAN, plan)
        return Batches(folder)
    there = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    if there != plan:
        raise RunFolderError(
            f"{folder} holds a run that was interrupted, of other settings or input (different: "
            f"{', '.join(_different(there, plan))}). Use the same to go on with it, or remove "
            "that folder"
        )
    return Batches(folder)


def _different(there: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """In what two plans differ, in words."""
    old, new = there.get("about") or {}, plan["about"]
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if there.get("batch_size") != plan["batch_size"]:
        names.append(f"batch_size, {there.get('batch_size')} there, {plan['batch_size']} now")
    if any(there.get(key) != plan[key] for key in ("files", "digest", "records")):
        names.append("the records")
    return names


def is_table(path: Path) -> bool:
    """Whether workers can read any part of a file without the rest: prmkit's Parquet.

    Its groups of rows must be small: to read one of its rows, a group is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = [
                file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
            ]
            names = set(file.schema_arrow.names)
    except (pa.ArrowException, OSError):
        return False
    return {"version", "trajectory"} <= names and max(groups, default=0) <= _ROWS_A_GROUP


def _described(path: Path) -> dict[str, Any]:
    """A table of records as a plan has it: a file that was changed is another one."""
    import pyarrow.parquet as pq

    about = path.stat()
    rows: int = pq.read_metadata(path).num_rows
    return {
        "path": str(path.resolve()),
        "rows": rows,
        "bytes": about.st_size,
        "changed": about.st_mtime_ns,
    }


def _spool(records: Iterator[Record], folder: Path | None, size: int) -> tuple[str, int]:
    """Copy records into a folder, one group of rows a batch; their digest and number."""
    if folder is None:
        return _copied(records, None, size)
    with whole_folder(folder / "input") as place:
        return _copied(records, place, size)


def _copied(records: Iterator[Record], place: Path | None, size: int) -> tuple[str, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("record", pa.large_string())])
    digest, count, number = hashlib.sha256(), 0, 0
    writer: pq.ParquetWriter | None = None
    try:
        while batch := [r.model_dump_json() for r in islice(records, size)]:
            for text in batch:
                digest.update(text.encode() + b"\n")
            count += len(batch)
            if place is not None:
                if number % _BATCHES_A_FILE == 0:
                    if writer is not None:
                        writer.close()
                    path = _input_file(place.parent, number // _BATCHES_A_FILE, place.name)
                    writer = pq.ParquetWriter(path, schema, compression="zstd")
                assert writer is not None
                writer.write_table(pa.table([batch], schema=schema), row_group_size=len(batch))
            number += 1
    finally:
        if writer is not None:
            writer.close()
    return digest.hexdigest(), count


def _input_file(folder: Path, number: int, name: str = "input") -> Path:
    return folder / name / f"{number:05d}.parquet"


def _texts(path: Path, group: int | None = None) -> list[str]:
    """The records of a file of ours, as JSON; of one group of rows, or all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read() if group is None else file.read_row_group(group)
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); remove it") from None
    texts: list[str] = table.column("record").to_pylist()
    return texts


def _rows(path: Path, begin: int, end: int) -> Iterator[Record]:
    """The records of some rows of a table of prmkit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    read, first = FORMATS["prmkit"].read, 0
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                if first < end and begin < first + n:
                    part = file.read_row_group(group)
                    low, high = max(begin - first, 0), min(end - first, n)
                    for at, data in enumerate(part.slice(low, high - low).to_pylist(), low + 1):
                        number = first + at
                        try:
                            yield from read(Row(path, number, data), ReadSettings())
                        except (FormatError, ValidationError) as error:
                            raise FormatError(said(error), path, number) from None
                first += n
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"the Parquet file is damaged or gone: {error}", path) from None

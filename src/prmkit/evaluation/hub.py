"""Benchmarks' data from the Hugging Face hub, as the files that their readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError, MissingDependency
from prmkit.evaluation.cases import Benchmark
from prmkit.files import atomic_text


def fetch(benchmark: Benchmark, folder: Path, revision: str | None = None) -> Path:
    """Download a benchmark's data once into a folder, one file of rows per part.

    Args:
        benchmark: which.
        folder: where they are put; what is there already is not fetched again.
        revision: of the data set; by default the benchmark's own, or else the newest, whose
            commit is noted in ``revision.json``.

    Raises:
        FormatError: if the benchmark has no data set on the hub, or it cannot be reached.
        MissingDependency: if datasets is not installed.
    """
    note = folder / "revision.json"
    if note.is_file():
        return folder
    if benchmark.hub is None:
        raise FormatError(
            f"{benchmark.title} has no data set on the Hugging Face hub: give its files with --data"
        )
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError:
        purpose = "fetching the data from the Hugging Face hub (or give their files with --data)"
        raise MissingDependency("datasets", "data", purpose) from None
    try:
        wanted = revision or benchmark.revision or HfApi().dataset_info(benchmark.hub).sha
        parts = _parts(datasets, benchmark.hub, wanted)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError) as error:
        raise FormatError(
            f"the data set {benchmark.hub!r} cannot be fetched ({type(error).__name__}: {error}); "
            "without a network give its files with --data"
        ) from error
    for name, rows in parts.items():
        with atomic_text(folder / f"{name}.jsonl") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    with atomic_text(note) as out:
        json.dump({"hub": benchmark.hub, "revision": wanted}, out)
    return folder


def fetched_revision(folder: Path) -> str | None:
    """The commit of the data that were fetched into a folder."""
    note = folder / "revision.json"
    if not note.is_file():
        return None
    revision = json.loads(note.read_text(encoding="utf-8")).get("revision")
    return revision if isinstance(revision, str) else None


def _parts(datasets: Any, hub: str, revision: str | None) -> dict[str, Any]:
    """Rows by the name of their part: the split, or the configuration where there are several."""
    parts: dict[str, Any] = {}
    names = datasets.get_dataset_config_names(hub, revision=revision)
    for config in names:
        splits = datasets.load_dataset(hub, config, revision=revision)
        for split, rows in splits.items():
            several = f"{config}-{split}" if len(splits) > 1 else config
            parts[split if len(names) == 1 else several] = rows
    return parts

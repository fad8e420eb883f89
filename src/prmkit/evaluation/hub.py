"""Benchmarks' data from their public homes, as the files that their readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError, MissingDependency
from prmkit.evaluation import github
from prmkit.evaluation.cases import Benchmark
from prmkit.files import atomic_text

NOTE = "FETCHED"
"""The file that says from where, and at which commit: the last to be written. It has no ending
of a data file, since readers take all data files of a folder."""


def fetch(benchmark: Benchmark, folder: Path, revision: str | None = None) -> Path:
    """Download a benchmark's data once into a folder.

    From the Hugging Face hub they come as one file of rows per part; from GitHub as they are.

    Args:
        benchmark: which.
        folder: where they are put; what is there already is not fetched again.
        revision: the commit; by default the benchmark's own. It is noted beside the data.

    Raises:
        FormatError: if the benchmark has no public data, they cannot be reached, or they are not
            what was published.
        InvalidSetting: if `revision` is no commit of a repository on GitHub.
        MissingDependency: if datasets is not installed, or what talks to GitHub.
    """
    if (folder / NOTE).is_file():
        return folder
    if benchmark.hub is not None:
        wanted = _from_hub(benchmark.hub, folder, revision or benchmark.revision)
    elif benchmark.git is not None and benchmark.revision is not None:
        wanted = revision or benchmark.revision
        # The digests are of the benchmark's own revision.
        is_pinned = wanted == benchmark.revision
        files = benchmark.files if is_pinned else [f._replace(sha256=None) for f in benchmark.files]
        github.download(benchmark.git, wanted, files, folder)
    else:
        raise FormatError(f"{benchmark.title} has no public data: give its files with --data")
    with atomic_text(folder / NOTE) as out:
        json.dump({"hub": benchmark.hub, "git": benchmark.git, "revision": wanted}, out)
    return folder


def fetched_revision(folder: Path) -> str | None:
    """The commit of the data that were fetched into a folder."""
    note = folder / NOTE
    if not note.is_file():
        return None
    revision = json.loads(note.read_text(encoding="utf-8")).get("revision")
    return revision if isinstance(revision, str) else None


def _from_hub(hub: str, folder: Path, revision: str | None) -> str | None:
    """Write the parts of a data set; the revision, the newest's where none is wanted."""
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError:
        purpose = "fetching the data from the Hugging Face hub (or give their files with --data)"
        raise MissingDependency("datasets", "data", purpose) from None
    try:
        wanted = revision or HfApi().dataset_info(hub).sha
        parts = _parts(datasets, hub, wanted)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError) as error:
        raise FormatError(
            f"the data set {hub!r} cannot be fetched ({type(error).__name__}: {error}); "
            "without a network give its files with --data"
        ) from error
    for name, rows in parts.items():
        with atomic_text(folder / f"{name}.jsonl") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return wanted


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

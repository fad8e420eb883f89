"""Files to records and back, by the name of a format or by what the file holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from prmkit.errors import AmbiguousFormat, FormatError, LabelPolicyNeeded, UnknownName
from prmkit.formats import (
    bon_pool,
    gsm8k,
    math_shepherd,
    openai_chat,
    openai_tools,
    openrlhf,
    prm800k,
    prmbench,
    prmkit,
    processbench,
    rlhflow,
    sample_pools,
    stepwise,
)
from prmkit.formats.base import Format, ReadSettings, Row
from prmkit.formats.containers import read_rows, write_rows
from prmkit.formats.labels import AfterError, LabelPolicy, Neutral
from prmkit.records import Record

FORMATS: dict[str, Format] = {
    found.name: found
    for found in (
        prmkit.FORMAT,
        prm800k.FORMAT,
        math_shepherd.FORMAT,
        rlhflow.FORMAT,
        stepwise.FORMAT,
        openrlhf.FORMAT,
        processbench.FORMAT,
        prmbench.FORMAT,
        gsm8k.QUESTIONS,
        gsm8k.SOLUTIONS,
        openai_chat.FORMAT,
        openai_tools.FORMAT,
        bon_pool.FORMAT,
        *sample_pools.FORMATS,
    )
}
"""Every format, by name."""

_LOOKED_AT = 20


class Skipped(NamedTuple):
    """A row that could not be used.

    Attributes:
        line: its number in the file.
        why: what is wrong with it.
    """

    line: int | None
    why: str


def named(name: str) -> Format:
    """A format by name.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name not in FORMATS:
        raise UnknownName("format", name, FORMATS)
    return FORMATS[name]


def recognise(path: Path | str) -> Format:
    """The one format that the first rows of a file fit.

    Raises:
        AmbiguousFormat: if several fit.
        FormatError: if none fits, or there is no row.
    """
    path = Path(path)
    rows = []
    for row in itertools.islice(read_rows(path), _LOOKED_AT):
        if isinstance(row, Row):
            rows.append(row)
        elif not rows:
            raise row
    if not rows:
        raise FormatError("the file holds no row, so its format cannot be told", path)
    fits = [f for f in FORMATS.values() if all(f.matches(row.data) for row in rows)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = " and ".join(f.name for f in fits)
        raise AmbiguousFormat(f"the rows fit {names}; name one of them with --from", path)
    best = next((f.name for f in FORMATS.values() if f.matches(rows[0].data)), None)
    if best:
        raise FormatError(
            f"the first row is of the format {best}, but not all of the first {len(rows)} are; "
            f"--from {best} reads it and names the line",
            path,
        )
    keys = ", ".join(repr(key) for key in list(rows[0].data)[:12])
    raise FormatError(
        f"no known format has rows with the keys {keys}. Known: {', '.join(FORMATS)}", path
    )


def read_records(
    path: Path | str,
    format: str | None = None,
    *,
    view: str | None = None,
    split: str | None = None,
    on_bad: Callable[[Skipped], None] | None = None,
) -> Iterator[Record]:
    """The records of a file, one at a time; gzip is seen by its content.

    Args:
        path: JSON lines, a JSON list, CSV or Parquet.
        format: its name; by default what the first rows say.
        view: of PRM800K: ``path`` or ``completions``.
        split: of chat messages: a splitter's name.
        on_bad: told of each row that cannot be read; by default the first one is an error.

    Raises:
        FormatError: with file and line.
    """
    for _, record in _numbered(path, format, ReadSettings(view, split), on_bad):
        yield record


def numbered_records(
    path: Path | str,
    format: str | None = None,
    *,
    on_bad: Callable[[Skipped], None] | None = None,
) -> Iterator[tuple[int, Record]]:
    """Like `read_records`, each with the number of its row."""
    yield from _numbered(path, format, ReadSettings(), on_bad)


def _numbered(
    path: Path | str,
    format: str | None,
    settings: ReadSettings,
    on_bad: Callable[[Skipped], None] | None,
) -> Iterator[tuple[int, Record]]:
    source = named(format) if format else recognise(path)
    if settings.view is not None and settings.view not in source.views:
        raise FormatError(
            f"the format {source.name} has no view {settings.view!r}; "
            + (f"it has {', '.join(source.views)}" if source.views else "it has none"),
            path,
        )
    if settings.split is not None and not source.splits:
        raise FormatError(f"the format {source.name} says itself what its steps are", path)
    for row in read_rows(path):
        try:
            if isinstance(row, FormatError):
                raise row
            records = source.read(row, settings)
        except (FormatError, ValidationError) as error:
            number = row.line if isinstance(row, FormatError) else row.number
            why = said(error)
            if on_bad is None:
                raise FormatError(why, path, number) from None
            on_bad(Skipped(number, why))
            continue
        for record in records:
            yield (row.number if isinstance(row, Row) else 0), record


def said(error: FormatError | ValidationError) -> str:
    """What is wrong with a row, in words; the first of several things."""
    if isinstance(error, FormatError):
        return error.message
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}{more}"


def write_records(
    records: Iterable[Record],
    path: Path | str,
    format: str = "prmkit",
    *,
    policy: LabelPolicy | None = None,
) -> int:
    """Write records to a file that appears whole or not at all; returns how many.

    Args:
        records: any number.
        path: its name says ``.jsonl``, ``.json`` or ``.parquet``; ``.gz`` after the first two.
        format: its name.
        policy: how labels are converted where the format cannot hold them.

    Raises:
        FormatError: if a record cannot be held by the format.
        LabelPolicyNeeded: if labels need a choice that the policy does not make.
    """
    numbered = ((index, record) for index, record in enumerate(records, 1))
    return _write(numbered, path, named(format), policy or LabelPolicy(), None, None)


def _write(
    numbered: Iterable[tuple[int, Record]],
    path: Path | str,
    target: Format,
    policy: LabelPolicy,
    source: Path | None,
    on_bad: Callable[[Skipped], None] | None,
) -> int:
    if target.write is None:
        raise FormatError(f"the format {target.name} can only be read", path)
    own_table = target is prmkit.FORMAT and str(path).endswith(".parquet")
    count = 0
    with write_rows(path, prmkit.schema() if own_table else None) as put:
        for number, record in numbered:
            try:
                row = target.write(record, policy)
            except FormatError as error:
                if on_bad is None:
                    raise FormatError(error.message, source, number) from None
                on_bad(Skipped(number, error.message))
                continue
            except LabelPolicyNeeded as error:
                where = f"{source}:{number}: " if source else f"record {number}: "
                raise LabelPolicyNeeded(where + str(error)) from None
            put(prmkit.packed(row) if own_table else row)
            count += 1
    return count


@dataclass(frozen=True)
class ConvertSettings:
    """A file of one format to a file of another.

    Attributes:
        source: the file to read: JSON lines, a JSON list or Parquet, gzipped or not.
        target: the file to write; its name ends in .jsonl, .json or .parquet (.gz may follow
            the first two).
        from_: format of the source; by default what its first rows say.
        to: format of the target.
        neutral: what a human rating of 0 becomes, where ratings become right or wrong.
        after_error: what becomes of labels after the first wrong step.
        threshold: above which a soft label is right; 0 for "any rollout succeeded".
        view: of PRM800K: the chosen path, or every rated completion.
        split: of chat messages: the splitter that makes steps (blank_line, line, number,
            sentence, thought, marker:TEXT).
        skip_bad: leave out rows that cannot be converted, and list them.
    """

    source: Path
    target: Path
    _: KW_ONLY
    from_: str | None = None
    to: str = "prmkit"
    neutral: Neutral | None = None
    after_error: AfterError = "keep"
    threshold: float | None = None
    view: Literal["path", "completions"] | None = None
    split: str | None = None
    skip_bad: bool = False


class Converted(NamedTuple):
    """What a conversion did.

    Attributes:
        records: how many were written.
        from_format: of the source.
        skipped: rows that were left out.
    """

    records: int
    from_format: str
    skipped: list[Skipped]


def convert(
    settings: ConvertSettings, *, on_progress: Callable[[int], None] | None = None
) -> Converted:
    """Convert a file; the target appears whole or not at all.

    Args:
        settings: see `ConvertSettings`.
        on_progress: told of each record that is read.

    Raises:
        FormatError: with file and line.
        LabelPolicyNeeded: if labels need a choice that is not made.
    """
    target = named(settings.to)
    source = named(settings.from_) if settings.from_ else recognise(settings.source)
    skipped: list[Skipped] = []
    on_bad = skipped.append if settings.skip_bad else None
    policy = LabelPolicy(
        neutral=settings.neutral, after_error=settings.after_error, threshold=settings.threshold
    )

    def told(records: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, Record]]:
        for item in records:
            if on_progress is not None:
                on_progress(1)
            yield item

    read = _numbered(
        settings.source, source.name, ReadSettings(settings.view, settings.split), on_bad
    )
    count = _write(told(read), settings.target, target, policy, settings.source, on_bad)
    return Converted(count, source.name, skipped)

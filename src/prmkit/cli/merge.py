"""``prm merge``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from prmkit.cli.console import (
    DONE,
    INCOMPLETE,
    bars,
    figures,
    out,
    print_json,
    safe,
    say,
    tell_skipped,
)
from prmkit.errors import (
    FormatError,
    InvalidRecord,
    InvalidSetting,
    LabelPolicyNeeded,
    NothingToMeasure,
)
from prmkit.files import atomic_text, write_json
from prmkit.formats.files import Skipped, numbered_records, write_records
from prmkit.ledger import claim_folder
from prmkit.records import Record
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.evaluation.annotators import AnnotatorAgreement
    from prmkit.labelling.human import Annotation, Solution

_SHOWN_PAIRS = 20


@dataclass(frozen=True)
class MergeSettings:
    """How ratings of several annotators become one.

    Attributes:
        files: rated solutions, in any format that prm convert reads. An annotator is who the
            rows name as their labeler; where they name none, the file's name.
        out: the run folder: config.json, records.jsonl, prm800k.jsonl, agreement.json,
            metrics.json.
        rule: the rating of a step: what more than half of the votes say (majority), what all say
            (unanimous), or the lowest one (strictest).
        least: with fewer votes than this a step stays open.
        from_: format of the files; by default what the first rows of each say.
        skip_bad: leave out rows that cannot be read, and list them.
        resamples: of the bootstrap over problems, for intervals; 0 for none.
        seed: of the bootstrap.
    """

    files: tuple[Path, ...]
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/merge")
    rule: Literal["majority", "unanimous", "strictest"] = "majority"
    least: int = 1
    from_: str | None = None
    skip_bad: bool = False
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.files:
            raise InvalidSetting("give one or more files of rated solutions")
        at_least(1, least=self.least)
        at_least(0, resamples=self.resamples)
        twice = [str(f) for f, n in Counter(f.resolve() for f in self.files).items() if n > 1]
        if twice:
            raise InvalidSetting(f"{', '.join(twice)} is given twice; its votes would count once")


def merge(settings: Annotated[MergeSettings, Parameter(name="*")], *, json: bool = False) -> int:
    """Merge ratings that several annotators gave to the same steps, and tell how they agree.

    Solutions are the same where question, steps and separator are; one that an annotator left
    open is also part of a longer one that begins with it. Nothing is lost: every annotator's
    ratings stay in the records' meta, so what is merged can be merged again with more.

    Args:
        json: print the metrics as JSON.
    """
    from prmkit.evaluation.annotators import annotator_agreement
    from prmkit.labelling.human import gather, merged

    skipped: dict[Path, list[Skipped]] = {file: [] for file in settings.files}
    solutions = gather(_read(settings, skipped, quiet=json))
    if not solutions:
        raise NothingToMeasure(f"{' and '.join(map(str, settings.files))} hold no rated solution")
    records = [merged(s, rule=settings.rule, least=settings.least) for s in solutions]
    agreement = annotator_agreement(
        [s.ratings for s in solutions],
        [s.trajectory.problem.text for s in solutions],
        resamples=settings.resamples,
        seed=settings.seed,
    )
    counts = _counts(solutions, records, settings.least)
    n_skipped = sum(map(len, skipped.values()))
    told = agreement.metrics()
    metrics = {**counts, "annotators": len(told["annotators"]), "rows_skipped": n_skipped}
    claim_folder(settings.out, {k: v for k, v in asdict(settings).items() if k != "out"})
    _write(settings.out, records, told, {**metrics, "agreement": told["pooled"]})
    if json:
        rows = {str(f): [row._asdict() for row in of] for f, of in skipped.items() if of}
        print_json({**metrics, "skipped": rows, "agreement": told, "out": str(settings.out)})
    else:
        for file, of_file in skipped.items():
            tell_skipped(of_file, file)
        _show(metrics, agreement)
        say(f"records: {settings.out / 'records.jsonl'}")
    return INCOMPLETE if n_skipped or counts["solutions_left_open"] else DONE


def _names(files: Sequence[Path]) -> list[str]:
    """Of each file, the annotator of rows that name none; the whole path where names are alike."""
    stems = [file.name.split(".")[0] or file.name for file in files]
    alike = Counter(stems)
    return [
        stem if alike[stem] == 1 else str(file) for stem, file in zip(stems, files, strict=True)
    ]


def _read(
    settings: MergeSettings, skipped: dict[Path, list[Skipped]], quiet: bool
) -> list[Annotation]:
    from prmkit.labelling.human import annotated

    found: list[Annotation] = []
    with bars(quiet=quiet) as progress:
        for file, name in zip(settings.files, _names(settings.files), strict=True):
            on_bad = skipped[file].append if settings.skip_bad else None
            for number, record in numbered_records(file, settings.from_, on_bad=on_bad):
                try:
                    found += annotated(record, name)
                except (InvalidRecord, LabelPolicyNeeded) as error:
                    if on_bad is None:
                        raise FormatError(str(error), file, number) from None
                    on_bad(Skipped(number, str(error)))
                progress("read", len(found), None)
    return found


def _counts(solutions: Sequence[Solution], records: Sequence[Record], least: int) -> dict[str, int]:
    counts = Counter(
        solutions=len(solutions),
        solutions_of_several_annotators=sum(len(s.by) > 1 for s in solutions),
        solutions_left_open=0,
        steps=0,
        steps_rated=0,
        steps_with_too_few_votes=0,
        steps_undecided=0,
    )
    for solution, record in zip(solutions, records, strict=True):
        assert record.labels is not None
        values = record.labels.values
        few = [len(v) < least for v in solution.votes]
        counts["solutions_left_open"] += all(value is None for value in values)
        counts["steps"] += len(values)
        counts["steps_rated"] += sum(value is not None for value in values)
        counts["steps_with_too_few_votes"] += sum(few)
        counts["steps_undecided"] += sum(
            value is None and not f for value, f in zip(values, few, strict=True)
        )
    return dict(counts)


def _write(
    folder: Path, records: Sequence[Record], agreement: dict[str, Any], metrics: dict[str, Any]
) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(atomic_text(folder / "records.jsonl"))
        for record in records:
            file.write(record.model_dump_json() + "\n")
        # PRM800K has no word for a solution of which nothing is known.
        rated = [r for r in records if r.labels and any(v is not None for v in r.labels.values)]
        write_records(rated, folder / "prm800k.jsonl", "prm800k")
        write_json(folder / "agreement.json", agreement)
        write_json(folder / "metrics.json", metrics)


def _show(metrics: dict[str, Any], agreement: AnnotatorAgreement) -> None:
    from prmkit.evaluation.tables import MISSING, interval

    out().print(figures("prm merge", [(k.replace("_", " "), v) for k, v in metrics.items()]))
    if not agreement.pairs:
        say("no step is rated by two annotators, so there is no agreement to measure")
        return
    table = Table(
        title="agreement of annotators, with 95 % intervals",
        title_justify="left",
        title_style="bold",
    )
    for name in ("annotators", "steps", "same", "kappa", "kappa of wrong", "first error the same"):
        table.add_column(name, justify="left" if name == "annotators" else "right")
    names = ("steps/same", "steps/kappa", "steps/kappa_wrong", "first_error/same")
    by_steps = sorted(agreement.pairs.items(), key=lambda pair: -pair[1]["steps/same"].n)
    rows = [(f"{safe(a)} and {safe(b)}", row) for (a, b), row in by_steps[:_SHOWN_PAIRS]]
    for title, row in [*rows, ("all pairs", agreement.pooled)]:
        cells = [interval(row[n], 1, 3) if n in row else MISSING for n in names]
        table.add_row(title, str(row["steps/same"].n), *cells)
    out().print(table)
    for level in ("nominal", "ordinal"):
        estimate = agreement.pooled[f"steps/alpha_{level}"]
        out().print(f"Krippendorff's alpha, {level}: {interval(estimate, 1, 3)}", markup=False)
    if len(by_steps) > _SHOWN_PAIRS:
        say(f"and {len(by_steps) - _SHOWN_PAIRS} more pairs, in agreement.json")

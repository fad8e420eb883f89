"""``prm recut``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prmkit.cli.console import DONE, bars, figures, out, print_json, say
from prmkit.cli.names import model_folder
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.files import atomic_text
from prmkit.formats.files import read_records
from prmkit.records import Record
from prmkit.settings import at_least

_TOGETHER = 64


@dataclass(frozen=True)
class RecutSettings:
    """How solutions are cut into other steps.

    Attributes:
        file: solutions, in any format that prm convert reads.
        out: the file to write (.jsonl, .jsonl.gz).
        by: confidence (a step begins where a language model is unsure of the next token) or count
            (so many steps become one; labels stay).
        model: of confidence: folder of a causal language model, its id, or embedded/policy.
        share: of confidence: how many of all tokens begin a step. One threshold for all solutions,
            so that hard ones have more steps.
        at: of confidence: tokens (cut anywhere) or steps (join steps in which nothing is decided to
            the one before).
        size: of count: steps that become one.
        drop_labels: of confidence: leave out labels and scores, which are of other steps.
        from_: format of the file; by default what its first rows say.
        device: cpu or cuda; by default a GPU where there is one.
    """

    file: Path
    _: KW_ONLY
    out: Annotated[Path, Parameter(alias="-o")]
    by: Literal["confidence", "count"] = "confidence"
    model: str = "embedded/policy"
    share: float = 0.02
    at: Literal["tokens", "steps"] = "tokens"
    size: int = 2
    drop_labels: bool = False
    from_: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(1, size=self.size)
        if not 0 < self.share < 1:
            raise InvalidSetting(f"share is {self.share!r}; it must be above 0 and below 1")
        if self.by == "count" and (self.share, self.at, self.drop_labels) != (
            0.02,
            "tokens",
            False,
        ):
            raise InvalidSetting("share, at and drop_labels have no meaning by count")
        if self.by == "confidence" and self.size != 2:
            raise InvalidSetting("size has no meaning by confidence")


def recut(settings: Annotated[RecutSettings, Parameter(name="*")], *, json: bool = False) -> int:
    """Cut solutions into other steps: where a model is unsure, or several into one.

    The text stays what it is, to the character.

    Args:
        json: print the counts as JSON.
    """
    records = list(read_records(settings.file, settings.from_))
    if not records:
        raise NothingToMeasure(f"{settings.file} holds no solution")
    labelled = [r for r in records if r.labels is not None or r.scores]
    if settings.by == "confidence" and labelled and not settings.drop_labels:
        raise InvalidSetting(
            f"{len(labelled)} of {len(records)} solutions have labels or scores, which are of the "
            "steps that they have now; recut before labelling, or leave them out (--drop-labels)"
        )
    steps = after = 0
    with atomic_text(settings.out) as file:
        for record, new in zip(records, _recut(records, settings, quiet=json), strict=True):
            steps += len(record.trajectory.steps)
            after += len(new.trajectory.steps)
            file.write(new.model_dump_json() + "\n")
    told = {"solutions": len(records), "steps_before": steps, "steps_after": after}
    if json:
        print_json({**told, "out": str(settings.out)})
    else:
        out().print(figures("prm recut", list(told.items())))
        say(f"records: {settings.out}")
    return DONE


def _recut(records: list[Record], settings: RecutSettings, *, quiet: bool) -> Iterator[Record]:
    from prmkit.scorers.backends.log_probs import LogProbs
    from prmkit.training import dynamic

    if settings.by == "count":
        yield from (dynamic.joined(record, settings.size) for record in records)
        return
    model = LogProbs(model_folder(settings.model), device=settings.device)
    tokens = []
    with bars(quiet=quiet) as progress:
        for at in range(0, len(records), _TOGETHER):
            group = [r.trajectory for r in records[at : at + _TOGETHER]]
            tokens += dynamic.tokens_of(model, group)
            progress("read", len(tokens), len(records))
    threshold = dynamic.threshold_of(tokens, settings.share)
    for record, of_one in zip(records, tokens, strict=True):
        cut = dynamic.recut(record.trajectory, of_one, threshold, at=settings.at)
        yield record.replace(trajectory=cut, labels=None, scores=())

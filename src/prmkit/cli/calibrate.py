"""``prm calibrate``."""

from __future__ import annotations

import random
from dataclasses import KW_ONLY, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, bars, figures, out, print_json, say
from prmkit.cli.names import model_folder, open_scorer
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.formats.files import read_records
from prmkit.formats.labels import LabelPolicy, Neutral
from prmkit.records import Record, StepScores
from prmkit.scorers.settings import ModelSettings

if TYPE_CHECKING:
    from prmkit.scorers.base import Scorer

_BATCH = 64


@dataclass(frozen=True)
class CalibrateSettings:
    """How scores are made into probabilities.

    Attributes:
        file: solutions with labelled steps, in any format that prm convert reads.
        method: temperature, platt or isotonic.
        held_out: share of the problems whose solutions the result is measured on, not fitted.
        out: folder that the calibration is kept in; by default the model's own.
        neutral: what a human rating of 0 becomes.
        threshold: above which a soft label is right.
        from_: format of the file; by default what its first rows say.
        seed: of which problems are held out.
    """

    file: Path
    _: KW_ONLY
    method: Literal["temperature", "platt", "isotonic"] = "temperature"
    held_out: float = 0.3
    out: Path | None = None
    neutral: Neutral | None = None
    threshold: float | None = None
    from_: str | None = None
    seed: int = 0


def calibrate(
    settings: Annotated[CalibrateSettings, Parameter(name="*")],
    *,
    how: Annotated[ModelSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Fit a map from a model's scores to probabilities, and keep it beside the model.

    prm score uses it from then on, unless told --uncalibrated. Steps after the first wrong one
    are left out: whether they are right is no longer a question of theirs alone.

    Args:
        json: print what was done as JSON.
    """
    from prmkit.evaluation.calibration import calibration
    from prmkit.scorers.calibration import fit, save

    if not 0 <= settings.held_out < 1:
        raise InvalidSetting(f"held_out is {settings.held_out!r}; a share from 0 to below 1")
    how = replace(how or ModelSettings(), uncalibrated=True)
    policy = LabelPolicy(neutral=settings.neutral, threshold=settings.threshold, after_error="drop")
    records = [
        r.replace(labels=policy.apply(r.labels))
        for r in read_records(settings.file, settings.from_)
        if r.labels is not None
    ]
    if not records:
        raise NothingToMeasure(f"{settings.file} holds no labelled solution")
    scorer = open_scorer(how)
    pairs, n_unscored = _pairs(records, scorer, policy, json)
    if not pairs:
        raise NothingToMeasure(f"none of the {len(records)} labelled solutions was scored")
    random.Random(settings.seed).shuffle(pairs)
    n_held = int(len(pairs) * settings.held_out)
    held = [pair for of_one in pairs[:n_held] for pair in of_one]
    fitted = [pair for of_one in pairs[n_held:] for pair in of_one]
    calibrator = fit(
        [s for s, _ in fitted], [right for _, right in fitted], settings.method, scorer.semantics
    )
    family = getattr(scorer, "family", None)
    calibrator = calibrator.model_copy(update={"family": family.name if family else None})
    folder = settings.out or model_folder(how.model)
    folder.mkdir(parents=True, exist_ok=True)
    file = save(folder, calibrator)
    told: dict[str, float | int] = {
        "fitted on steps": len(fitted),
        "measured on steps": len(held),
        "solutions not scored": n_unscored,
    }
    if held:
        labels = [right for _, right in held]
        after = calibration([calibrator(s) for s, _ in held], labels)
        if scorer.semantics in ("correctness", "value"):
            clipped = [min(max(s, 0.0), 1.0) for s, _ in held]
            before = calibration(clipped, labels)
            told |= {
                "calibration error before": before.expected_error,
                "brier before": before.brier,
            }
        told |= {"calibration error after": after.expected_error, "brier after": after.brier}
    if json:
        print_json({**told, "file": str(file), **calibrator.model_dump(mode="json")})
    else:
        out().print(figures("prm calibrate", list(told.items())))
        say(f"calibration: {file}")
    return INCOMPLETE if n_unscored else DONE


def _pairs(
    records: list[Record], scorer: Scorer, policy: LabelPolicy, quiet: bool
) -> tuple[list[list[tuple[float, bool]]], int]:
    """Of each problem, its solutions' labelled steps: their scores, and whether they are right.

    And how many solutions were not scored.
    """
    n_unscored = 0
    pairs: dict[str, list[tuple[float, bool]]] = {}
    items = iter(records)
    done = 0
    with bars(quiet=quiet) as progress:
        while batch := list(islice(items, _BATCH)):
            for record, scored in zip(
                batch, scorer.score([r.trajectory for r in batch]), strict=True
            ):
                labels = policy.hard(record, "a calibration")
                n_unscored += not isinstance(scored, StepScores)
                if isinstance(scored, StepScores):
                    pairs.setdefault(record.trajectory.problem.id, []).extend(
                        (score, label == 1)
                        for score, label in zip(scored.values, labels, strict=True)
                        if label is not None
                    )
            done += len(batch)
            progress("score", done, len(records))
    return list(pairs.values()), n_unscored

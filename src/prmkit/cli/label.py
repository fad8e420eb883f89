"""``prm label``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, bars, figures, out, print_json, say
from prmkit.cli.names import judge, model_folder
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.files import atomic_text, write_json
from prmkit.formats.files import read_records
from prmkit.labelling.methods import MethodSettings, estimator, leaves_open
from prmkit.ledger import Ledger, claim_folder
from prmkit.policies.base import SamplingSettings
from prmkit.records import Record, Trajectory
from prmkit.settings import at_least


@dataclass(frozen=True)
class LabelSettings:
    """How steps are labelled.

    Attributes:
        file: solutions of problems with reference answers, in any format that prm convert reads.
        out: the run folder: config.json, records.jsonl, metrics.json.
        model: the completer: folder of a causal language model, its id, or embedded/policy.
        temperature: divides the logits.
        top_p: keep the smallest set of likeliest tokens with at least this probability.
        max_new_tokens: of one completion.
        stop: a text that ends a completion; give it once per text.
        limit: solutions at most; 0 for all.
        in_flight: solutions that share batches.
        consensus: labels of the same solutions that somebody else made, a records file; what both
            agree on is kept, by the first wrong step.
        on_disagreement: drop (into dropped.jsonl, with the reason) or mark (kept, with the reason
            in the record's meta).
        from_: format of the file; by default what its first rows say.
        seed: of everything that is drawn.
        device: cpu or cuda; by default a GPU where there is one.
    """

    file: Path
    _: KW_ONLY
    out: Path = Path("runs/label")
    model: str = "embedded/policy"
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    limit: int = 0
    in_flight: int = 16
    consensus: Path | None = None
    on_disagreement: Literal["drop", "mark"] = "drop"
    from_: str | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(1, in_flight=self.in_flight)
        at_least(0, limit=self.limit)
        if self.consensus is None and self.on_disagreement != "drop":
            raise InvalidSetting("on_disagreement has no meaning without consensus")


def label(
    settings: Annotated[LabelSettings, Parameter(name="*")],
    *,
    method: Annotated[MethodSettings | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Label the steps of solutions by rollouts.

    A label estimates how often this completer still gets the answer from there; that is not the
    same as whether the step is right. Interrupted, it goes on where it was when given again.

    Args:
        json: print the metrics as JSON.
    """
    from prmkit.labelling import Progress
    from prmkit.labelling import label as run
    from prmkit.policies.hf import HFPolicy

    records = read_records(settings.file, settings.from_)
    trajectories = [r.trajectory for r in islice(records, settings.limit or None)]
    if not trajectories:
        raise NothingToMeasure(f"{settings.file} holds no solution")
    others = _others(settings, trajectories)
    drawing = SamplingSettings(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        stop=settings.stop,
    )
    method = method or MethodSettings()
    described = {k: v for k, v in asdict(settings).items() if k != "out"}
    claim_folder(settings.out, {**described, **asdict(method)})
    policy = HFPolicy(model_folder(settings.model), device=settings.device)
    done = rollouts = tokens = 0
    with (
        Ledger(settings.out / "ledger.sqlite", {"policy": policy.name}) as ledger,
        bars(quiet=json) as progress,
    ):

        def told(more: Progress) -> None:
            nonlocal done, rollouts, tokens
            done += more.trajectories
            rollouts, tokens = rollouts + more.rollouts, tokens + more.tokens
            progress("label", done, len(trajectories))

        labelled = run(
            trajectories,
            estimator(method),
            policy,
            judge(),
            settings=drawing,
            seed=settings.seed,
            in_flight=settings.in_flight,
            ledger=ledger,
            on_progress=told,
        )
        counts = _write(labelled, others, settings)
    metrics = {**counts, "rollouts_this_time": rollouts, "tokens_this_time": tokens}
    write_json(settings.out / "metrics.json", metrics)
    if json:
        print_json({**metrics, "out": str(settings.out)})
    else:
        out().print(figures("prm label", list(metrics.items())))
        say(f"records: {settings.out / 'records.jsonl'}")
    # Searches leave the steps after the first wrong one open; that is no fault.
    return INCOMPLETE if counts["unlabelled_steps"] and not leaves_open(method) else DONE


def _others(
    settings: LabelSettings, trajectories: list[Trajectory]
) -> dict[str, int | None] | None:
    """The labels that are to be agreed with, of some of these solutions at least."""
    from prmkit.labelling import places
    from prmkit.labelling.in_process import content_key

    if settings.consensus is None:
        return None
    known = places(read_records(settings.consensus))
    if not any(content_key(t) in known for t in trajectories):
        raise NothingToMeasure(
            f"{settings.consensus} labels none of the {len(trajectories)} solutions of "
            f"{settings.file}; it needs labels of the same problems, steps and separators"
        )
    return known


def _write(
    labelled: Iterable[Record], others: dict[str, int | None] | None, settings: LabelSettings
) -> dict[str, int]:
    """Write the records, and those that are dropped; how many of what."""
    from prmkit.labelling import Agreed, consensus

    counts = Counter(solutions=0, steps=0, unlabelled_steps=0)
    compared = (
        (Agreed(r, "agree") for r in labelled) if others is None else consensus(labelled, others)
    )
    with ExitStack() as stack:
        kept = stack.enter_context(atomic_text(settings.out / "records.jsonl"))
        dropped = kept
        if others is not None and settings.on_disagreement == "drop":
            dropped = stack.enter_context(atomic_text(settings.out / "dropped.jsonl"))
        for record, outcome in compared:
            values = record.labels.values if record.labels else ()
            counts["solutions"] += 1
            counts["steps"] += len(values)
            counts["unlabelled_steps"] += sum(v is None for v in values)
            if others is not None:
                counts[f"consensus: {outcome}"] += 1
            if outcome != "agree":
                record = record.replace(meta={**record.meta, "consensus": outcome})
            file = kept if outcome == "agree" else dropped
            file.write(record.model_dump_json() + "\n")
    return dict(counts)

"""Implicit PRMs: outcome labels teach the log-ratio of a policy to its reference.

    r(y) = Σ_t log π(y_t | y_<t) - log π_ref(y_t | y_<t)   over the response's tokens

is the solution's reward, and what it is made of, summed over a step, the step's. The question is
read through and counts nothing. The reference does not learn: its log-probabilities are computed
once, before the first step, by the same pass as the policy's, and kept beside the checkpoints.

Reference: Yuan et al. 2024, arXiv:2412.01981.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import (
    default_device,
    find_checkpoint,
    fingerprint,
    load_tokenizer,
    start_causal_lm,
)
from prmkit.errors import CheckpointError
from prmkit.files import write_json
from prmkit.settings import above
from prmkit.training import forward, losses
from prmkit.training.batches import passes
from prmkit.training.log_probs import log_probs
from prmkit.training.losses import LossName, pairs_of
from prmkit.training.objective import OfLanguageModel, Place
from prmkit.training.parts import Part, make_part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImplicitSettings:
    """How an implicit PRM learns.

    Attributes:
        beta: what the log-ratio is multiplied by before the sigmoid.
        reference: folder, or id on the hub, of the model it is compared with; by default the base.
    """

    beta: float = 0.05
    reference: str | None = None

    def __post_init__(self) -> None:
        above(0, beta=self.beta)


def check_reference(reference: str, tokenizer: Any) -> None:
    """Refuse a reference that a model with this tokenizer cannot be compared with.

    Raises:
        CheckpointError: if it is not there, or has another tokenizer.
    """
    if load_tokenizer(find_checkpoint(reference)).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError(
            f"the reference {reference!r} has another tokenizer than the base; a log-ratio needs "
            "the same tokens under both models"
        )


@dataclass(frozen=True)
class ImplicitObjective(OfLanguageModel):
    """A loss of the log-ratios of solutions.

    Attributes:
        loss: cross_entropy, of each solution; or preference (DPO), of all pairs of a better and a
            worse solution of one problem that are in the same step.
        settings: see `ImplicitSettings`.
    """

    loss: LossName
    settings: ImplicitSettings

    @property
    def together(self) -> bool:
        """See `Objective`."""
        return self.loss == "preference"

    def note(self, base: str) -> dict[str, Any]:
        """See `Objective`: scoring needs the reference too."""
        reference = self.settings.reference or base
        # As it is found from another folder too.
        found = str(Path(reference).resolve()) if Path(reference).is_dir() else reference
        return {"beta": self.settings.beta, "reference": found}

    def items(self, examples: Sequence[Example]) -> float:
        """See `Objective`: solutions by their weights, or pairs."""
        if self.loss == "cross_entropy":
            return sum(e.weights[0] for e in examples)
        outcomes: dict[str, list[float]] = {}
        for e in examples:
            outcomes.setdefault(e.problem, []).append(e.targets[0])
        return sum(a > b for own in outcomes.values() for a in own for b in own)

    def complete(self, examples: Sequence[Example], model: Any, place: Place) -> list[Example]:
        """See `Objective`: the examples with the reference's log-probabilities.

        Raises:
            CheckpointError: if the reference cannot be loaded.
        """
        reference = find_checkpoint(self.settings.reference or place.base)
        found = _kept(examples, reference, place)
        # All have looked before one of them writes, so that all do the same.
        _wait(place)
        if found is None:
            _compute(examples, reference, model, place)
            _wait(place)
            found = _kept(examples, reference, place)
            assert found is not None
        return [e._replace(reference=found[i]) for i, e in enumerate(examples)]

    def __call__(self, model: Any, rows: Tensor, part: Part) -> Tensor:
        """See `Objective`."""
        import torch

        sums = response_log_probs(model, rows, part)
        there = sums.device
        owner = part.owner.to(there)
        ratios = sums - part.reference.to(sums)
        # All tokens of a solution have its target and its weight.
        blank = torch.zeros_like(sums)
        targets = blank.scatter(0, owner, part.targets.to(sums))
        if self.loss == "cross_entropy":
            weights = blank.scatter(0, owner, part.weights.to(sums))
            return losses.implicit_cross_entropy(ratios, targets, weights, self.settings.beta)
        better, worse = pairs_of(targets, part.problem)
        return losses.direct_preference(ratios[better], ratios[worse], self.settings.beta)


def response_log_probs(model: Any, rows: Tensor, part: Part) -> Tensor:
    """[N] the log-probability of each response of a part.

    Args:
        model: a causal language model.
        rows: [L, H] hidden states at the places of the part.
        part: of N solutions.
    """
    import torch

    found = log_probs(model, rows, part.following.to(rows.device))
    sums = torch.zeros(len(part.reference), device=found.device, dtype=found.dtype)
    return sums.index_add(0, part.owner.to(found.device), found)


def _file(place: Place, rank: int) -> Path:
    return place.folder / f"reference-{rank}-of-{place.world}.json"


def _told(examples: Sequence[Example], reference: Path, place: Place) -> dict[str, str]:
    """What kept numbers belong to."""
    told = hashlib.sha256()
    for example in examples:
        told.update(json.dumps([example.ids, example.positions]).encode())
    return {
        "reference": fingerprint(reference),
        "examples": told.hexdigest(),
        "precision": "bfloat16" if place.bf16 else "float32",
    }


def _kept(examples: Sequence[Example], reference: Path, place: Place) -> dict[int, float] | None:
    """The log-probabilities by the number of the example, if all processes have left theirs."""
    found: dict[int, float] = {}
    told = _told(examples, reference, place)
    for rank in range(place.world):
        file = _file(place, rank)
        if not file.is_file():
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["of"] != told:
            logger.warning(
                "%s is of another reference, other data or another precision; computed again", file
            )
            return None
        found |= {int(number): value for number, value in kept["log_probs"].items()}
    return found


def _compute(examples: Sequence[Example], reference: Path, model: Any, place: Place) -> None:
    """Compute this process' share of the reference's log-probabilities, and keep it."""
    import torch

    judge = model if reference == place.base else _other(reference)
    device = torch.device(_device(place))
    judge.to(device).eval()
    found: dict[str, float] = {}
    # As the loop computes: rounding is the same for both, so a policy that has not learnt yet has
    # log-ratios of 0.
    rounded = torch.autocast(device.type, torch.bfloat16, enabled=place.bf16)
    with torch.no_grad(), rounded:
        cut = passes(examples, place.batches.pass_tokens)
        for chosen in cut[place.rank :: place.world]:
            part = make_part([examples[i] for i in chosen], place.batches.share)
            body = getattr(judge, judge.base_model_prefix)
            rows = forward.hidden_states(body, part.forest)[part.places.to(device)]
            # Solutions are numbered in the order in which they come; each has one example.
            sums = response_log_probs(judge, rows, part).tolist()
            found |= {str(i): value for i, value in zip(chosen, sums, strict=True)}
    judge.train()
    write_json(
        _file(place, place.rank), {"of": _told(examples, reference, place), "log_probs": found}
    )


def _other(reference: Path) -> Any:
    forward.install()
    model = start_causal_lm(reference)
    model.set_attn_implementation(forward.NAME)
    return model


def _device(place: Place) -> str:
    return default_device() if place.world == 1 else str(_processes().device)


def _wait(place: Place) -> None:
    """Until all processes have come so far."""
    if place.world > 1:
        _processes().wait_for_everyone()


def _processes() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())

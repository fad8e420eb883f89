"""Whole optimiser steps as the items of a data set, and the model's call that learns from them.

An item of the data is what one process does in one optimiser step: some passes, and by what their
losses are divided, which is the same number for all of them. So what a step learns depends neither
on how it is cut into passes nor on how many processes share it; the Trainer's own accumulation,
which would divide by the number of passes, is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.training import forward
from prmkit.training.batches import StepPlan
from prmkit.training.heads import HeadObjective
from prmkit.training.objective import Objective
from prmkit.training.parts import Part, make_part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor


class Share(NamedTuple):
    """What one process does in one step.

    Attributes:
        parts: its passes.
        items: of the whole step, over all processes.
    """

    parts: list[Part]
    items: float


class Steps:
    """The steps of a run as a data set: item ``step * world + rank`` is a process' share.

    Args:
        examples: what is trained on.
        plans: the steps.
        objective: counts the items.
        share: whether what sequences have in common is computed once.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        plans: Sequence[StepPlan],
        objective: Objective,
        share: bool,
    ):
        self._examples, self._plans = examples, plans
        self._objective, self._share = objective, share
        self._world = len(plans[0].shares)

    def __len__(self) -> int:
        return len(self._plans) * self._world

    def __getitem__(self, index: int) -> Share:
        plan = self._plans[index // self._world]
        rank = index % self._world
        chosen = [[[self._examples[i] for i in one] for one in share] for share in plan.shares]
        items = math.fsum(self._objective.items(one) for share in chosen for one in share)
        return Share([make_part(one, self._share) for one in chosen[rank]], items)


def trainable(model: Any, objective: Objective) -> Any:
    """Make a model's call compute the sum of a loss over one pass; `released` undoes it.

    It stays the class that it is, with its name and its parts, so that what wraps models (data
    parallel, sharded, adapters) finds what it looks for.
    """
    forward.install()
    original = type(model)

    def step_loss(self: Any, part: Part, read: bool = False) -> Tensor:
        # All that is asked of the weights goes through the call, which sharded models wait for.
        ask = part_numbers if read else part_loss
        return ask(self, part, objective)

    model.__class__ = type(original.__name__, (original,), {"forward": step_loss})
    model.prmkit_original = original
    model.prmkit_attention = model.config._attn_implementation
    model.set_attn_implementation(forward.NAME)
    return model


def released(model: Any) -> Any:
    """The model as it was before `trainable`, with the weights that it has now."""
    model.set_attn_implementation(model.prmkit_attention)
    model.__class__ = model.prmkit_original
    del model.prmkit_original, model.prmkit_attention
    return model


def part_loss(model: Any, part: Part, objective: Objective) -> Tensor:
    """The sum of the loss over one pass.

    Args:
        model: a transformers model with a decoder and the head of the objective.
        part: the pass.
        objective: the loss.
    """
    hidden = _hidden(model, part)
    if not len(part.places):
        # Nothing to learn here, but other processes wait for this one's gradients.
        nothing: Tensor = objective.head(model)(hidden[:1]).sum() * 0
        return nothing
    return objective(model, hidden[part.places.to(hidden.device)], part)


def part_numbers(model: Any, part: Part, objective: Objective) -> Tensor:
    """[L, K] what the head gives at the places of a pass; a row of no meaning where it has none."""
    hidden = _hidden(model, part)
    rows = hidden[part.places.to(hidden.device)] if len(part.places) else hidden[:1]
    assert isinstance(objective, HeadObjective)
    return objective.numbers(model, rows)


def _hidden(model: Any, part: Part) -> Tensor:
    return forward.hidden_states(getattr(model, model.base_model_prefix), part.forest)

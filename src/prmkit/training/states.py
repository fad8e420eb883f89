"""Weights and optimiser states as files that do not tell how many processes wrote them.

What a checkpoint holds is named by parameter and whole, whether the model was replicated or
sharded; so it can be gone on from by another number of processes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

WEIGHTS, OPTIMIZER, SCHEDULER = "weights.pt", "optimizer.pt", "scheduler.pt"


def save(model: Any, optimizer: Any, scheduler: Any, place: Path, *, first: bool) -> None:
    """Write what is trained, and how far its training is.

    Sharded models are gathered: all processes call this, and the first one writes.

    Args:
        model: as it is trained, perhaps sharded; what is frozen is not written.
        optimizer: of it.
        scheduler: of the learning rate.
        place: a folder.
        first: whether this process is the first one.
    """
    import torch
    from torch.distributed.checkpoint import state_dict as states

    options = states.StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
    )
    with warnings.catch_warnings():
        # torch tells that its own gathering uses what it means to replace.
        warnings.simplefilter("ignore", FutureWarning)
        weights = states.get_model_state_dict(model, options=options)
        moments = states.get_optimizer_state_dict(model, optimizer, options=options)
    if first:
        torch.save(weights, place / WEIGHTS)
        torch.save(moments, place / OPTIMIZER)
        torch.save(scheduler.state_dict(), place / SCHEDULER)


def load_weights(model: Any, place: Path) -> None:
    """Give a model, replicated or sharded, the weights that `save` wrote; frozen ones stay.

    Raises:
        RuntimeError: of torch, if they are of another model.
    """
    from torch.distributed.checkpoint import state_dict as states

    weights = _read(place / WEIGHTS)
    there = {name for name, value in model.named_parameters() if value.requires_grad}
    _with_known(weights, there)
    options = states.StateDictOptions(full_state_dict=True, strict=False)
    states.set_model_state_dict(model, weights, options=options)


def load_optimizer(model: Any, optimizer: Any, scheduler: Any, place: Path) -> None:
    """Give an optimiser and a scheduler the states that `save` wrote."""
    from torch.distributed.checkpoint import state_dict as states

    options = states.StateDictOptions(full_state_dict=True, ignore_frozen_params=True)
    moments = _read(place / OPTIMIZER)
    states.set_optimizer_state_dict(model, optimizer, moments, options=options)
    scheduler.load_state_dict(_read(place / SCHEDULER))


def _read(file: Path) -> Any:
    import torch

    # Mapped: several processes of one machine share the memory.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _with_known(weights: dict[str, Any], trained: set[str]) -> None:
    """Refuse weights that lack a trained one: it would stay what it was before the training."""
    clean = {name.replace("_checkpoint_wrapped_module.", "") for name in trained}
    missing = sorted(clean - weights.keys())
    if missing:
        raise RuntimeError(f"the checkpoint lacks {', '.join(missing[:4])}")

"""The processes of a run: each draws and learns from a share, and all know the whole.

What is small is told to all: what was drawn, with tokens and scores, and numbers of tokens. So each
process makes the same advantages of the whole step, and its loss is a part of one sum, over the
whole step's tokens and responses; gradients are added up. Each process holds all weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from prmkit.errors import InvalidSetting, PolicyError, PrmkitError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long a process waits for others, of which one may draw the longest responses."""
BUCKET = 1 << 25
"""Gradients that are added up at once."""


class Team(NamedTuple):
    """This process among those of a run.

    Attributes:
        rank: its number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files, and tells how far the run is."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of `n` things are this process'; neighbours."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def share_by(self, weights: Sequence[int]) -> range:
        """Which of some things are this process', so that all have about the same weight."""
        total = sum(weights)
        if self.size == 1 or not total:
            return range(len(weights)) if self.first else range(0)
        ends = accumulate(weights)
        # By its middle, each thing is in one of as many equal parts as there are processes.
        whose = [
            (2 * end - weight) * self.size // (2 * total)
            for end, weight in zip(ends, weights, strict=True)
        ]
        own = [i for i, rank in enumerate(whose) if min(rank, self.size - 1) == self.rank]
        return range(own[0], own[-1] + 1) if own else range(0)

    def gather(self, value: T) -> list[T]:
        """What each process has, in order."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def together(self, work: Callable[[], list[T]]) -> list[T]:
        """What all processes made, one after the other's.

        Raises:
            PrmkitError: its own, or a `PolicyError` with the words of another process.
        """
        made, error = _tried(work)
        parts = self.gather((made, None if error is None else str(error)))
        if error is not None:
            raise error
        for rank, (_, told) in enumerate(parts):
            if told is not None:
                raise PolicyError(f"process {rank}: {told}")
        return [one for part, _ in parts for one in part or ()]

    def once(self, work: Callable[[], T]) -> T:
        """What the first process makes, for all; it raises as `together` does."""
        return self.together(lambda: [work()] if self.first else [])[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        """What each process makes; the first before the others. It raises as `together` does."""
        made, error = _tried(work) if self.first else (None, None)
        self.together(lambda: _raised(error))
        if not self.first:
            made, error = _tried(work)
        self.together(lambda: _raised(error))
        return cast(T, made)

    def add(self, numbers: Tensor) -> Tensor:
        """The sum of all processes' numbers, on the CPU, which each of them gets."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(numbers)
        return numbers

    def add_gradients(self, model: Any) -> None:
        """Gradients become the sum of all processes'; a process without any counts as 0."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        weights = [weight for weight in model.parameters() if weight.requires_grad]
        there = torch.tensor([int(weight.grad is not None) for weight in weights])
        # What no process has stays away, as with one process.
        some = [w for w, n in zip(weights, self.add(there).tolist(), strict=True) if n]
        for weight in some:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in _buckets(some):
            flat = torch.cat([weight.grad.reshape(-1) for weight in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [weight.numel() for weight in bucket])
            for weight, total in zip(bucket, parts, strict=True):
                weight.grad.copy_(total.view_as(weight))


def _tried(work: Callable[[], T]) -> tuple[T | None, PrmkitError | None]:
    try:
        return work(), None
    except PrmkitError as error:
        return None, error


def _raised(error: PrmkitError | None) -> list[None]:
    if error is not None:
        raise error
    return []


def _buckets(weights: Sequence[Any]) -> list[list[Any]]:
    found: list[list[Any]] = []
    held = BUCKET
    for weight in weights:
        if held >= BUCKET:
            found.append([])
            held = 0
        found[-1].append(weight)
        held += weight.numel()
    return found


def place() -> Team:
    """Which process this is, as torchrun told it."""
    return Team(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def open_team(device: str | None, n_problems: int) -> Team:
    """Meet the other processes, where torchrun started several, and take a GPU of one's own.

    Args:
        device: of the settings.
        n_problems: of a step.

    Raises:
        InvalidSetting: if the work cannot be shared so.
    """
    team = place()
    if team.size == 1:
        return team
    import torch
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_WORLD_SIZE", team.size))
    if local != team.size:
        raise InvalidSetting(
            f"{team.size} processes on several machines, {local} of them here: a run is shared by "
            "processes of one machine. For more see the bridges to other trainers "
            "(prmkit.rl.bridges)"
        )
    if team.size > n_problems:
        raise InvalidSetting(
            f"{team.size} processes cannot share {n_problems} problems a step; draw more "
            "(--problems-per-step), or start fewer"
        )
    if device not in (None, "cpu", "cuda"):
        raise InvalidSetting(
            f"the device is {device!r}, which several processes cannot share; give cpu or cuda, "
            "of which each takes one of its own"
        )
    gpu = torch.cuda.is_available() if device is None else device == "cuda"
    if gpu:
        if torch.cuda.device_count() < team.size:
            raise InvalidSetting(
                f"{team.size} processes for {torch.cuda.device_count()} GPUs; start one for each"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", team.rank)))
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
    return team


def close_team(team: Team) -> None:
    """Take leave of the other processes."""
    if team.size > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()

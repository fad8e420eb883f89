"""How responses lie in tensors: what the other modules of tensors share.

B responses of T tokens and at most S steps; padding is at the right.

- `mask` [B, T]: tokens that the policy wrote. What stands at the other tokens is ignored, and what
  comes out there is 0. They may lie inside: an environment's observations.
- `ends` [B, S]: place of the last token of each step, -1 where there is no such step. Ends do not
  fall along a row. A step without tokens of its own has the end of the step before it; an empty
  first step has end 0, so that the first token counts as its own. What stands where ends is -1 is
  ignored, NaN too, and what comes out there is 0.
- `group` [B]: which problem; any integers, and responses of one need not be neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def wide(numbers: Tensor) -> Tensor:
    """In float32 at least."""
    import torch

    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def where_there(numbers: Tensor, there: Tensor) -> Tensor:
    """In float32 at least, and 0 where nothing is there, whatever stood at that place.

    Raises:
        ValueError: if the shapes differ.
    """
    if numbers.shape != there.shape:
        raise ValueError(
            f"numbers of shape {tuple(numbers.shape)} for places of shape {tuple(there.shape)}; "
            "one number for each place is needed"
        )
    numbers = wide(numbers)
    return numbers.where(there, numbers.new_zeros(()))


def step_of(ends: Tensor, n_tokens: int) -> Tensor:
    """Which step each token belongs to: the first one that ends there or later.

    Args:
        ends: [B, S].
        n_tokens: T.

    Returns:
        [B, T] numbers of steps; after the last end, the number of steps of the response.
    """
    import torch

    last = torch.where(ends >= 0, ends, n_tokens).contiguous()
    places = torch.arange(n_tokens, device=ends.device, dtype=ends.dtype)
    return torch.searchsorted(last, places.expand(len(ends), -1).contiguous())


def sum_over_steps(numbers: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
    """Sum over the policy's tokens of each step; tokens after the last end belong to none.

    Args:
        numbers: [B, T].
        mask: [B, T].
        ends: [B, S].

    Returns:
        [B, S].
    """
    numbers = where_there(numbers, mask)
    n_steps = ends.shape[1]
    sums = numbers.new_zeros(len(ends), n_steps + 1)
    sums = sums.scatter_add(1, step_of(ends, mask.shape[1]), numbers)
    return where_there(sums[:, :n_steps], ends >= 0)


def from_the_end(numbers: Tensor, decay: Tensor) -> Tensor:
    """The linear recurrence y_t = x_t + d_t y_{t+1}, with 0 after the last place.

    In log2 T passes over all of [B, T], none over tokens; exact for any decay, where a quotient
    of powers would overflow.

    Args:
        numbers: [B, T] the x.
        decay: [B, T] the d.
    """
    import torch.nn.functional as functional

    reach, n_places = 1, numbers.shape[1]
    while reach < n_places:
        # Until here y_t sums over [t, t + reach), and d_t is the product over it.
        later = functional.pad(numbers[:, reach:], (0, reach))
        numbers = numbers + decay * later
        decay = decay * functional.pad(decay[:, reach:], (0, reach))
        reach *= 2
    return numbers


def group_numbers(group: Tensor) -> Tensor:
    """[B] the groups renumbered from 0, without a wait for the device."""
    import torch

    order = torch.argsort(group)
    ordered = group[order]
    new = (ordered[1:] != ordered[:-1]).long().cumsum(0)
    numbers = torch.zeros_like(group, dtype=torch.long)
    return numbers.scatter(0, order[1:], new)


def sum_over_group(numbers: Tensor, group: Tensor) -> Tensor:
    """For each response the sum over its whole group.

    Args:
        numbers: [B].
        group: [B] as `group_numbers` gives them.

    Returns:
        [B].
    """
    import torch

    return torch.zeros_like(numbers).index_add(0, group, numbers)[group]


def above_lowest(numbers: Tensor, there: Tensor, group: Tensor) -> Tensor:
    """Numbers less the lowest of their group, so that equal ones are 0 and not nearly so.

    What is compared within a group does not change by it.

    Args:
        numbers: [B, N].
        there: [B, N] bool.
        group: [B] as `group_numbers` gives them.

    Returns:
        [B, N], 0 where nothing is there.
    """
    import torch

    numbers = where_there(numbers, there)
    if not numbers.numel():
        return numbers
    own = numbers.masked_fill(~there, torch.inf).amin(1)
    lowest = torch.full_like(own, torch.inf).scatter_reduce(0, group, own, "amin")[group]
    return where_there(numbers - lowest[:, None], there)

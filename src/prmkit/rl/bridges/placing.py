"""Step scores to tokens: where steps end among the tokens that were drawn, and what each earns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import ScoringError
from prmkit.rl.bridges.scoring import Scored
from prmkit.rl.placing import places

if TYPE_CHECKING:
    from torch import Tensor

TokenAdvantages = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]
"""Step numbers [B, S], ends [B, S], group [B], mask [B, T] -> [B, T], in the terms of
`prmkit.rl.advantages`."""


class Row(NamedTuple):
    """A response with scored steps.

    Attributes:
        values: S step scores; none where it was not scored.
        ends: S places of the steps' last tokens.
        n_tokens: of the response.
    """

    values: tuple[float, ...]
    ends: tuple[int, ...]
    n_tokens: int


def row(tokenizer: Tokenizer, ids: Sequence[int], scored: Scored) -> Row:
    """A scored response among its tokens; raises as `places` does."""
    if not scored.values:
        return Row((), (), len(ids))
    return Row(scored.values, places(tokenizer, ids, scored.steps), len(ids))


def token_advantages(
    rows: Sequence[Row], group: Sequence[int], advantages: TokenAdvantages | None = None
) -> Tensor:
    """What each token is worth beside the group's other ones.

    Args:
        rows: [B].
        group: [B] which problem.
        advantages: of tokens, from step scores; by default `grpo_process`, GRPO with process
            supervision. A response without scores has no step there, and gets zeros.

    Returns:
        [B, T], zero after each response.

    Raises:
        ScoringError: if the function gives another shape, or what is not finite.
    """
    import torch

    if advantages is None:
        from prmkit.rl.advantages import grpo_process

        advantages = grpo_process
    n_steps = max((len(one.values) for one in rows), default=0)
    n_tokens = max((one.n_tokens for one in rows), default=0)
    values = torch.zeros(len(rows), max(n_steps, 1))
    ends = torch.full(values.shape, -1, dtype=torch.long)
    mask = torch.zeros(len(rows), n_tokens, dtype=torch.bool)
    for i, one in enumerate(rows):
        values[i, : len(one.values)] = torch.tensor(one.values)
        ends[i, : len(one.ends)] = torch.tensor(one.ends, dtype=torch.long)
        mask[i, : one.n_tokens] = True
    found = advantages(values, ends, torch.tensor(group, dtype=torch.long), mask)
    if found.shape != mask.shape:
        raise ScoringError(
            f"the advantages have shape {tuple(found.shape)}; for {len(rows)} responses of at "
            f"most {n_tokens} tokens it is {tuple(mask.shape)}"
        )
    if not torch.isfinite(found).all():
        raise ScoringError("the advantages hold what is not finite")
    return found.float() * mask

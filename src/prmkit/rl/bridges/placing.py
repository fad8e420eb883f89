"""Step scores to tokens: where steps end among the tokens that were drawn, and what each earns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord, ScoringError
from prmkit.rl.bridges.scoring import Scored

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


def written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of tokens that a policy drew, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def places(tokenizer: Tokenizer, ids: Sequence[int], steps: Sequence[str]) -> tuple[int, ...]:
    """The place of each step's last token.

    A step ends with the first token after which all of its text is there; so a token that holds
    the end of a step and the beginning of the next belongs to both, and the next may end there
    as well. What follows the last step, such as the end of text, was the last step's decision
    too: it ends with the response.

    Args:
        tokenizer: of the policy.
        ids: [T] that were drawn, without padding.
        steps: [S] their text, cut.

    Raises:
        InvalidRecord: if the steps are not the text of the tokens.
    """
    text, whole = "".join(steps), written(tokenizer, ids)
    if text != whole:
        at = next((i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), None)
        at = min(len(text), len(whole)) if at is None else at
        raise InvalidRecord(
            f"the steps are not the text of the tokens: from character {at} on they are "
            f"{text[at : at + 20]!r}, and the tokens are {whole[at : at + 20]!r}"
        )
    found: list[int] = []
    length = low = 0
    for step in steps[:-1]:
        length += len(step)
        high = len(ids) - 1
        # Half a character decodes to a mark of its own, so texts are compared, not lengths.
        while low < high:
            middle = (low + high) // 2
            if written(tokenizer, ids[: middle + 1]).startswith(text[:length]):
                high = middle
            else:
                low = middle + 1
        found.append(low)
    return (*found, len(ids) - 1) if steps else ()


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

"""One pass of a decoder over a forest of sequences, with gradients.

All tokens lie in one row, so that every linear layer runs once and nothing is padded; attention
alone looks at each node, with the keys and values of the nodes before it. What sequences share is
computed once, forwards and backwards: its gradient is the sum of theirs.

The attention is registered with transformers under a name of its own, as for scoring
(`prmkit.scorers.backends.packed`, whose kernels it uses).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prmkit.scorers.backends import packed
from prmkit.training.trees import Forest

if TYPE_CHECKING:
    import torch

NAME = "prmkit_training"


@dataclass
class _Plan:
    """What attention needs to know of one pass.

    Attributes:
        lengths: [N] tokens of each node.
        chains: [N] the nodes up to each one, itself included.
        bounds: cumulative lengths of queries and of keys, on a GPU.
    """

    lengths: list[int]
    chains: list[list[int]]
    bounds: tuple[torch.Tensor, torch.Tensor] | None


def install() -> None:
    """Make the attention known to transformers; again and again does no harm."""
    packed.install(NAME, _attention)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    forest: _Plan,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """[1, H, T, D] queries, [1, G, T, D] keys and values to [1, T, H, D], node by node."""
    import torch

    del attention_mask
    own_keys = torch.split(key[0], forest.lengths, dim=1)
    own_values = torch.split(value[0], forest.lengths, dim=1)
    keys = [_joined(own_keys, chain) for chain in forest.chains]
    values = [_joined(own_values, chain) for chain in forest.chains]
    return packed.attend(module, query, keys, values, forest.lengths, forest.bounds, **settings)


def _joined(parts: Sequence[torch.Tensor], chain: Sequence[int]) -> torch.Tensor:
    import torch

    if len(chain) == 1:
        return parts[chain[0]]
    return torch.cat([parts[number] for number in chain], dim=1)


def hidden_states(body: Any, forest: Forest) -> torch.Tensor:
    """[T, H] last hidden states of all tokens of a forest, node after node.

    Args:
        body: a transformers decoder without a head, set to this attention.
        forest: of at least one node.
    """
    import torch

    device = next(body.parameters()).device
    lengths = [len(node.ids) for node in forest.nodes]
    chains = [forest.chain(number) for number in range(len(forest.nodes))]
    ids = torch.tensor([[token for node in forest.nodes for token in node.ids]], device=device)
    positions = torch.cat([torch.arange(n.start, n.start + len(n.ids)) for n in forest.nodes])
    bounds = None
    if device.type == "cuda":
        totals = [node.start + len(node.ids) for node in forest.nodes]
        bounds = packed.cumulated(lengths, device), packed.cumulated(totals, device)
    out = body(
        input_ids=ids,
        position_ids=positions.to(device)[None],
        use_cache=False,
        forest=_Plan(lengths, chains, bounds),
    )
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden

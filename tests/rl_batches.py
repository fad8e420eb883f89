"""Batches of responses in the layout of `prmkit.rl`, ugly corners included, and slow loops."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st

NAN = float("nan")


class Batch(NamedTuple):
    mask: torch.Tensor
    ends: torch.Tensor
    group: torch.Tensor
    steps: torch.Tensor  # [B, S] numbers, NaN where there is no step
    tokens: torch.Tensor  # [B, T] numbers, NaN where the mask is False
    rewards: torch.Tensor  # [B]

    def rows(self):
        """For each response its tokens' places, its ends, its steps' numbers."""
        for mask, ends, steps in zip(self.mask, self.ends, self.steps, strict=True):
            real = [e for e in ends.tolist() if e >= 0]
            yield [t for t, own in enumerate(mask.tolist()) if own], real, steps.tolist()

    def others(self, i):
        return [j for j in range(len(self.group)) if j != i and self.group[j] == self.group[i]]

    def padded(self, tokens=2, steps=1):
        """The same with more padding at the right."""
        pad = torch.nn.functional.pad
        return self._replace(
            mask=pad(self.mask, (0, tokens)),
            ends=pad(self.ends, (0, steps), value=-1),
            steps=pad(self.steps, (0, steps), value=NAN),
            tokens=pad(self.tokens, (0, tokens), value=NAN),
        )

    def without_data(self):
        """Shapes alone: whatever would wait for a device to know a number fails."""
        return Batch(*(part.to("meta") for part in self))

    def permuted(self, order):
        return Batch(*(part[order] for part in self))


def plain():
    """Two problems, two responses each."""
    ends = torch.tensor([[0, 2, 4], [1, 1, -1], [4, -1, -1], [-1, -1, -1]])
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [True] * 5, [False] * 5])
    numbers = torch.arange(20.0).reshape(4, 5).cos()
    return Batch(mask, ends, torch.tensor([2, 9, 2, 9]), numbers[:, :3], numbers, numbers[:, 4])


numbers = st.floats(-4, 4, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def batches(draw, max_responses=6):
    """Empty responses, empty steps, masked tokens inside, groups of any numbers, not neighbours."""
    n_responses = draw(st.integers(1, max_responses))
    n_tokens, n_steps = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    mask = torch.zeros(n_responses, n_tokens, dtype=torch.bool)
    ends = torch.full((n_responses, n_steps), -1)
    steps = torch.full((n_responses, n_steps), NAN, dtype=torch.float64)
    tokens = torch.full((n_responses, n_tokens), NAN, dtype=torch.float64)
    for i in range(n_responses):
        length = draw(st.integers(0, n_tokens))
        own = draw(st.lists(st.sampled_from([True, True, False]), min_size=length, max_size=length))
        mask[i, :length] = torch.tensor(own, dtype=torch.bool)
        if not length:
            continue
        last = sorted(draw(st.lists(st.integers(0, length - 1), max_size=n_steps)))
        for k, end in enumerate(last):
            ends[i, k], steps[i, k] = end, draw(numbers)
        for t in range(length):
            if own[t]:
                tokens[i, t] = draw(numbers)
    group = torch.tensor([draw(st.sampled_from([-7, 0, 3, 10**12])) for _ in range(n_responses)])
    rewards = torch.tensor([draw(numbers) for _ in range(n_responses)], dtype=torch.float64)
    return Batch(mask, ends, group, steps, tokens, rewards)


def step_of_token(ends, t):
    """The first step that ends at t or later; None after the last."""
    return next((k for k, end in enumerate(ends) if end >= t), None)


def same(found, expected, tolerance=1e-9):
    """Equal but for rounding, and no NaN."""
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=tolerance)

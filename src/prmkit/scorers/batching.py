"""Rows of token ids into batches: like lengths together, under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in groups whose padded size (rows times longest) stays under `max_tokens`.

    Longest first, so that running out of memory shows at once. A row over the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    group: list[int] = []
    for index in order:
        longest = lengths[group[0]] if group else lengths[index]
        if group and longest * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group

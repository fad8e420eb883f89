"""The tree of what a model has read, with numbers in place of keys: each is its text so far."""

from __future__ import annotations

import gc
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prmkit.policies import prefix_cache
from prmkit.policies.prefix_cache import PrefixCache, n_shared


def keys_of(ids, start=0):
    """[L, K, T, D] of 2 layers, a head and a number each, which tells all tokens so far."""
    told = [float(hash(tuple(ids[: at + 1])) % 100_003) for at in range(start, len(ids))]
    return torch.tensor(told).reshape(1, 1, -1, 1).repeat(2, 1, 1, 1)


def keep(cache, ids, start=0):
    keys = keys_of(ids, start)
    cache.add(ids, start, keys, -keys)


def check_found(cache, ids, length):
    found = cache.find(ids)
    assert found.length == length
    keys = torch.cat([torch.zeros(2, 1, 0, 1), *found.keys], dim=2)
    assert torch.equal(keys, keys_of(ids[:length]))
    assert torch.equal(torch.cat([torch.zeros(2, 1, 0, 1), *found.values], dim=2), -keys)


def test_what_texts_have_in_common_is_kept_once():
    cache = PrefixCache()
    keep(cache, [1, 2, 3, 4, 5])
    keep(cache, [1, 2, 3, 7, 8])
    keep(cache, [1, 2, 3, 7, 8, 9])
    keep(cache, [1, 2])
    assert len(cache) == 8
    check_found(cache, [1, 2, 3, 4, 5, 6], 5)
    check_found(cache, [1, 2, 3, 7, 8, 9], 6)
    check_found(cache, [1, 2, 3, 7, 1], 4)
    check_found(cache, [1, 5], 1)
    check_found(cache, [2], 0)
    check_found(cache, [], 0)


def test_the_rest_of_a_text_is_put_after_its_beginning():
    cache = PrefixCache()
    keep(cache, [1, 2, 3])
    keep(cache, [1, 2, 3, 4, 5], start=3)
    check_found(cache, [1, 2, 3, 4, 5], 5)
    # More than is needed: what is there stays.
    keep(cache, [1, 2, 3, 4, 6], start=2)
    check_found(cache, [1, 2, 3, 4, 6], 5)
    assert len(cache) == 6
    # Nothing comes after what is not there.
    keep(cache, [1, 2, 9, 9], start=3)
    assert len(cache) == 6
    check_found(cache, [1, 2, 9, 9], 2)


def test_what_was_not_used_for_longest_goes_first_and_never_a_beginning_before_its_end():
    cache = PrefixCache(max_kept=8)
    keep(cache, [1, 2, 3, 4])
    keep(cache, [1, 2, 5, 6])
    keep(cache, [7, 8])
    assert len(cache) == 8
    check_found(cache, [1, 2, 3, 4], 4)
    keep(cache, [9])
    check_found(cache, [1, 2, 5, 6], 2)
    check_found(cache, [1, 2, 3, 4], 4)
    check_found(cache, [7, 8], 2)
    keep(cache, [10, 11, 12])
    check_found(cache, [9], 0)
    check_found(cache, [1, 2, 3, 4], 2)
    assert len(cache) == 2 + 2 + 3
    keep(cache, [*range(100, 120)])
    assert len(cache) == 0


def test_by_default_it_keeps_what_fits_into_memory(monkeypatch):
    monkeypatch.setattr(prefix_cache, "MAX_BYTES", 5 * 16)
    cache = PrefixCache()
    # Two layers of a float32 for the key and one for the value: 16 bytes a token.
    keep(cache, [1, 2, 3])
    keep(cache, [4, 5])
    assert len(cache) == 5
    keep(cache, [6])
    assert len(cache) == 3
    monkeypatch.setattr(prefix_cache, "MAX_KEPT", 2)
    small = PrefixCache()
    keep(small, [1, 2])
    keep(small, [3])
    assert len(small) == 1


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=25),
    st.integers(0, 30),
)
def test_whatever_comes_it_keeps_no_more_than_told_and_tells_no_other_keys(texts, max_kept):
    cache = PrefixCache(max_kept)
    for ids in texts:
        found = cache.find(ids)
        check_found(cache, ids, found.length)
        keep(cache, ids, start=found.length)
        assert len(cache) <= max_kept
    nodes, waiting = [], [cache._root]
    while waiting:
        node = waiting.pop()
        for token, child in node.children.items():
            assert child.ids[0] == token
            assert child.keys.shape[2] == len(child.ids)
            assert child.parent is node
            nodes.append(child)
            waiting.append(child)
    assert set(nodes) == set(cache._kept)
    assert sum(len(node.ids) for node in nodes) == len(cache)
    for ids in texts:
        check_found(cache, ids, cache.find(ids).length)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12))
def test_without_a_limit_it_is_the_tree_of_all_texts(texts):
    cache = PrefixCache()
    for ids in texts:
        if ids:
            keep(cache, ids)
    beginnings = {tuple(ids[:n]) for ids in texts for n in range(1, len(ids) + 1)}
    assert len(cache) == len(beginnings)
    for ids in texts:
        check_found(cache, ids, len(ids))


def test_a_node_holds_no_more_memory_than_its_tokens():
    cache = PrefixCache()
    keep(cache, [*range(100)])
    keep(cache, [*range(60), 200])
    keep(cache, [*range(60), 200, 201], start=30)
    gc.collect()
    for node in cache._kept:
        for tensor in (node.keys, node.values):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_copy_begins_empty():
    cache = PrefixCache(7)
    keep(cache, [1, 2, 3])
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0
    keep(copy, [*range(8)])
    assert len(copy) == 0


@pytest.mark.parametrize(
    ("left", "right", "n"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 4, 3], 1), ([1], [2], 0)],
)
def test_how_much_is_shared(left, right, n):
    assert n_shared(left, right) == n
    assert n_shared(tuple(right), tuple(left)) == n

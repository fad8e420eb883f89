"""Where steps end among tokens of bytes, some of which are half a character."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from prmkit.errors import InvalidRecord
from prmkit.rl.placing import places

ENDS = (256, 257)


class Pieces:
    """Each token is some bytes; 256 and 257 are special."""

    def __init__(self, pieces):
        self.pieces = pieces

    def decode(self, ids, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        whole = b"".join(self.pieces[i] for i in ids if i not in ENDS)
        return whole.decode(errors="replace")


def of_bytes(text, *ends):
    return [*text.encode(), *ends]


BYTES = Pieces({i: bytes([i]) for i in range(256)})


def test_half_a_character_is_none():
    # Three bytes of the sign, of which one alone decodes to a mark as long as the sign.
    assert places(BYTES, of_bytes("€x"), ["€", "x"]) == (2, 3)
    assert places(BYTES, of_bytes("ab€", 256), ["a", "b", "€"]) == (0, 1, 5)


def test_what_follows_the_last_step_is_its_own():
    assert places(BYTES, of_bytes("ab", 257, 256), ["ab"]) == (3,)
    assert places(BYTES, [256], []) == ()


def test_places_are_those_of_a_search_from_the_beginning():
    rng = random.Random(4)
    for _ in range(200):
        steps = ["".join(rng.choices("aé€😀\n", k=rng.randint(1, 4))) for _ in range(4)]
        whole, cuts = "".join(steps).encode(), [0]
        while cuts[-1] < len(whole):
            cuts.append(min(cuts[-1] + rng.randint(1, 5), len(whole)))
        pieces = Pieces(dict(enumerate(whole[a:b] for a, b in pairwise(cuts))))
        expected, length = [], 0
        for step in steps:
            length += len(step.encode())
            # The first token that ends at the step's last byte or behind it.
            expected.append(next(i for i, cut in enumerate(cuts[1:]) if cut >= length))
        assert places(pieces, range(len(cuts) - 1), steps) == tuple(expected)


def test_steps_of_another_text_are_refused():
    with pytest.raises(InvalidRecord, match="from character 2 on they are 'c', and the tokens"):
        places(BYTES, of_bytes("abd"), ["ab", "c"])
    with pytest.raises(InvalidRecord, match="from character 2 on they are '', and .* 'd'"):
        places(BYTES, of_bytes("abd"), ["ab"])

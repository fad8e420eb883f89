"""Answers of servers as completions, by hand."""

from __future__ import annotations

import pytest

from prmkit.policies.wire import Capabilities, Choice, completion_of

KEEPS = Capabilities(model="m", keeps_stop=True)
TELLS = Capabilities(model="m", tells_stop=True)


@pytest.mark.parametrize(
    ("can", "text", "finish", "matched", "expected"),
    [
        # Ended by the model, or by the limit.
        (KEEPS, "a b", "stop", None, ("a b", "eos")),
        (KEEPS, "a b", "length", None, ("a b", "length")),
        (TELLS, "a b", "stop", None, ("a b", "eos")),
        (TELLS, "a b", "length", None, ("a b", "length")),
        # By a stop text that stays, that is followed by the rest of its token, or is cut off.
        (KEEPS, "a b=", "stop", None, ("a b=", "stop")),
        (KEEPS, "a b=", "stop", "=", ("a b=", "stop")),
        (KEEPS, "a b= c", "stop", None, ("a b=", "stop")),
        (TELLS, "a b", "stop", "=", ("a b=", "stop")),
        # The last token that was allowed brought it.
        (KEEPS, "a b=", "length", None, ("a b=", "stop")),
        # The first one counts.
        (KEEPS, "a\nb=", "stop", "=", ("a\n", "stop")),
        # A stop text that is not ours is the model's own end.
        (TELLS, "a b", "stop", "<end>", ("a b", "eos")),
        (TELLS, "", "stop", "=", ("=", "stop")),
    ],
)
def test_how_a_completion_ended(can, text, finish, matched, expected):
    found = completion_of(can, Choice(text, finish, matched, None), ("=", "\n"), 3)
    assert found == (*expected, 3, None)

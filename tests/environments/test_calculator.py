"""Exact arithmetic, and nothing else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.environments.calculator import NoResult, calculate, shown


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ** 3 ** 2", 512),
        ("2 ^ 3", 8),
        ("-2 ** 2", -4),
        ("2 ** -2", Fraction(1, 4)),
        ("10 / 4", Fraction(5, 2)),
        ("10 // 4 * 3 % 4", 2),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("10 - 2 - 3", 5),
        ("24 / 4 / 2", 3),
        ("0.1 + 0.2", Fraction(3, 10)),
        (".5 + 1.", Fraction(3, 2)),
        ("--3", 3),
        ("0 ** 0", 1),
        ("1 ** 999999999", 1),
        ("(0 - 1) ** 3", -1),
        ("0 ** 5", 0),
    ],
)
def test_results(expression, result):
    assert calculate(expression) == result


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "empty"),
        ("1 +", "too early"),
        ("1 2", "not expected"),
        ("(1", "not closed"),
        (")", "not expected"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("2 ** 0.5", "whole number"),
        ("9 ** 9 ** 9", "too large"),
        ("*".join(["2 ** 5000"] * 4), "too large"),
        ("(" * 200 + "1" + ")" * 200, "levels"),
        ("-" * 200 + "1", "levels"),
        ("__import__('os')", "'_'"),
        ("١ + 1", "no part of arithmetic"),
        ("1" * 2000, "at most"),
    ],
)
def test_what_has_no_result(expression, why):
    with pytest.raises(NoResult, match=why.replace("+", r"\+")):
        calculate(expression)


numbers = st.integers(0, 999).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=8,
)


@given(expressions)
def test_it_computes_as_python_does(expression):
    def exact(text):
        import re

        try:
            return eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})
        except ZeroDivisionError:
            return None

    try:
        result = calculate(expression)
    except NoResult:
        result = None
    assert result == exact(expression)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Fraction(6, 2), "3"),
        (Fraction(-7, 2), "-3.5"),
        (Fraction(1, 3), "0.333333333333"),
        (Fraction(100, 1), "100"),
        (Fraction(1, 10**20), "1e-20"),
        (Fraction(2 * 10**30, 3), "6.66666666667e+29"),
    ],
)
def test_how_numbers_are_shown(number, text):
    assert shown(number) == text

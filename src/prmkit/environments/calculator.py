"""Exact arithmetic from text, read by a parser of its own: nothing is evaluated as code."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from fractions import Fraction

LONGEST = 1000
"""Characters of an expression at most."""
DEEPEST = 50
"""Brackets, signs and powers inside of one another at most."""
LARGEST = 10_000
"""Bits of a number at most, above and below the line of its fraction."""
DIGITS = 12
"""Digits that are shown of a result that is no whole number."""

_TOKEN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+|\*\*|//|[-+*/%^()])")


class NoResult(Exception):
    """An expression has no result; the message says why."""


def calculate(expression: str) -> Fraction:
    """The exact result of an expression of numbers, ``+ - * / // % **`` (or ``^``) and brackets.

    As in Python: ``**`` binds to the right and closer than a sign before it, ``//`` rounds down.

    >>> calculate("2 * (3 + 4) / 4")
    Fraction(7, 2)

    Raises:
        NoResult: if it cannot be read, divides by zero, or leads to numbers beyond the limits.
    """
    if len(expression) > LONGEST:
        raise NoResult(f"the expression has {len(expression)} characters; at most {LONGEST}")
    tokens: list[str] = []
    at, text = 0, expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NoResult(f"{text[at:].strip()[:1]!r} is no part of arithmetic")
        tokens.append("**" if match[1] == "^" else match[1])
        at = match.end()
    if not tokens:
        raise NoResult("the expression is empty")
    parser = _Parser(tokens)
    result = parser.sum(0)
    if parser.rest:
        raise NoResult(f"{parser.rest[0]!r} is not expected there")
    return result


def shown(number: Fraction) -> str:
    """A number as text: exact where it is whole, else rounded to `DIGITS` digits.

    >>> shown(Fraction(7, 2)), shown(Fraction(6, 2)), shown(Fraction(1, 3))
    ('3.5', '3', '0.333333333333')
    """
    if number.denominator == 1:
        return str(number.numerator)
    context = Context(prec=DIGITS)
    rounded = context.divide(Decimal(number.numerator), Decimal(number.denominator))
    text = f"{rounded:f}" if -DIGITS <= rounded.adjusted() <= DIGITS else f"{rounded:e}"
    return text.rstrip("0").rstrip(".") if "e" not in text and "." in text else text


class _Parser:
    """Recursive descent; each level of depth is counted."""

    def __init__(self, tokens: list[str]):
        self.rest = tokens[::-1]

    @property
    def _next(self) -> str:
        return self.rest[-1] if self.rest else ""

    def sum(self, depth: int) -> Fraction:
        result = self.product(depth)
        while self._next in ("+", "-"):
            sign = self.rest.pop()
            other = self.product(depth)
            result = _small(result + other if sign == "+" else result - other)
        return result

    def product(self, depth: int) -> Fraction:
        result = self.signed(depth)
        while self._next in ("*", "/", "//", "%"):
            sign = self.rest.pop()
            other = self.signed(depth)
            if sign == "*":
                result = _small(result * other)
                continue
            if other == 0:
                raise NoResult("division by zero")
            if sign == "/":
                result = _small(result / other)
            else:
                result = _small(Fraction(result // other) if sign == "//" else result % other)
        return result

    def signed(self, depth: int) -> Fraction:
        if self._next in ("+", "-"):
            sign = self.rest.pop()
            value = self.signed(_deeper(depth))
            return -value if sign == "-" else value
        return self.power(depth)

    def power(self, depth: int) -> Fraction:
        base = self.atom(depth)
        if self._next != "**":
            return base
        self.rest.pop()
        return _power(base, self.signed(_deeper(depth)))

    def atom(self, depth: int) -> Fraction:
        if not self.rest:
            raise NoResult("the expression ends too early")
        token = self.rest.pop()
        if token == "(":
            inner = self.sum(_deeper(depth))
            if not self.rest or self.rest.pop() != ")":
                raise NoResult("a bracket is not closed")
            return inner
        if token[0] in "0123456789.":
            return Fraction(token)
        raise NoResult(f"{token!r} is not expected there")


def _deeper(depth: int) -> int:
    if depth >= DEEPEST:
        raise NoResult(f"more than {DEEPEST} levels inside of one another")
    return depth + 1


def _small(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > LARGEST:
        raise NoResult("the numbers become too large")
    return number


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NoResult("an exponent must be a whole number")
    if base == 0 and exponent < 0:
        raise NoResult("division by zero")
    if base in (0, 1, -1):
        # However large the exponent is, the result is small.
        return base ** (exponent.numerator % 2 + 2) if exponent else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > LARGEST:
        raise NoResult("the numbers become too large")
    return _small(Fraction(base**exponent.numerator))

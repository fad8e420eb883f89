"""How families word a step: the ways that several share."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*[*_#]*\s*step\s+\d+\s*[:.][*_]*\s*", re.IGNORECASE)


def bare(text: str) -> str:
    """A step without white space around it."""
    return text.strip()


def unnumbered(text: str) -> str:
    """A step without white space around it and without a "Step 3:" of its own."""
    return _NUMBER.sub("", text, count=1).strip() if _NUMBER.match(text) else text.strip()


def numbered(text: str, index: int) -> str:
    """A step as "Step 3: …", whatever number it brought; `index` is 0-based."""
    return f"Step {index + 1}: {unnumbered(text)}"

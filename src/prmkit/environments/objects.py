"""Objects of OpenEnv's environments as text; no client is needed for that."""

from __future__ import annotations

import json
from typing import Any

_NO_WORDS = ("metadata", "done", "reward", "reward_metadata")
"""Fields of OpenEnv's own, which say nothing to an agent."""


def words_of(thing: Any) -> str:
    """An action or an observation as text: its one text, or its fields as JSON.

    >>> words_of({"message": "go north", "metadata": {}})
    'go north'
    >>> words_of({"row": 1, "column": 2})
    '{"row": 1, "column": 2}'
    """
    if isinstance(thing, str):
        return thing
    fields = thing.model_dump(mode="json") if hasattr(thing, "model_dump") else dict(thing)
    told = {name: value for name, value in fields.items() if name not in _NO_WORDS}
    if len(told) == 1 and isinstance(text := next(iter(told.values())), str):
        return text
    return json.dumps(told, ensure_ascii=False)

"""A conversation with a tool, as OpenAI's API has it."""

from __future__ import annotations

ROW_WITH_CALLS = {
    "messages": [
        {"role": "user", "content": "1+1?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1, "b": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ],
    "tools": [{"type": "function", "function": {"name": "add"}}],
}

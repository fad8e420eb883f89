"""OpenRLHF's side of `test_openrlhf.py`: its own client of remote rewards, on both of its ways.

    PYTHONPATH=src .venv-verl/bin/python tests/rl/bridges/openrlhf_child.py URL FILE

The package needs a GPU's libraries on import, so the one file that speaks the protocol is loaded by
itself. The engine that would draw completions is a list of them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
import types
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS

TOKENIZER = load_tokenizer(WEIGHTS / "policy")
PROMPT = "<|problem|>Luis has 7 cards and gets 9 cards. How many cards does Luis have?<|solution|>"
TEXTS = ["So Luis has 7 + 9 = 16 cards.\nThe answer is 16.\n", "The answer is 15.\n"]


def executors():
    """The class of OpenRLHF that asks for rewards."""
    spec = importlib.util.find_spec("openrlhf")
    logs = types.ModuleType("openrlhf.utils.logging_utils")
    logs.init_logger = logging.getLogger
    for name in ("openrlhf", "openrlhf.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["openrlhf.utils.logging_utils"] = logs
    file = Path(spec.submodule_search_locations[0]) / "utils" / "agent.py"
    found = importlib.util.spec_from_file_location("openrlhf.utils.agent", file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.SingleTurnAgentExecutor


class Engine:
    """Draws the texts, one after the other."""

    def __init__(self):
        self.texts = iter(TEXTS)

    async def generate(self, ids, sampling_params, multi_modal_data=None):
        text = next(self.texts)
        drawn = [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
        output = types.SimpleNamespace(
            token_ids=drawn, finish_reason="stop", logprobs=None, text=text
        )
        return types.SimpleNamespace(outputs=[output])


async def rewards(executor_class, remote):
    executor, engine = executor_class(remote), Engine()
    sampling = types.SimpleNamespace(max_tokens=64, logprobs=None)
    found = []
    for _ in TEXTS:
        one = await executor.execute(PROMPT, "16", sampling, 512, TOKENIZER, engine)
        flat = [
            value.tolist() if hasattr(value, "tolist") else value
            for value in (one["reward"], one["scores"], one["extra_logs"].get("prm_steps"))
        ]
        found.append(flat)
    return found


def main():
    executor_class = executors()
    told = {name: asyncio.run(rewards(executor_class, [name])) for name in sys.argv[1:]}
    print("TOLD " + json.dumps(list(told.values())))


if __name__ == "__main__":
    main()

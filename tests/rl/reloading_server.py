"""A small server that loads weights as vLLM 0.32 in its development mode does; recorded from one.

Its model is real, and draws by what it loaded last. What vLLM was seen to do is done here, too:
a failed load leaves it good for nothing, and its prefix cache outlives a load.
"""

from __future__ import annotations

import math
from pathlib import Path

from fake_openai import FakeServer, RealModel, Refused


class ReloadingServer(FakeServer):
    """Serves until it is closed.

    Args:
        folder: of the model.
        dev_mode: whether it has the routes of vLLM's development mode.
        shows_ids: whether it shows the tokens that it draws.
        device: that it tells.
        deaf: loads nothing, and says that it has.
    """

    def __init__(self, folder, *, dev_mode=True, shows_ids=True, device="cuda", deaf=False, **more):
        super().__init__("vllm", folder, real=True, name="policy", **more)
        self.dev_mode, self.shows_ids, self.device, self.deaf = dev_mode, shows_ids, device, deaf
        self.loaded = []
        self.begun = 1.7956712921e09
        self.broken = False
        self.stale = False
        """Whether its prefix cache is of older weights."""
        self.busy = 0
        """So often it does not drop its prefix cache."""
        self.dies_after = math.inf
        """Requests that it answers."""

    def get(self, route):
        if route == "/metrics":
            return f"process_start_time_seconds {self.begun}\n"
        if route == "/server_info" and self.dev_mode:
            return {"vllm_config": f"model='…', device_config={self.device}, seed=0"}
        return super().get(route)

    def post(self, route, body):
        if self.dev_mode and route == "/collective_rpc":
            return self._rpc(body)
        if self.dev_mode and route == "/reset_prefix_cache":
            self.busy -= 1
            self.stale = self.stale and self.busy >= 0
            return {"success": self.busy < 0}
        self.dies_after -= 1
        if self.dies_after < 0:
            raise Refused(503, "nobody is here")
        if self.broken:
            raise Refused(500, "EngineCore encountered an issue.")
        assert not self.stale, "what is cached is of older weights"
        found = super().post(route, body)
        if body.get("echo"):
            ids = body["prompt"]
            found["choices"][0]["logprobs"] = {"token_logprobs": [None, *self._likely(ids), -1.0]}
        if not self.shows_ids:
            for choice in found["choices"]:
                choice.pop("token_ids", None)
        return found

    def _rpc(self, body):
        if "method" not in body:
            raise Refused(400, "Missing 'method' in request body")
        assert body["method"] == "reload_weights", body
        folder = Path(body["kwargs"]["weights_path"])
        if not (folder / "model.safetensors").is_file():
            self.broken = True
            raise Refused(500, f"Worker failed with error 'Repo id must use …: {str(folder)!r}'")
        self.loaded.append(folder.name)
        self.stale = True
        if not self.deaf:
            self.real = RealModel(folder)
        return {"results": [None]}

    def _likely(self, ids):
        at = range(1, len(ids))
        return self.real._policy.log_likelihoods(
            [ids[:i] for i in at], [[ids[i]] for i in at], [False for _ in at], 1.0
        )

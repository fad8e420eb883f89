"""Who draws the responses of a run: the policy in this process, or a copy of it on a server.

A voice draws with the weights that it took last. A server takes them from a folder: they are
written aside, renamed, loaded by vLLM's ``reload_weights``, and what its prefix cache holds of the
old ones is dropped. Each step's folder has a name of its own, so that no file system between the
two machines can show an older one in its place.

What a server tells is not believed where it can be seen: that the tokens which it drew are shown,
that it speaks as the policy does, that it was not begun anew with other weights.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prmkit.chat import Tokenizer, spells
from prmkit.checkpoints import load_config, load_tokenizer, quiet_transformers
from prmkit.endpoint import Endpoint, EndpointSettings, FaultyAnswer
from prmkit.errors import BackendError, BadStatus, PolicyError
from prmkit.files import whole_folder
from prmkit.policies.base import Completion, Drawn, SamplingSettings, TokenPolicy
from prmkit.policies.loading import api_key, server_root
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.wire import Answer, Capabilities, Prompt, body_of, prompt_of_ids, read_answer
from prmkit.records import Problem
from prmkit.rl.learner import Asked, Speaker
from prmkit.rl.placing import written
from prmkit.rl.voice_settings import VoiceSettings

if TYPE_CHECKING:
    from torch import Tensor

START = (
    "Start it so, on this machine or on one that sees the folder of the weights: "
    "VLLM_SERVER_DEV_MODE=1 vllm serve POLICY (vLLM 0.32 is what this is tried with). Keep its "
    "port from strangers: in this mode who reaches the server can command it"
)
RELOAD, FORGET = "/collective_rpc", "/reset_prefix_cache"
METRICS, INFO = "/metrics", "/server_info"
BEGUN = "process_start_time_seconds"
"""By this line of its metrics a server that was begun anew is known."""
IDLE_SECONDS = 60.0
"""How long a server may go on with requests that nobody waits for before its cache is dropped."""
APART = 0.25
"""Nats a token by which a server may find a text more or less likely, by other roundings."""


class Voice(TokenPolicy, Protocol):
    """Draws responses with the weights that it took last."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The policy's."""

    @property
    def end(self) -> int | None:
        """The token that ends a text; the first, where there are several."""

    def take(self, model: Any) -> None:
        """Draw with the weights of a model from now on."""


class ServedVoice(OpenAIPolicy):
    """A copy of the policy on a vLLM server.

    Args:
        settings: which server, and where weights are written.
        policy: the policy's folder.
        folder: where weights are written.
        bf16: whether they are written in bfloat16; else as they are.
        concurrency: requests under way at once, where it is another number than the settings'.
        capabilities: what the server can do, where that is known; by default it is probed.

    Raises:
        InvalidSetting: if the server's address or its API key is none.
        PolicyError: if the server cannot load weights or does not show the tokens that it draws,
            saying how to start it.
        BackendError: if it does not answer.
    """

    def __init__(
        self,
        settings: VoiceSettings,
        policy: Path,
        folder: Path,
        *,
        bf16: bool = False,
        concurrency: int | None = None,
        capabilities: Capabilities | None = None,
    ):
        assert settings.server is not None
        concurrency = concurrency or settings.concurrency
        how = EndpointSettings(
            url=server_root(settings.server),
            api_key=api_key(settings.api_key_env),
            timeout=settings.timeout,
            deadline=settings.deadline,
            attempts=settings.attempts,
            connections=concurrency,
        )
        # A server that failed to load weights is not helped by being asked again.
        self._control = Endpoint(
            EndpointSettings(
                url=how.url, api_key=how.api_key, timeout=how.timeout, deadline=how.timeout,
                attempts=1,
            )
        )  # fmt: skip
        self._can_load(policy)
        tokenizer = load_tokenizer(policy)
        super().__init__(
            Endpoint(how), settings.server_model, tokenizer=tokenizer, concurrency=concurrency,
            capabilities=capabilities,
        )  # fmt: skip
        self._words: Any = tokenizer
        self._ends = ends_of(policy, tokenizer)
        self._folder, self._bf16 = folder.resolve(), bf16
        self._seen = settings.weights_seen or str(self._folder)
        self._shows_tokens()
        self.meet()

    @property
    def tokenizer(self) -> Tokenizer:
        """See `Voice.tokenizer`."""
        found: Tokenizer = self._words
        return found

    @property
    def end(self) -> int | None:
        """See `Voice.end`."""
        return min(self._ends, default=None)

    def continue_ids(
        self,
        prefixes: Sequence[Sequence[int]],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """See `prmkit.policies.base.TokenPolicy.continue_ids`.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
            PolicyError: if one could not be drawn: a step is learnt from whole, or not at all. Or
                if the server was begun anew since it took weights.
        """
        drawn = super().continue_ids(prefixes, counts, settings, seeds, first)
        errors = [one.completion.error for of_one in drawn for one in of_one]
        error = next((told for told in errors if told is not None), None)
        if error is None and self._since() != self._begun:
            error = "it was begun anew, and draws with the weights that it was started with"
        if error is not None:
            raise PolicyError(
                f"{self._control.shown} could not draw what was asked for: {error}. When it is "
                "there again, give the same command again: the run goes on from its last "
                "checkpoint, whose weights the server then takes"
            )
        return drawn

    def take(self, model: Any) -> None:
        """See `Voice.take`. It is done when the server has loaded them.

        Raises:
            BackendError: if the server does not load them.
        """
        name = f"weights-{time.time_ns()}"
        with whole_folder(self._folder / name) as place, quiet_transformers():
            model.save_pretrained(place, state_dict=self._weights(model))
            self._words.save_pretrained(place)
            for file in place.iterdir():
                # Weights are written for their owner alone; the server may be somebody else.
                file.chmod(file.stat().st_mode | 0o444)
        told = {"method": "reload_weights", "kwargs": {"weights_path": f"{self._seen}/{name}"}}
        try:
            self._control.post(RELOAD, told)
            self._forget()
        except BackendError as error:
            raise BackendError(
                f"the server has not taken the weights at {self._seen}/{name} ({error}). Does it "
                "see that folder (--weights, --weights-seen)? After a failed load vLLM is no "
                "longer good for anything: start it again, then give the same command again"
            ) from None
        self.meet()
        for old in (*self._folder.glob("weights-*"), *self._folder.glob(".weights-*.tmp")):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def meet(self) -> None:
        """Take the server for the one that has the last weights, as it is now."""
        self._begun = self._since()

    def check(self, policy: Speaker, problem: Problem) -> None:
        """See that the server finds a question's tokens as likely as the policy does.

        Args:
            policy: as it learns, with the weights that the server took.
            problem: whose question is asked.

        Raises:
            PolicyError: if it has other weights.
        """
        prompt = self.question_ids(problem)
        can = self.capabilities
        body = body_of(can, prompt_of_ids(prompt), max_tokens=1) | {"echo": True, "logprobs": 1}
        theirs = self._endpoint.post(can.route, body, partial(_log_probs, n=len(prompt)))
        asked = Asked(tuple(prompt[:1]), tuple(prompt[1:]))
        ours, _ = policy.at(1.0).alone().read([asked], len(asked.ids))
        apart = sum(abs(a - b) for a, b in zip(ours[0].tolist(), theirs, strict=True)) / len(theirs)
        # NaN is no agreement either.
        if not apart <= APART:
            raise PolicyError(
                f"{self._control.shown} does not speak as the policy whose weights it was given: "
                f"it finds the tokens of a question {apart:.3f} nats more or less likely on "
                f"average, where {APART} are roundings. It must serve the same model as --policy, "
                "not quantised and without adapters, and load what is under --weights. Start it "
                "again, then give the same command again"
            )

    # What is asked of the server beside completions.

    def _can_load(self, policy: Path) -> None:
        """Refuse a server that cannot load weights; without a method nothing is done there."""
        try:
            self._control.post(RELOAD, {})
            there = True
        except BadStatus as error:
            if error.status not in (400, 404, 405):
                raise
            there = error.status == 400
        if not there:
            raise PolicyError(
                f"{self._control.shown} cannot load new weights: it has no {RELOAD}. {START}"
            )
        about = self._control.get(INFO).get("vllm_config")
        if "device_config=cpu" in str(about) and load_config(policy).tie_word_embeddings:
            raise PolicyError(
                "vLLM on a CPU keeps the old output layer of a model whose embeddings are its "
                "output layer too (tie_word_embeddings), whatever it loads (seen in 0.32). Serve "
                "it on a GPU, or teach a copy of the policy whose output layer is its own"
            )

    def _shows_tokens(self) -> None:
        can = self.capabilities
        if not self.takes_ids or can.route != "/v1/completions":
            raise PolicyError(
                f"{self._control.shown} takes prompts as {can.continuation} on {can.route}, not "
                f"as token ids on /v1/completions. {START}"
            )
        answer = self._ask(self.question_ids(Problem(id="", prompt="Say one, two, three.")), 4)
        if any(choice.ids is None for choice in answer.choices):
            raise PolicyError(
                f"{self._control.shown} does not show the tokens that it draws "
                f"(return_token_ids), and a text may be spelled by others. {START}"
            )

    def _ask(self, prompt: list[int], n_tokens: int) -> Answer:
        """The likeliest answer."""
        can = self.capabilities
        body = body_of(can, prompt_of_ids(prompt), max_tokens=n_tokens)
        found: Answer = self._endpoint.post(can.route, body, partial(read_answer, can))
        return found

    def _since(self) -> str | None:
        """When the server was begun, where it tells."""
        try:
            lines = self._endpoint.get_text(METRICS).splitlines()
        except BadStatus:
            return None
        return next((line for line in lines if line.startswith(BEGUN)), None)

    def _forget(self) -> None:
        """Drop keys and values of old weights; they are held as long as a request is under way."""
        limit = time.monotonic() + IDLE_SECONDS
        while self._control.post(FORGET, {}).get("success") is not True:
            if time.monotonic() > limit:
                raise BackendError(
                    f"{self._control.shown} does not drop its prefix cache: somebody else's "
                    "requests are under way there"
                )
            time.sleep(0.2)

    def _weights(self, model: Any) -> dict[str, Tensor]:
        """The weights as they are written; those that are one and the same stay so."""
        import torch

        if not self._bf16:
            found: dict[str, Tensor] = model.state_dict()
            return found
        weights = model.state_dict()
        made = {w.data_ptr(): w for w in weights.values()}
        made = {at: w.detach().to("cpu", torch.bfloat16) for at, w in made.items()}
        return {name: made[w.data_ptr()] for name, w in weights.items()}

    def _read(
        self, answer: Answer, prompt: Prompt, settings: SamplingSettings, limit: int
    ) -> list[Drawn]:
        """The completions of an answer, by the tokens that were drawn alone.

        Servers leave half a character out of their text; in this process it is drawn like all
        else. So the text is made of the tokens, as `HFPolicy` does.
        """
        if answer.prompt_tokens != len(prompt.ids or []):
            return super()._read(answer, prompt, settings, limit)
        if settings.stop:
            raise PolicyError("a voice draws whole responses, without stop texts")
        shown = [choice.ids for choice in answer.choices]
        if answer.completion_tokens != sum(len(ids or ()) for ids in shown):
            raise PolicyError(
                f"{self._control.shown} counts {answer.completion_tokens} tokens and shows "
                f"{[None if ids is None else len(ids) for ids in shown]}"
            )
        return [
            self._drawn(choice.ids or (), ended=choice.finish == "stop")
            for choice in answer.choices
        ]

    def _drawn(self, ids: tuple[int, ...], *, ended: bool) -> Drawn:
        end, text_ids = None, list(ids)
        if ended:
            end = text_ids.pop() if text_ids else None
            if end not in self._ends:
                raise PolicyError(
                    f"{self._control.shown} ended a text with the token {end}, which the policy's "
                    f"folder does not name as an end ({sorted(self._ends)}): it serves another "
                    "model, or with another generation_config"
                )
        text = written(self._words, text_ids)
        exact = spells(self._words, text_ids, text)
        completion = Completion(text, "eos" if ended else "length", len(ids))
        return Drawn(completion, tuple(text_ids) if exact else None, end=end)


def ends_of(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that end a text of a model, as `prmkit.policies.hf.HFPolicy` has them."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    else:
        ends = load_config(folder).eos_token_id
    if ends is None:
        ends = getattr(tokenizer, "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [ends]) - {None}


def _log_probs(answer: Mapping[str, Any], n: int) -> list[float]:
    """Of the tokens of a prompt but the first, in an answer that repeats it."""
    try:
        found = answer["choices"][0]["logprobs"]["token_logprobs"][1:n]
        if len(found) == n - 1:
            return [float(value) for value in found]
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise FaultyAnswer("the answer does not tell how likely the tokens of the prompt are")

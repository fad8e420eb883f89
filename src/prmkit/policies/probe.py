"""Finds out what an OpenAI-compatible server can do, by asking it.

Nothing is believed that can be seen: a field that a server does not know is often ignored without
a word, a trailing answer may be turned into a question, a seed may be kept only while nobody else
asks. What cannot be done is left out, and how each thing was found out is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from prmkit.chat import Tokenizer, encode_question, encode_text
from prmkit.endpoint import Endpoint
from prmkit.errors import (
    BackendError,
    BadStatus,
    CheckpointError,
    InvalidRecord,
    PolicyError,
    RequestRefused,
    UnknownName,
)
from prmkit.policies.parallel import in_threads
from prmkit.policies.wire import (
    Answer,
    Capabilities,
    Continuation,
    Prompt,
    Route,
    body_of,
    prompt_of,
    read_answer,
)
from prmkit.records import Problem

logger = logging.getLogger(__name__)

QUESTIONS = tuple(
    Problem(id=f"probe-{i}", prompt=text)
    for i, text in enumerate(
        (
            "Count from one to thirty in words, each number on a line of its own.",
            "Mia has 12 apples. Mia gets 5 apples from Ruth. Ben has 2 times as many apples as "
            "Mia. How many apples does Ben have now? Think step by step.",
            "Tell a long story about a river, a bridge and an old man.",
        )
    )
)
HEAD, WHOLE = 8, 24
"""Tokens of a partial answer, and of the answer that it must go on to."""

NEUTRAL: dict[Route, dict[str, Any]] = {
    # vLLM takes the rest of a model's generation_config.json for what is not said, llama.cpp its
    # own habits (top_k 40, min_p 0.05): either draws from another distribution than was asked for.
    "/v1/completions": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    | {"return_token_ids": True},
    "/v1/chat/completions": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    | {"return_token_ids": True},
    "/completion": {"top_k": -1, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": True}
    | {"return_tokens": True},
}
"""Fields that turn off what nobody asked for, and that show token ids; sent where taken."""

KEEP_STOP = ("include_stop_str_in_output", "no_stop_trim")
"""Fields by which vLLM and SGLang keep a stop text."""

SHORT = "its greedy answers are too short to tell"
REASON = 160
"""Characters of a server's own words that are told."""

SEEDS = (11, 12, 13, 11, 14, 11)
"""Seeds of requests that are under way together; some come again."""


class _Draw(NamedTuple):
    """Draws completions of a prompt; what is not said is greedy."""

    endpoint: Endpoint
    tokenizer: Tokenizer | None

    def __call__(
        self,
        can: Capabilities,
        problem: Problem,
        so_far: str = "",
        *,
        max_tokens: int = WHOLE,
        **sampling: Any,
    ) -> Answer:
        prompt = prompt_of(can, self.tokenizer, problem, [so_far] if so_far else [])
        body = body_of(can, prompt, max_tokens=max_tokens, **sampling)
        answer: Answer = self.endpoint.post(can.route, body, partial(read_answer, can, n=None))
        return answer


def probe(
    endpoint: Endpoint,
    model: str | None = None,
    tokenizer: Tokenizer | None = None,
    concurrency: int = len(SEEDS),
) -> Capabilities:
    """Find out what a server can do; about thirty short requests.

    Args:
        endpoint: the server.
        model: the name under which it serves the model; by default the only one that it lists.
        tokenizer: the model's; with it prompts can go as token ids or as text.
        concurrency: requests under way at once at most.

    Raises:
        PolicyError: if it draws no completion in any way, or the tokenizer is of another model.
        UnknownName: if it lists other models than the one named.
        BackendError: if it does not answer.
    """
    can = _introduce(endpoint, model)
    draw = _Draw(endpoint, tokenizer)
    can = _way(draw, can)
    can = _fields(draw, can)
    can = _stop_texts(draw, can)
    if can.route == "/v1/completions" and not (can.keeps_stop or can.tells_stop):
        can = _llama_cpp(draw, can)
    can = _chance(draw, can, concurrency)
    can = _several(draw, can)
    return _counts(draw, can)


def _told(can: Capabilities, name: str, how: str, **found: Any) -> Capabilities:
    logger.debug("%s: %s", name, how)
    return replace(can, how={**can.how, name: how}, **found)


def _introduce(endpoint: Endpoint, model: str | None) -> Capabilities:
    """The model's name, the server's, and the length of its context."""
    listed = _listed(endpoint)
    names = [str(m["id"]) for m in listed]
    if model is None:
        if len(names) != 1:
            raise PolicyError(
                f"{endpoint.shown} lists {len(names)} models{': ' * bool(names)}"
                f"{', '.join(names[:8])}; say which one it is to be"
            )
        (model,) = names
    about = next((m for m in listed if m["id"] == model), {})
    can = Capabilities(model=model)
    owner, version = about.get("owned_by"), None
    with contextlib.suppress(BackendError):
        version = endpoint.get("/version").get("version")
    if isinstance(owner, str):
        server = f"{owner} {version}" if isinstance(version, str) else owner
        can = _told(can, "server", "from /v1/models and /version", server=server)
    for name in ("max_model_len", "n_ctx"):
        meta = about.get("meta")
        size = about.get(name, meta.get(name) if isinstance(meta, dict) else None)
        if isinstance(size, int) and size > 0:
            return _told(can, "context", f"{name} in /v1/models", context=size)
    return _props(endpoint, can)


def _props(endpoint: Endpoint, can: Capabilities) -> Capabilities:
    """The context of a llama.cpp server."""
    try:
        found = endpoint.get("/props").get("default_generation_settings")
    except BackendError:
        return can
    size = found.get("n_ctx") if isinstance(found, dict) else None
    if not isinstance(size, int) or size <= 0:
        return can
    return _told(can, "context", "n_ctx in /props", context=size)


def _way(draw: _Draw, can: Capabilities) -> Capabilities:
    """How a partial answer is continued: the first way that does so, the most exact ones first."""
    refused: dict[str, str] = {}
    raw = replace(can, route="/v1/completions")
    _same_words(draw, raw)
    ways: list[tuple[str, Capabilities]] = []
    if draw.tokenizer is not None:
        ways += [
            ("token ids", replace(raw, continuation="token_ids")),
            ("text", replace(raw, continuation="text", fields={"add_special_tokens": False})),
            ("text", replace(raw, continuation="text", server_begins=True)),
            ("text", replace(raw, continuation="text")),
        ]
    else:
        refused["token ids, text"] = "no tokenizer was given"
    for name, way in ways:
        reason = _continues(draw, way)
        if reason is None:
            return _told(way, "continuation", f"as {name}: {_proof(way)}")
        refused[name] = reason
    chat, reason = _chat(draw, can)
    if chat is None:
        raise _unlisted(draw.endpoint, can.model) or PolicyError(
            f"{draw.endpoint.shown} draws no completion of {can.model!r}: "
            + "; ".join(f"by {k}: {v}" for k, v in {**refused, "chat": reason}.items())
        )
    flags: tuple[Continuation, ...] = ("prefill", "continue_final_message", "prefix")
    for flag in flags:
        way = replace(chat, continuation=flag)
        reason = _continues(draw, way)
        if reason is None:
            return _told(way, "continuation", f"chat: {_proof(way)}")
        refused[flag] = reason
    return _told(chat, "continuation", "; ".join(f"{k}: {v}" for k, v in refused.items()))


def _proof(way: Capabilities) -> str:
    if way.route == CHAT:
        return "a greedy answer went on as it had from its beginning"
    return "its prompts had as many tokens as here, and no greedy answer went on otherwise"


CHAT: Route = "/v1/chat/completions"


def _chat(draw: _Draw, can: Capabilities) -> tuple[Capabilities | None, str]:
    """The chat route for whole answers, with the name of its limit; or why not."""
    reason = ""
    for limit in ("max_tokens", "max_completion_tokens"):
        way = replace(can, route=CHAT, limit=limit)
        try:
            draw(way, QUESTIONS[0], max_tokens=HEAD)
        except (RequestRefused, BackendError) as error:
            reason = str(error)
            if not isinstance(error, RequestRefused):
                break
            continue
        return way, ""
    return None, reason


def _continues(draw: _Draw, way: Capabilities) -> str | None:
    """None if a partial answer is continued; else what was seen instead."""
    reason = SHORT
    for problem in QUESTIONS:
        try:
            head = draw(way, problem, max_tokens=HEAD)
            counted = _counted(draw, way, problem, "", head.prompt_tokens)
            if counted is not None:
                return counted
            whole = draw(way, problem)
            said = head.choices[0].text
            rest = whole.choices[0].text[len(said) :]
            if (
                not rest
                or not whole.choices[0].text.startswith(said)
                or not _whole(draw, way, head)
            ):
                continue
            after = draw(way, problem, said, max_tokens=WHOLE - HEAD)
            if way.route == CHAT:
                counted = _chat_counts(draw, way, problem, said, head, after)
            else:
                counted = _counted(draw, way, problem, said, after.prompt_tokens)
        except (BackendError, CheckpointError, InvalidRecord, PolicyError) as error:
            return str(error)[:REASON]
        if counted is not None:
            return counted
        text = after.choices[0].text
        if text and (text.startswith(rest) or rest.startswith(text)):
            return None
        reason = f"after {said!r} it went on with {text[:40]!r} instead of {rest[:40]!r}"
    if way.continuation == "token_ids" and reason == SHORT:
        # Ids of the same tokenizer, counted one by one, leave nothing to be mistaken for.
        return None
    return reason


def _whole(draw: _Draw, way: Capabilities, head: Answer) -> bool:
    """Whether a partial answer is text that becomes the tokens again that it was."""
    said = head.choices[0].text
    if not said.strip() or "\ufffd" in said:
        return False
    if way.route == CHAT or draw.tokenizer is None or head.completion_tokens is None:
        return True
    return len(encode_text(draw.tokenizer, said)) == head.completion_tokens


def _same_words(draw: _Draw, way: Capabilities) -> None:
    """See that the server's tokenizer is the one here, as far as it takes text.

    Raises:
        PolicyError: if it is of another model.
    """
    if draw.tokenizer is None:
        return
    for problem in QUESTIONS:
        ids = encode_text(draw.tokenizer, problem.text)
        body = body_of(way, Prompt(None, problem.text, [], False), max_tokens=1)
        try:
            answer = draw.endpoint.post(
                way.route, {**body, "prompt": problem.text}, partial(read_answer, way, n=None)
            )
        except BackendError:
            # A server may take no raw text.
            return
        # With or without a token that begins every text.
        if answer.prompt_tokens not in (None, len(ids), len(ids) + 1):
            raise PolicyError(
                f"{draw.endpoint.shown} makes {answer.prompt_tokens} tokens of a question where "
                f"the tokenizer here makes {len(ids)}: it is of another model than {way.model!r}. "
                "Give the model's own tokenizer, or none"
            )


def _counted(
    draw: _Draw, way: Capabilities, problem: Problem, said: str, seen: int | None
) -> str | None:
    """What is wrong with the number of tokens that a raw prompt had for the server."""
    if way.route == CHAT:
        return None
    ids = prompt_of(way, draw.tokenizer, problem, [said] if said else []).ids or []
    if seen == len(ids):
        return None
    return f"it read {seen} tokens where the tokenizer here makes {len(ids)}"


def _chat_counts(
    draw: _Draw, way: Capabilities, problem: Problem, said: str, head: Answer, after: Answer
) -> str | None:
    """What the number of tokens says against a continued chat."""
    before, now = head.prompt_tokens, after.prompt_tokens
    if before is None or now is None:
        return "it does not count tokens, so it cannot be seen whether it continues"
    n_said = HEAD if head.completion_tokens is None else head.completion_tokens
    if not before < now <= before + n_said:
        return (
            f"{n_said} tokens of an answer made its prompt {now - before} tokens longer: they "
            "were not continued but closed, or taken for another turn"
        )
    longer = draw(way, problem, said + "\n\n", max_tokens=1)
    if longer.prompt_tokens == now:
        return "it trims line ends from the end of a partial answer"
    return None


def _fields(draw: _Draw, can: Capabilities) -> Capabilities:
    """Which fields beyond OpenAI's it takes."""

    def takes(fields: Mapping[str, Any]) -> bool:
        try:
            draw(replace(can, fields={**can.fields, **fields}), QUESTIONS[0], max_tokens=1)
        except RequestRefused:
            return False
        return True

    wanted = NEUTRAL[can.route]
    if not takes(wanted):
        wanted = {name: value for name, value in wanted.items() if takes({name: value})}
    left_out = sorted(NEUTRAL[can.route].keys() - wanted.keys())
    how = "taken without complaint"
    if left_out:
        how += f"; refused: {', '.join(left_out)}, so what it has for them by itself stays"
    return _told(can, "fields", how, fields={**can.fields, **wanted})


def _stop_texts(draw: _Draw, can: Capabilities) -> Capabilities:
    """Whether a stop text stays in the text, and whether it is told."""
    problem, text, stop = _a_stop_text(draw, can)
    if not stop:
        return _told(can, "keeps_stop", SHORT)
    told = False
    for name in ("", *KEEP_STOP):
        way = replace(can, fields={**can.fields, **({name: True} if name else {})})
        try:
            choice = draw(way, problem, stop=[stop]).choices[0]
        except RequestRefused:
            continue
        told = told or choice.matched == stop
        if stop in choice.text:
            how = f"{stop!r} stayed at the end" + (f" with {name}" if name else "")
            if choice.text == text and len(text) > text.index(stop) + 1:
                how = f"{stop!r} did not end the text; it is cut here"
            way = _told(way, "keeps_stop", how, keeps_stop=True, tells_stop=told)
            return _told(way, "tells_stop", f"it said {choice.matched!r} of {stop!r}")
    can = _told(can, "keeps_stop", f"{stop!r} was cut off, by whatever field")
    how = "it named the stop text" if told else "a stop text and an end look alike"
    return _told(can, "tells_stop", how, tells_stop=told)


def _a_stop_text(draw: _Draw, can: Capabilities) -> tuple[Problem, str, str]:
    """A problem, its greedy answer, and a character that first comes within."""
    for problem in QUESTIONS:
        text = draw(can, problem).choices[0].text
        for at in range(2, len(text) - 1):
            if text.find(text[at]) == at and text[at].isprintable() and text[at] != "�":
                return problem, text, text[at]
    return QUESTIONS[0], "", ""


def _llama_cpp(draw: _Draw, can: Capabilities) -> Capabilities:
    """llama.cpp's own route, which tells what its OpenAI routes do not; or what there was."""
    own = replace(can, route="/completion", limit="n_predict", fields={})
    if _continues(draw, own) is not None:
        return can
    own = _stop_texts(draw, _fields(draw, own))
    return own if own.tells_stop else can


def _chance(draw: _Draw, can: Capabilities, concurrency: int) -> Capabilities:
    """Whether temperature and seeds have an effect, the latter with others under way too."""
    reason = ""
    for temperature in (1.5, 1.0):
        text = partial(_heated, draw, can, temperature)
        try:
            texts = in_threads(text, SEEDS, concurrency) + [text(seed) for seed in SEEDS[:2]]
        except RequestRefused as error:
            reason = str(error)[:REASON]
            continue
        different = len(set(texts))
        if different == 1:
            how = (
                f"at temperature {temperature} {len(set(SEEDS))} seeds gave one text. A server "
                "that takes do_sample from the model's generation_config.json needs it to be true "
                "there"
            )
            return _told(can, "samples", how)
        how = f"at temperature {temperature} {len(set(SEEDS))} seeds gave {different} texts"
        can = _told(can, "samples", how, samples=True)
        of_seed: dict[int, set[str]] = {}
        for seed, said in zip([*SEEDS, *SEEDS[:2]], texts, strict=True):
            of_seed.setdefault(seed, set()).add(said)
        most = max(map(len, of_seed.values()))
        if most == 1:
            how = "one seed gave one text, alone and beside others"
            return _told(can, "seed", how, seed=True)
        return _told(can, "seed", f"one seed gave {most} texts, alone and beside others")
    return _chance_unseeded(draw, can, reason)


def _heated(draw: _Draw, can: Capabilities, temperature: float, seed: int) -> str:
    return draw(can, QUESTIONS[2], temperature=temperature, seed=seed).choices[0].text


def _chance_unseeded(draw: _Draw, can: Capabilities, reason: str) -> Capabilities:
    """The same for a server that refuses seeds."""
    can = _told(can, "seed", f"refused: {reason}")
    try:
        texts = {
            draw(can, QUESTIONS[2], temperature=1.0).choices[0].text for _ in range(len(SEEDS))
        }
    except RequestRefused as error:
        return _told(can, "samples", f"temperature is refused: {str(error)[:REASON]}")
    how = f"at temperature 1 {len(SEEDS)} requests gave {len(texts)} texts"
    return _told(can, "samples", how, samples=len(texts) > 1)


def _several(draw: _Draw, can: Capabilities) -> Capabilities:
    """Whether one request may ask for several completions, and which ones come."""
    if not can.samples:
        return can
    seed = SEEDS[0] if can.seed else None
    try:
        choices = draw(can, QUESTIONS[2], n=2, temperature=1.0, seed=seed).choices
    except RequestRefused as error:
        return _told(can, "n", f"refused: {str(error)[:REASON]}")
    if len(choices) != 2:
        return _told(can, "n", f"{len(choices)} came where 2 were asked for")
    can = _told(can, "n", "2 came where 2 were asked for", n=True)
    if not can.seed:
        return can
    single = [_heated(draw, can, 1.0, SEEDS[0] + i) for i in range(2)]
    if [c.text for c in choices] != single:
        return _told(can, "n_seeds", "they are not those of single requests")
    if any(c.ids is None for c in choices):
        return _told(can, "n_seeds", "they are those of single requests, but not counted each")
    how = "they are those of single requests with seeds counted up"
    return _told(can, "n_seeds", how, n_seeds=True)


def _counts(draw: _Draw, can: Capabilities) -> Capabilities:
    """Token counts, cached ones, log-probabilities."""
    long = Problem(id="probe-long", prompt=" ".join(q.text for q in QUESTIONS) * 2)
    if can.context is not None and draw.tokenizer is not None:
        fits = len(encode_question(draw.tokenizer, long)) < can.context - 1
        long = long if fits else QUESTIONS[0]
    draw(can, long, max_tokens=1)
    second = draw(can, long, max_tokens=1)
    counted = second.prompt_tokens is not None and second.completion_tokens is not None
    can = _told(can, "usage", "counted" if counted else "not counted", usage=counted)
    if second.cached_tokens is not None:
        how = f"{second.cached_tokens} of {second.prompt_tokens} when a prompt came again"
        can = _told(can, "cached_tokens", how, cached_tokens=True)
    asks: dict[Route, dict[str, Any]] = {
        "/v1/completions": {"logprobs": 1},
        "/v1/chat/completions": {"logprobs": True, "top_logprobs": 1},
        "/completion": {"n_probs": 1},
    }
    body = body_of(can, prompt_of(can, draw.tokenizer, QUESTIONS[0], []), max_tokens=1)
    try:
        found = draw.endpoint.post(can.route, {**body, **asks[can.route]}, _log_probs)
    except RequestRefused as error:
        return _told(can, "logprobs", f"refused: {str(error)[:REASON]}")
    return _told(can, "logprobs", "given" if found else "not given", logprobs=found)


def _log_probs(answer: dict[str, Any]) -> bool:
    if answer.get("completion_probabilities"):
        return True
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and bool(first.get("logprobs"))


def _unlisted(endpoint: Endpoint, model: str) -> UnknownName | None:
    """What is wrong with a model's name, where the server lists others and not this one."""
    names = [str(m["id"]) for m in _listed(endpoint)]
    return None if model in names or not names else UnknownName("served model", model, names)


def _listed(endpoint: Endpoint) -> list[Mapping[str, Any]]:
    """What a server says of its models; nothing where it does not say.

    Raises:
        RequestRefused: if it wants another API key.
    """
    try:
        data = endpoint.get("/v1/models").get("data")
    except BadStatus as error:
        if error.status in (401, 403):
            raise
        return []
    models = data if isinstance(data, list) else []
    return [m for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)]

"""The laws of prmkit's interfaces, as functions that anyone can put into their own tests.

Each law is a function of its own; `SCORER_LAWS`, `POLICY_LAWS`, `BENCHMARK_LAWS`, `SEARCH_LAWS`
and `ENVIRONMENT_LAWS` list them, so that a test can give each an id. `check_scorer`,
`check_policy`, `check_benchmark`, `check_search` and `check_environment` run them all.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence

from prmkit.environments.laws import ENVIRONMENT_LAWS, check_environment
from prmkit.errors import LawBroken, NothingToMeasure
from prmkit.evaluation.cases import Benchmark, Case, check_content, constant_scores
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.policies.base import Completion, Drawn, Policy, SamplingSettings, TokenPolicy
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.base import PrefixScorer, Scorer
from prmkit.search.laws import SEARCH_LAWS, check_search
from prmkit.tiny_checkpoints import tiny_checkpoint

__all__ = [
    "BENCHMARK_LAWS",
    "ENVIRONMENT_LAWS",
    "POLICY_LAWS",
    "SCORER_LAWS",
    "SEARCH_LAWS",
    "UGLY_TEXTS",
    "LawBroken",
    "check_benchmark",
    "check_environment",
    "check_policy",
    "check_scorer",
    "check_search",
    "tiny_checkpoint",
    "ugly_trajectories",
]

UGLY_TEXTS = (
    "",
    " ",
    "\n",
    "\n\n\n",
    "a\nb\n\nc",
    "  leading and trailing  ",
    "\u2028\u2029\x85\x0b\x0c",
    "\x00\x1f",
    "日本語で解く。",
    "e\u0301 \u200d👩‍👩‍👧 \U0001f9ee",
    "שלום עולם ١٢٣",
    "<|end|> <|im_end|> </s> <s> [INST] <extra_0> <|endoftext|>",
    "ки \n\n\n\n + - <think> </think> <|problem|><|solution|>",
    "\\boxed{1} $x^2$ ```python\nprint(1)\n```",
    "1 2 3 " * 20,
)
"""Texts at the corners: empty, blank, line ends, scripts, markup of many models."""


def ugly_trajectories() -> list[Trajectory]:
    """Trajectories made of `UGLY_TEXTS`: none, one, and many steps, in question and steps."""
    many = tuple(Step(text=text) for text in UGLY_TEXTS)
    plain = Problem(id="plain", prompt="What is 1 + 1?")
    return [
        Trajectory(problem=plain),
        Trajectory(problem=plain, steps=many),
        *(
            Trajectory(problem=Problem(id=f"ugly-{i}", prompt=text), steps=(Step(text=text),))
            for i, text in enumerate(UGLY_TEXTS)
        ),
        *(
            Trajectory(problem=plain, steps=(Step(text="1 + 1 = 2"), Step(text=text)) * 2)
            for text in UGLY_TEXTS[:6]
        ),
    ]


def _same(left: StepScores | Unscored, right: StepScores | Unscored, tolerance: float) -> bool:
    if isinstance(left, StepScores) and isinstance(right, StepScores):
        return len(left.values) == len(right.values) and all(
            abs(a - b) <= tolerance for a, b in zip(left.values, right.values, strict=True)
        )
    return type(left) is type(right)


def _expect(holds: bool, law: str, detail: str) -> None:
    if not holds:
        raise LawBroken(f"{law}: {detail}")


def scores_match_steps(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """As many results as trajectories, as many scores as steps, finite, as declared."""
    results = scorer.score(trajectories)
    _expect(
        len(results) == len(trajectories),
        "one result per trajectory",
        f"{len(results)} results for {len(trajectories)} trajectories",
    )
    for trajectory, result in zip(trajectories, results, strict=True):
        if isinstance(result, Unscored):
            _expect(bool(result.reason), "Unscored says why", repr(result))
            continue
        _expect(
            len(result.values) == len(trajectory.steps),
            "as many scores as steps",
            f"{len(result.values)} scores for {len(trajectory.steps)} steps of "
            f"{trajectory.problem.id!r}",
        )
        _expect(all(map(math.isfinite, result.values)), "finite scores", repr(result.values))
        _expect(
            result.semantics == scorer.semantics,
            "declared semantics",
            f"{result.semantics!r} instead of {scorer.semantics!r}",
        )


def batch_equals_one_by_one(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """A trajectory's scores do not depend on what else is in the batch, nor on the order."""
    together = scorer.score(trajectories)
    backwards = scorer.score(list(reversed(trajectories)))[::-1]
    for i, trajectory in enumerate(trajectories):
        (alone,) = scorer.score([trajectory])
        for how, other in (("in a batch", together[i]), ("in reverse order", backwards[i])):
            _expect(
                _same(alone, other, 1e-5),
                "batch equals one by one",
                f"{trajectory.problem.id!r} alone {alone!r}, {how} {other!r}",
            )


def deterministic(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """Twice the same input, twice the same scores."""
    first, second = scorer.score(trajectories), scorer.score(trajectories)
    _expect(first == second, "deterministic", f"{first!r} then {second!r}")


def appending_keeps_earlier(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """The score of a step does not depend on later steps (for causal models)."""
    for trajectory in trajectories:
        (whole,) = scorer.score([trajectory])
        if isinstance(whole, Unscored):
            continue
        for n in range(len(trajectory.steps)):
            (part,) = scorer.score([trajectory.prefix(n)])
            cut = whole.model_copy(update={"values": whole.values[:n]})
            _expect(
                _same(part, cut, 1e-5),
                "appending a step keeps earlier scores",
                f"{trajectory.problem.id!r}: the first {n} steps alone {part!r}, within {whole!r}",
            )


def survives_pickling(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """A scorer can be sent to another process."""
    copy: Scorer = pickle.loads(pickle.dumps(scorer))
    for left, right in zip(scorer.score(trajectories), copy.score(trajectories), strict=True):
        # Weights at other addresses may be summed in another order.
        _expect(_same(left, right, 1e-5), "survives pickling", f"{left!r}, its copy {right!r}")


def extending_equals_scoring(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """A scorer that keeps prefixes gives each step the score that the whole pass gives it."""
    if not isinstance(scorer, PrefixScorer) or not scorer.extends:
        return
    for trajectory in trajectories:
        (whole,) = scorer.score([trajectory])
        if isinstance(whole, Unscored):
            continue
        state = scorer.start(trajectory.problem)
        if trajectory.steps:
            (together,), _ = scorer.extend_by([state], [trajectory.steps])
            _expect(
                len(together) == len(whole.values)
                and all(abs(a - b) <= 1e-5 for a, b in zip(together, whole.values, strict=True)),
                "extending by several steps equals scoring",
                f"{trajectory.problem.id!r}: {together!r}, {whole.values!r} in the whole pass",
            )
        for index, step in enumerate(trajectory.steps):
            # Twice from the same state: a state may be gone on from more than once.
            scores, states = scorer.extend([state, state], [step, step])
            _expect(
                all(abs(score - whole.values[index]) <= 1e-5 for score in scores),
                "extending equals scoring",
                f"step {index} of {trajectory.problem.id!r}: {scores!r} by extending, "
                f"{whole.values[index]!r} in the whole pass",
            )
            state = states[1]


def empty_batch(scorer: Scorer, trajectories: Sequence[Trajectory]) -> None:
    """No trajectory, no result."""
    del trajectories
    _expect(scorer.score([]) == [], "an empty batch", repr(scorer.score([])))


ScorerLaw = Callable[[Scorer, Sequence[Trajectory]], None]
SCORER_LAWS: tuple[ScorerLaw, ...] = (
    empty_batch,
    scores_match_steps,
    batch_equals_one_by_one,
    deterministic,
    appending_keeps_earlier,
    extending_equals_scoring,
    survives_pickling,
)


def check_scorer(scorer: Scorer, trajectories: Sequence[Trajectory] | None = None) -> None:
    """Run every law of `Scorer`; raises `LawBroken` on the first that fails."""
    for law in SCORER_LAWS:
        law(scorer, ugly_trajectories() if trajectories is None else trajectories)


def _prefixes() -> list[Trajectory]:
    problem = Problem(id="p", prompt="Mia has 12 apples. Mia finds 5 more. How many now?")
    other = Problem(id="q", prompt="Ben has 3 pens. How many pens does Ben have?")
    return [
        Trajectory(problem=problem),
        Trajectory(problem=other),
        Trajectory(problem=problem, steps=(Step(text="Now Mia has 12 + 5 = 17 apples.\n"),)),
        Trajectory(problem=Problem(id="r", prompt=UGLY_TEXTS[11])),
    ]


def completions_match_requests(policy: Policy) -> None:
    """`n` completions for each prefix, none longer than asked for."""
    prefixes = _prefixes()
    settings = SamplingSettings(max_new_tokens=12)
    for n in (1, 3):
        drawn = policy.complete(prefixes, n, settings, list(range(len(prefixes))))
        _expect(
            [len(of_prefix) for of_prefix in drawn] == [n] * len(prefixes),
            "n completions of each prefix",
            f"asked for {n}, got {[len(of_prefix) for of_prefix in drawn]}",
        )
        longest = max(c.n_tokens for of_prefix in drawn for c in of_prefix)
        _expect(longest <= 12, "max_new_tokens", f"{longest} tokens drawn, 12 allowed")
    _expect(policy.complete([], 2, settings, []) == [], "an empty batch", "gave something")


def same_seed_same_words(policy: Policy) -> None:
    """A completion depends on prefix, seed and number alone; other seeds give other words."""
    prefixes = _prefixes()
    settings = SamplingSettings(max_new_tokens=40)
    together = policy.complete(prefixes, 4, settings, [5, 6, 7, 8])
    for i, prefix in enumerate(prefixes):
        alone = policy.complete([prefix], 4, settings, [5 + i])
        _expect(
            alone[0] == together[i],
            "the batch does not matter",
            f"prefix {i} alone {alone[0]!r}, together {together[i]!r}",
        )
        fewer = policy.complete([prefix], 2, settings, [5 + i])
        _expect(
            fewer[0] == alone[0][:2],
            "the number of completions does not matter",
            f"prefix {i}: {fewer[0]!r} of 2, {alone[0]!r} of 4",
        )
        later = policy.complete([prefix], 2, settings, [5 + i], [2])
        _expect(
            later[0] == alone[0][2:],
            "completions can be asked for later",
            f"prefix {i}: {later[0]!r} from number 2, {alone[0]!r} of 4",
        )
    others = policy.complete(prefixes, 4, settings, [105, 106, 107, 108])
    _expect(others != together, "other seeds give other words", "all completions are equal")


def stops_where_told(policy: Policy) -> None:
    """A completion that ends by a stop text ends in it, and has no other before it."""
    settings = SamplingSettings(max_new_tokens=64, stop=("\n", "="))
    for of_prefix in policy.complete(_prefixes(), 3, settings, [1, 2, 3, 4]):
        for completion in of_prefix:
            inner = completion.text[:-1] if completion.finish == "stop" else completion.text
            _expect(
                "\n" not in inner and "=" not in inner,
                "ends at the first stop text",
                repr(completion),
            )
            if completion.finish == "stop":
                _expect(
                    completion.text.endswith(("\n", "=")), "keeps the stop text", repr(completion)
                )


def greedy_is_one_answer(policy: Policy) -> None:
    """At temperature 0 all completions of a prefix are equal, whatever the seed."""
    settings = SamplingSettings(temperature=0, max_new_tokens=30)
    drawn = policy.complete(_prefixes(), 3, settings, [1, 2, 3, 4])
    again = policy.complete(_prefixes(), 3, settings, [9, 9, 9, 9])
    for first, second in zip(drawn, again, strict=True):
        _expect(len({*first, *second}) == 1, "greedy is one answer", f"{first!r}, {second!r}")


def _of_ids(policy: Policy) -> tuple[TokenPolicy, list[list[int]]] | None:
    """A policy that goes on from tokens, and those of the prefixes; None where it does not."""
    if not isinstance(policy, TokenPolicy) or not policy.takes_ids:
        return None
    return policy, [_ids_of(policy, prefix) for prefix in _prefixes()]


def _ids_of(policy: TokenPolicy, prefix: Trajectory) -> list[int]:
    ids = list(policy.question_ids(prefix.problem))
    for step in prefix.steps:
        ids += policy.text_ids(step.text)
    return ids


def _said(drawn: Sequence[Sequence[Drawn]]) -> list[list[tuple[Completion, object]]]:
    """What was drawn, without what was read for it."""
    return [[(one.completion, one.ids) for one in of_prefix] for of_prefix in drawn]


def ids_equal_texts(policy: Policy) -> None:
    """From the tokens of a prefix come the completions that come from the prefix."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    settings = SamplingSettings(max_new_tokens=30, stop=("\n",))
    there = tokens.complete(_prefixes(), 3, settings, [5, 6, 7, 8])
    here = tokens.continue_ids(ids, [3] * len(ids), settings, [5, 6, 7, 8])
    for i, (left, right) in enumerate(zip(there, here, strict=True)):
        drawn = [one.completion for one in right]
        _expect(left == drawn, "ids equal texts", f"prefix {i}: {left!r}, from ids {drawn!r}")


def ids_spell_the_text(policy: Policy) -> None:
    """The ids of a completion are its tokens without the end token, and its text is theirs."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    law = "the ids spell the text"
    shorter: list[Drawn] = []
    for limit in (1, 2, 5, 30):
        settings = SamplingSettings(max_new_tokens=limit)
        of_all = tokens.continue_ids(ids, [8] * len(ids), settings, [5, 6, 7, 8])
        drawn = [one for of_prefix in of_all for one in of_prefix]
        for n, one in enumerate(drawn):
            if one.ids is None or one.completion.finish == "error":
                continue
            n_tokens = one.completion.n_tokens - (one.completion.finish == "eos")
            _expect(len(one.ids) == n_tokens, law, f"{len(one.ids)} ids of {one.completion!r}")
            # A character of several tokens may be cut off.
            whole = "\ufffd" not in one.completion.text
            encoded = tuple(tokens.text_ids(one.completion.text))
            if limit == 1 and len(encoded) == 1 and whole:
                _expect(one.ids == encoded, law, f"{one!r}, but its text is {encoded}")
            before = shorter[n] if shorter else Drawn(Completion("", "length", 0), ())
            if before.ids is not None:
                same = one.ids[: len(before.ids)] == before.ids
                _expect(same, law, f"{one!r} does not begin with {before!r}")
                if "\ufffd" not in before.completion.text:
                    same = one.completion.text.startswith(before.completion.text)
                    _expect(same, law, f"{one!r} does not begin with {before!r}")
        shorter = drawn


def ids_go_on_as_texts_do(policy: Policy) -> None:
    """From a prefix and the ids of a completion comes what comes from its text, read anew."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    prefixes = _prefixes()
    drawn = tokens.continue_ids(
        ids, [6] * len(ids), SamplingSettings(max_new_tokens=4), [5, 6, 7, 8]
    )
    texts: list[Trajectory] = []
    longer: list[list[int]] = []
    for prefix, before, of_prefix in zip(prefixes, ids, drawn, strict=True):
        for one in of_prefix:
            text = one.completion.text
            # Where the text is encoded in another way, other tokens are read.
            if text and one.ids == tuple(tokens.text_ids(text)):
                step = Step(text=text)
                texts.append(prefix.model_copy(update={"steps": (*prefix.steps, step)}))
                longer.append([*before, *one.ids])
    settings, seeds = SamplingSettings(max_new_tokens=12), list(range(len(longer)))
    there = tokens.complete(texts, 2, settings, seeds)
    here = tokens.continue_ids(longer, [2] * len(longer), settings, seeds)
    for left, right, prefix in zip(there, here, texts, strict=True):
        _expect(
            left == [one.completion for one in right],
            "ids go on as texts do",
            f"after {prefix.steps[-1].text!r}: {left!r}, from ids {right!r}",
        )


def batches_of_ids_do_not_matter(policy: Policy) -> None:
    """Order, counts, and prefixes that come twice change no completion."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    settings = SamplingSettings(max_new_tokens=20)
    _expect(tokens.continue_ids([], [], settings, []) == [], "an empty batch", "gave something")
    alone = [
        _said(tokens.continue_ids([one], [4], settings, [5 + i]))[0] for i, one in enumerate(ids)
    ]
    # The first twice with one seed, and with another; the third not at all.
    asked = [(3, 2, 1), (0, 4, 0), (2, 0, 0), (0, 1, 3), (1, 3, 1), (0, 2, 0)]
    seeds = [*(5 + i for i, _, _ in asked[:-1]), 99]
    drawn = tokens.continue_ids(
        [ids[i] for i, _, _ in asked], [n for _, n, _ in asked], settings, seeds,
        [first for _, _, first in asked],
    )  # fmt: skip
    for (i, n, first), got in zip(asked[:-1], _said(drawn[:-1]), strict=True):
        expected = alone[i][first : first + n]
        _expect(
            got == expected,
            "batches of ids do not matter",
            f"{n} of prefix {i} from number {first}: alone {expected!r}, among others {got!r}",
        )
    _expect(len(drawn[-1]) == 2, "as many as counted", f"{len(drawn[-1])} where 2 were asked for")


def what_was_read_before_changes_nothing(policy: Policy) -> None:
    """The same completions come again after the policy has read them, and what follows them."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    settings, seeds = SamplingSettings(max_new_tokens=20), [5, 6, 7, 8]
    counts = [3] * len(ids)
    first = tokens.continue_ids(ids, counts, settings, seeds)
    longer = [
        [*before, *(of_prefix[0].ids or ())] for before, of_prefix in zip(ids, first, strict=True)
    ]
    deeper = tokens.continue_ids(longer, counts, settings, seeds)
    for law_of, before, expected in (("prefixes", ids, first), ("what follows", longer, deeper)):
        again = tokens.continue_ids(before, counts, settings, seeds)
        _expect(
            _said(again) == _said(expected),
            "what was read before changes nothing",
            f"{law_of}: {_said(expected)!r}, again {_said(again)!r}",
        )


def costs_add_up(policy: Policy) -> None:
    """A prompt is counted whole or not at all, with the first completion; no more is cached."""
    if (found := _of_ids(policy)) is None:
        return
    tokens, ids = found
    law = "costs add up"
    ids = [*ids, ids[0]]
    drawn = tokens.continue_ids(
        ids, [3] * len(ids), SamplingSettings(max_new_tokens=5), [5, 6, 7, 8, 9]
    )
    for before, of_prefix in zip(ids, drawn, strict=True):
        first = of_prefix[0]
        _expect(
            first.n_prompt == len(before) or first.completion.finish == "error",
            law,
            f"the first completion counts {first.n_prompt} tokens of a prefix of {len(before)}",
        )
        for one in of_prefix:
            _expect(
                one.n_prompt in (0, len(before)) and 0 <= one.n_cached <= one.n_prompt,
                law,
                f"a prefix of {len(before)} tokens, of which {one.n_prompt} are counted and "
                f"{one.n_cached} cached",
            )


PolicyLaw = Callable[[Policy], None]
POLICY_LAWS: tuple[PolicyLaw, ...] = (
    completions_match_requests,
    same_seed_same_words,
    stops_where_told,
    greedy_is_one_answer,
    ids_equal_texts,
    ids_spell_the_text,
    ids_go_on_as_texts_do,
    batches_of_ids_do_not_matter,
    what_was_read_before_changes_nothing,
    costs_add_up,
)
"""Those of ids say nothing of a policy that takes none."""


def check_policy(policy: Policy) -> None:
    """Run every law of `Policy`; raises `LawBroken` on the first that fails."""
    for law in POLICY_LAWS:
        law(policy)


_PLAIN = MeasureSettings(resamples=0)


def _values(
    benchmark: Benchmark, cases: Sequence[Case], judgements: Sequence[Judgement]
) -> dict[str, float | None]:
    figures = measure(benchmark, cases, {"judge": judgements}, _PLAIN).models["judge"].figures
    return {name: estimate.value for name, estimate in figures.items()}


def cases_are_whole(benchmark: Benchmark, cases: Sequence[Case]) -> None:
    """Ids are unique, and every case has steps and a truth."""
    _expect(bool(cases), "there are cases", benchmark.name)
    ids = [case.id for case in cases]
    _expect(len(set(ids)) == len(ids), "unique ids", f"{len(ids)} cases, {len(set(ids))} ids")
    for case in cases:
        known = case.record.labels is not None or case.record.trajectory.correct is not None
        _expect(known, "a case has a truth", case.id)


def gold_is_perfect(benchmark: Benchmark, cases: Sequence[Case]) -> None:
    """A judge that is always right gets 1."""
    values = _values(benchmark, cases, [benchmark.right_judgement(case) for case in cases])
    for name in benchmark.perfect or (benchmark.headline,):
        if values.get(name) is not None:
            _expect(values[name] == 1, "gold is perfect", f"{name} is {values[name]!r}")
    told = [name for name in benchmark.perfect or (benchmark.headline,) if name in values]
    _expect(bool(told), "gold is perfect", "none of the figures that should be 1 is given")


def constant_gets_the_floor(benchmark: Benchmark, cases: Sequence[Case]) -> None:
    """A judge that gives every step the same high score gets what is known of it."""
    values = _values(benchmark, cases, [constant_scores(case, 1.0) for case in cases])
    whole = not check_content(benchmark, cases)
    floor = {**benchmark.floor, **(benchmark.published_floor if whole else {})}
    for name, expected in floor.items():
        value = values.get(name)
        if value is not None:
            _expect(
                abs(value - expected) < 5e-4, "the floor", f"{name} is {value!r}, not {expected}"
            )


def order_does_not_matter(benchmark: Benchmark, cases: Sequence[Case]) -> None:
    """The cases may come in any order."""
    judgements = [
        constant_scores(case, 0.2 + 0.6 * (sum(map(ord, case.id)) % 7) / 7) for case in cases
    ]
    forwards = _values(benchmark, cases, judgements)
    backwards = _values(benchmark, cases[::-1], judgements[::-1])
    for name, value in forwards.items():
        other = backwards.get(name)
        # Votes between one sample and all are drawn: a problem's draws depend on its place.
        if name.startswith(("weighted_vote_", "majority_", "tuned/", "optimum/")):
            continue
        same = value == other or (
            value is not None and other is not None and abs(value - other) < 1e-9
        )
        _expect(same, "order does not matter", f"{name}: {value!r} forwards, {other!r} backwards")


def unscored_is_counted(benchmark: Benchmark, cases: Sequence[Case]) -> None:
    """A case that is not scored is counted, and figures of nothing are an error."""
    nothing = Judgement(Unscored(reason="a test"))
    judgements = [constant_scores(case, 1.0) for case in cases]
    judgements[0] = nothing
    if len(cases) > 1:
        model = measure(benchmark, cases, {"judge": judgements}, _PLAIN).models["judge"]
        _expect(
            (model.scored, model.unscored) == (len(cases) - 1, 1),
            "what is not scored is counted",
            f"{model.scored} scored, {model.unscored} not",
        )
    try:
        measure(benchmark, cases, {"judge": [nothing] * len(cases)}, _PLAIN)
    except NothingToMeasure:
        return
    _expect(False, "figures of nothing are an error", "nothing was scored, and that passed")


BenchmarkLaw = Callable[[Benchmark, Sequence[Case]], None]
BENCHMARK_LAWS: tuple[BenchmarkLaw, ...] = (
    cases_are_whole,
    gold_is_perfect,
    constant_gets_the_floor,
    order_does_not_matter,
    unscored_is_counted,
)


def check_benchmark(
    benchmark: Benchmark, cases: Sequence[Case], *, published: bool = False
) -> None:
    """Run every law of `Benchmark` on its cases, without a model.

    Args:
        benchmark: which.
        cases: of it, such as ``benchmark.read(path)`` gives.
        published: whether they are the published data, whose counts and digest must then match.

    Raises:
        LawBroken: on the first law that fails.
    """
    for law in BENCHMARK_LAWS:
        law(benchmark, cases)
    if published:
        differences = check_content(benchmark, cases)
        _expect(not differences, "the published data", "; ".join(differences))

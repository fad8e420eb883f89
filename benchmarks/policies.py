"""Speed of rollouts: `HFPolicy` against `generate` of transformers, as users write it.

    python benchmarks/policies.py [--device cpu|cuda] [--threads N] [--hidden N] [--layers N]
        [--only NAME] [--out FILE]

The same weights, prompts, temperature, end token, limit of tokens and number of threads. Each way
is run `ROUNDS` times in turn with the others, and its median counts. First of all, which also warms
up, both must write the same greedy texts. Ratios of CPU time are given beside those of time, since
other programs may be at work on the same cores. The small model is the shipped policy, at prefixes
of its own solutions; the large one is random, so that nearly all its completions are as long as
they may be.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from prmkit import __version__
from prmkit.chat import encode_question, encode_text
from prmkit.checkpoints import load_tokenizer, quiet_transformers, save_model
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import SAMPLING, judge, split_lines
from prmkit.embedded.vocabulary import build_tokenizer
from prmkit.embedded.world import problems
from prmkit.files import write_json
from prmkit.policies.base import Drawn, SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Problem, Trajectory

RESULTS = Path(__file__).parent / "results" / "policies.json"
ROUNDS = 3
N = 8
ROWS = 256


class Setting(NamedTuple):
    """What is drawn.

    Attributes:
        name: of the setting.
        folder: of the model.
        prefixes: what is continued.
        sampling: how.
        one_by_one: prefixes of which the slowest way is measured too.
    """

    name: str
    folder: Path
    prefixes: list[Trajectory]
    sampling: SamplingSettings
    one_by_one: int = 0


class Stock:
    """`generate` of transformers, with the model and the tokenizer as they come."""

    def __init__(self, folder: Path, device: str, sampling: SamplingSettings):
        with quiet_transformers():
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        # As the policy computes.
        precision = torch.float32 if device == "cpu" else torch.bfloat16
        self.model: Any = model.to(device, precision).eval()
        self.tokenizer: Any = load_tokenizer(folder)
        self.device, self.sampling = device, sampling

    def prompt(self, prefix: Trajectory) -> list[int]:
        """The same ids that the policy reads."""
        ids = encode_question(self.tokenizer, prefix.problem)
        for step in prefix.steps:
            ids += encode_text(self.tokenizer, step.text)
        return ids

    @torch.inference_mode()
    def generate(self, rows: Sequence[Sequence[int]], **settings: Any) -> tuple[list[str], int]:
        """Texts of a batch, padded on the left, and how many tokens were drawn."""
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        # top_k is 50 by default; 0 is the whole vocabulary, as the policy draws.
        drawing = (
            {"do_sample": True, "temperature": self.sampling.temperature, "top_k": 0}
            if self.sampling.temperature
            else {"do_sample": False}
        )
        out = self.model.generate(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=self.sampling.max_new_tokens,
            pad_token_id=pad,
            **drawing,
            **settings,
        )[:, width:].cpu()
        ended = (out == self.tokenizer.eos_token_id).cumsum(1)
        # The end token counts, what is filled in behind it does not.
        drawn = int((ended - (out == self.tokenizer.eos_token_id).long() == 0).sum())
        return self.tokenizer.batch_decode(out, skip_special_tokens=True), drawn

    def returned(self, prefixes: Sequence[Trajectory]) -> tuple[list[str], int]:
        """One prefix at a time, asked for N sequences."""
        return _joined(self.generate([self.prompt(p)], num_return_sequences=N) for p in prefixes)

    def repeated(self, prefixes: Sequence[Trajectory]) -> tuple[list[str], int]:
        """Every prefix N times, in batches of as many rows as the policy's."""
        rows = [self.prompt(p) for p in prefixes for _ in range(N)]
        return _joined(self.generate(rows[at : at + ROWS]) for at in range(0, len(rows), ROWS))

    def one_by_one(self, prefixes: Sequence[Trajectory]) -> tuple[list[str], int]:
        """A call for each completion."""
        return _joined(self.generate([self.prompt(p)]) for p in prefixes for _ in range(N))


def _joined(parts: Any) -> tuple[list[str], int]:
    texts: list[str] = []
    tokens = 0
    for some, n in parts:
        texts += some
        tokens += n
    return texts, tokens


def real_prefixes(n: int) -> list[Trajectory]:
    """Beginnings of the shipped policy's solutions of different problems, after some whole step."""
    rng = random.Random(5)
    policy = HFPolicy(WEIGHTS / "policy", device="cpu")
    items = list(problems("test", n))
    groups = sample(policy, items, 1, split_lines, judge, settings=SAMPLING, seed=1)
    return [t.prefix(rng.randrange(len(t.steps))) for (t,) in groups]


def long_prefixes(n: int, length: int) -> list[Trajectory]:
    """Questions that make prompts of exactly `length` tokens."""
    tokenizer = build_tokenizer()
    rng = random.Random(length)
    words = ("so", "the", "number", "of", "apples", "is", "three", "times", "four", "more")
    found = []
    for i in range(n):
        text = "Q"
        while True:
            longer = f"{text} {rng.choice(words)}"
            if len(encode_question(tokenizer, Problem(id="", prompt=longer))) > length:
                break
            text = longer
        while len(encode_question(tokenizer, Problem(id="", prompt=text))) < length:
            text += "."
        found.append(Trajectory(problem=Problem(id=str(i), prompt=text)))
    return found


def random_model(folder: Path, hidden: int, layers: int) -> None:
    """A Llama of random weights with the embedded world's tokenizer."""
    torch.manual_seed(3)
    tokenizer = build_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    save_model(folder, transformers.LlamaForCausalLM(config), tokenizer, {"family": "none"})


def measure(setting: Setting, device: str) -> dict[str, Any]:
    """Rollouts and tokens per second of every way, and what they are to the policy's."""
    sampling, prefixes = setting.sampling, setting.prefixes
    policy = HFPolicy(setting.folder, device=device, max_rows=ROWS)
    stock = Stock(setting.folder, device, sampling)
    lengths = [len(stock.prompt(p)) for p in prefixes]
    same_texts(policy, setting, device)
    seeds = iter(range(10**9))

    def ours() -> tuple[list[str], int]:
        drawn = policy.complete(prefixes, N, sampling, [next(seeds) for _ in prefixes])
        every = [c for of in drawn for c in of]
        return [c.text for c in every], sum(c.n_tokens for c in every)

    ways: dict[str, Callable[[], tuple[list[str], int]]] = {
        "ours": ours,
        "generate, 8 sequences returned": lambda: stock.returned(prefixes),
        "generate, prompts repeated in batches": lambda: stock.repeated(prefixes),
    }
    few = prefixes[: setting.one_by_one]
    if few:
        ways["generate, one by one"] = lambda: stock.one_by_one(few)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, busy = time.perf_counter(), time.process_time()
            texts, n = way()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - start) / len(texts))
            cpu[name].append((time.process_time() - busy) / len(texts))
            tokens[name].append(n / len(texts))
    medians = {name: statistics.median(of) for name, of in seconds.items()}
    busy_for = {name: statistics.median(of) for name, of in cpu.items()}
    return {
        "prefixes": len(prefixes),
        "tokens_of_prefixes": {
            "mean": statistics.mean(lengths), "min": min(lengths), "max": max(lengths),
        },
        "max_new_tokens": sampling.max_new_tokens,
        "ways": {
            name: {
                "rollouts_per_second": 1 / medians[name],
                "slowest_and_fastest": [1 / max(seconds[name]), 1 / min(seconds[name])],
                "tokens_per_rollout": statistics.mean(tokens[name]),
                "tokens_per_second": statistics.mean(tokens[name]) / medians[name],
                "cpu_seconds_per_rollout": busy_for[name],
                "ours_to_this": medians[name] / medians["ours"],
                "ours_to_this_by_cpu_time": busy_for[name] / busy_for["ours"],
            }
            for name in ways
        },
    }  # fmt: skip


def same_texts(policy: HFPolicy, setting: Setting, device: str) -> None:
    """Stop where the policy and `generate` do not write the same greedy texts."""
    greedy = SamplingSettings(temperature=0, max_new_tokens=setting.sampling.max_new_tokens)
    stock = Stock(setting.folder, device, greedy)
    prompts = [stock.prompt(prefix) for prefix in setting.prefixes[:8]]
    ours = policy.continue_ids(prompts, [1] * len(prompts), greedy, [0] * len(prompts))
    for prompt, (drawn,) in zip(prompts, ours, strict=True):
        (text,), _ = stock.generate([prompt])
        if drawn.completion.text != text and not (device != "cpu" and tied(stock, prompt, drawn)):
            raise SystemExit(
                f"{setting.name}: other texts, so the times mean nothing:\n"
                f"{drawn.completion.text!r}\n{text!r}"
            )


@torch.inference_mode()
def tied(stock: Stock, prompt: Sequence[int], drawn: Drawn) -> bool:
    """Whether each of our tokens is as likely to the stock model as its own, but for rounding."""
    ids = list(drawn.ids or ())
    logits = stock.model(torch.tensor([[*prompt, *ids]], device=stock.device)).logits[0].float()
    of_each = logits[len(prompt) - 1 : -1]
    chosen = of_each.gather(1, torch.tensor(ids, device=stock.device)[:, None])[:, 0]
    # bfloat16 has eight bits.
    slack = 2**-5 * of_each.abs().amax(1)
    return bool((of_each.amax(1) - chosen <= slack).all())


def beam_search(
    policy: HFPolicy, prefixes: Sequence[Sequence[int]], sampling: SamplingSettings
) -> tuple[list[Drawn], int]:
    """Steps from four beams of each prefix, four from each, eight deep; which go on is drawn.

    Returns:
        All that was drawn, and the different tokens of the tree of it.
    """
    rng = random.Random(0)
    beams = [[list(ids)] for ids in prefixes]
    found: list[Drawn] = []
    distinct: set[tuple[int, ...]] = set()
    for level in range(8):
        asked = [ids for of_prefix in beams for ids in of_prefix]
        counts = [4 if level else 16] * len(asked)
        seeds = [rng.randrange(2**31) for _ in asked]
        drawn = iter(policy.continue_ids(asked, counts, sampling, seeds))
        for at, of_prefix in enumerate(beams):
            longer = []
            for ids in of_prefix:
                for one in next(drawn):
                    found.append(one)
                    whole = (*ids, *(one.ids or ()))
                    distinct |= {whole[:n] for n in range(1, len(whole) + 1)}
                    if one.completion.finish != "eos" and one.ids is not None:
                        longer.append(list(whole))
            beams[at] = rng.sample(longer, min(4, len(longer)))
    return found, len(distinct)


def prefix_cache(setting: Setting, device: str) -> dict[str, Any]:
    """What a search by steps takes with kept prefixes and without, and what it computes."""
    seconds: dict[str, list[float]] = {"kept": [], "not kept": []}
    told: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for name in seconds:
            policy = HFPolicy(
                setting.folder, device=device, max_rows=ROWS, max_kept=0 if name != "kept" else None
            )
            ids = [policy.question_ids(prefix.problem) for prefix in setting.prefixes]
            policy.continue_ids([ids[0][:4]], [1], setting.sampling, [0])
            before, start = policy.computed, time.perf_counter()
            drawn, distinct = beam_search(policy, ids, setting.sampling)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            computed = policy.computed - before
            told[name] = {"computed": computed, "computed_to_distinct": computed / distinct}
            texts[name] = [one.completion.text for one in drawn]
    same = sum(a == b for a, b in zip(texts["kept"], texts["not kept"], strict=True))
    medians = {name: statistics.median(of) for name, of in seconds.items()}
    return {
        "prefixes": len(setting.prefixes),
        "steps": len(texts["kept"]),
        "same_steps": same,
        "ways": {name: {"seconds": medians[name], **told[name]} for name in seconds},
        "times_faster": medians["not kept"] / medians["kept"],
    }


def searches_of(large: Path) -> list[Setting]:
    """What is searched: problems of the shipped policy's world by lines, and long texts."""
    steps = SamplingSettings(temperature=0.8, max_new_tokens=64, stop=("\n",))
    real = [Trajectory(problem=problem) for problem in problems("test", 8)]
    long = SamplingSettings(temperature=0.8, max_new_tokens=24)
    return [
        Setting("policy prefix cache, shipped policy, 8 problems", WEIGHTS / "policy", real, steps),
        Setting(
            "policy prefix cache, random model, 256 tokens", large, long_prefixes(1, 256), long
        ),
    ]


def settings_of(large: Path) -> list[Setting]:
    """What is measured."""
    found = [Setting("shipped policy", WEIGHTS / "policy", real_prefixes(64), SAMPLING, 2)]
    for length, new, sizes in ((256, 32, (1, 4)), (512, 32, (1,)), (512, 64, (1,))):
        sampling = SamplingSettings(temperature=0.8, max_new_tokens=new)
        for n in sizes:
            found.append(
                Setting(
                    f"random model, {length} + {new} tokens, {n} prefix{'es' if n > 1 else ''}",
                    large,
                    long_prefixes(n, length),
                    sampling,
                )
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        large = Path(place) / "large"
        random_model(large, options.hidden, options.layers)
        for setting in settings_of(large):
            if not setting.name.startswith(options.only):
                continue
            found[setting.name] = measure(setting, options.device)
            print(setting.name)
            for name, way in found[setting.name]["ways"].items():
                print(
                    f"  {name:<40} {way['rollouts_per_second']:8.1f} rollouts/s "
                    f"{way['tokens_per_second']:8.0f} tokens/s "
                    f"{way['tokens_per_rollout']:6.1f} tokens each, "
                    f"x{way['ours_to_this']:.2f} (CPU time x{way['ours_to_this_by_cpu_time']:.2f})",
                    flush=True,
                )
        for setting in searches_of(large):
            if not setting.name.startswith(options.only):
                continue
            found[setting.name] = told = prefix_cache(setting, options.device)
            print(setting.name)
            for name, way in told["ways"].items():
                print(
                    f"  {name:<40} {way['seconds']:8.2f} s {way['computed']:8d} tokens computed, "
                    f"x{way['computed_to_distinct']:.2f} of the different ones",
                    flush=True,
                )
            print(f"  {told['times_faster']:.2f} times faster, {told['same_steps']} of "
                  f"{told['steps']} steps the same", flush=True)  # fmt: skip
    on_cpu = options.device == "cpu"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    about = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": machine if on_cpu else torch.cuda.get_device_name(),
        "random_model": {"hidden": options.hidden, "layers": options.layers},
        "rounds": ROUNDS,
    }
    write_json(options.out, about | {"settings": _rounded(found)})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()

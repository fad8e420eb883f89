"""Rows of published tables, to be set beside one's own.

Each table is kept as it is printed, in percent; the rows hold shares of 1.
"""

from __future__ import annotations

from prmkit.evaluation.cases import Published


def _rows(table: str) -> list[tuple[str, list[str]]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [(cells[0], cells[1:]) for cells in rows]


def _percent(numbers: str) -> list[float]:
    return [float(n) / 100 for n in numbers.replace("/", " ").split()]


def _processbench() -> tuple[Published, ...]:
    """Per split accuracy on wrong, accuracy on right and F1, or F1 alone; then the mean F1."""
    rows = []
    for model, (*cells, mean) in _rows(_PROCESSBENCH):
        figures = {"f1": float(mean) / 100}
        for split, cell in zip(("gsm8k", "math", "olympiadbench", "omnimath"), cells, strict=True):
            *accuracies, f1 = _percent(cell)
            figures[f"{split}/f1"] = f1
            if accuracies:
                figures[f"{split}/accuracy_wrong"], figures[f"{split}/accuracy_right"] = accuracies
        rows.append(Published(model, figures))
    return tuple(rows)


# arXiv:2412.06559, Tables 3, 6 and 8; arXiv:2504.00891, Table 6; R-PRM's README.
_PROCESSBENCH = """
Math-Shepherd-PRM-7B | 32.4/91.7/47.9 | 18.0/82.0/29.5 | 15.0/71.1/24.8 | 14.2/73.0/23.8 | 31.5
RLHFlow-PRM-Mistral-8B | 33.8/99.0/50.4 | 21.7/72.2/33.4 | 8.2/43.1/13.8 | 9.6/45.2/15.8 | 28.4
RLHFlow-PRM-Deepseek-8B | 24.2/98.4/38.8 | 21.4/80.0/33.8 | 10.1/51.0/16.9 | 10.1/51.9/16.9 | 26.6
Skywork-PRM-1.5B | 50.2/71.5/59.0 | 37.9/65.3/48.0 | 15.4/26.0/19.3 | 13.6/32.8/19.2 | 36.4
Skywork-PRM-7B | 61.8/82.9/70.8 | 43.8/69.2/53.6 | 17.9/31.9/22.9 | 14.0/41.9/21.0 | 42.1
Qwen2.5-Math-7B-Math-Shepherd|46.4/95.9/62.5|18.9/96.6/31.6|7.4/93.8/13.7|4.0/95.0/7.7|28.9
EurusPRM-Stage2 | 51.2/44.0/47.3 | 36.4/35.0/35.7 | 25.7/18.0/21.2 | 23.1/19.1/20.9 | 31.3
Qwen2.5-Math-7B-PRM800K | 53.1/95.3/68.2 | 48.0/90.1/62.6 | 35.7/87.3/50.7 | 29.8/86.3/44.3 | 56.5
RetrievalPRM-7B | 64.7/88.1/74.6 | 67.2/75.6/71.1 | 56.0/65.2/60.2 | 52.8/62.7/57.3 | 65.8
Qwen2.5-Math-PRM-7B | 72.0/96.4/82.4 | 68.0/90.4/77.6 | 55.7/85.5/67.5 | 55.2/83.0/66.3 | 73.5
Universal-PRM-7B | 85.8 | 77.7 | 67.6 | 66.4 | 74.3
Qwen2.5-Math-PRM-72B | 78.7/97.9/87.3 | 74.2/88.2/80.6 | 67.9/82.0/74.3 | 64.8/78.8/71.1 | 78.3
GenPRM-1.5B pass@1 | 52.8 | 66.6 | 55.1 | 54.5 | 57.3
GenPRM-1.5B maj@8 | 51.3 | 74.4 | 65.3 | 62.5 | 63.4
GenPRM-7B pass@1 | 78.7 | 80.3 | 72.2 | 69.8 | 75.2
GenPRM-7B maj@8 | 81.0 | 85.7 | 78.4 | 76.8 | 80.5
GenPRM-32B pass@1 | 83.1 | 81.7 | 72.8 | 72.8 | 77.6
GenPRM-32B maj@8 | 85.1 | 86.3 | 78.9 | 80.1 | 82.6
R-PRM-7B-SFT | 77.2 | 71.6 | 59.6 | 52.3 | 65.2
R-PRM-7B-DPO | 80.7 | 76.9 | 63.8 | 60.1 | 70.4
Qwen2.5-7B-Instruct, critic maj@8|40.6/33.2/36.5|30.8/45.1/36.6|26.5/33.9/29.7|26.2/28.6/27.4|32.6
Llama-3.3-70B-Instruct, critic|72.5/96.9/82.9|43.3/94.6/59.4|31.0/94.1/46.7|28.2/90.5/43.0|58.0
QwQ-32B-Preview, critic | 81.6/95.3/88.0 | 78.1/79.3/78.7 | 61.4/54.6/57.8 | 55.7/68.0/61.3 | 71.5
GPT-4o-0806, critic | 70.0/91.2/79.2 | 54.4/76.6/63.6 | 45.8/58.4/51.4 | 45.2/65.6/53.5 | 61.9
o1-mini, critic | 88.9/97.9/93.2 | 83.5/95.1/88.9 | 80.2/95.6/87.2 | 74.8/91.7/82.4 | 87.9
"""
PROCESSBENCH = _processbench()


def _prmbench() -> tuple[Published, ...]:
    names = (
        ("prm_score",),
        ("NR", "NCL", "simplicity"),
        ("ES", "SC", "DC", "CI", "soundness"),
        ("PS", "DR", "MS", "sensitivity"),
    )
    rows = []
    for model, cells in _rows(_PRMBENCH):
        figures: dict[str, float] = {}
        for keys, cell in zip(names, cells, strict=True):
            figures |= zip(keys, _percent(cell), strict=True)
        rows.append(Published(model, figures))
    return tuple(rows)


# The notebook form_latex_strs.ipynb of the project of arXiv:2501.03124.
_PRMBENCH = """
Skywork-PRM-1.5B | 61.1 | 52.0 56.4 54.2 | 64.8 64.9 63.3 66.5 64.9 | 57.5 63.3 91.1 70.7
Skywork-PRM-7B | 65.1 | 56.4 62.8 59.6 | 69.4 67.1 67.7 69.9 68.5 | 60.9 65.8 93.2 73.3
Llemma-PRM800k-7B | 52.0 | 49.3 53.4 51.4 | 56.4 47.1 46.7 53.3 50.9 | 51.0 53.5 93.6 66.0
Llemma-MetaMath-7B | 50.5 | 50.2 50.5 50.3 | 51.9 47.6 44.4 52.1 49.0 | 50.5 51.3 96.0 66.0
Llemma-oprm-7B | 50.3 | 48.7 49.3 49.0 | 54.2 46.8 44.5 53.5 49.8 | 49.2 51.3 91.8 64.1
MATHMinos-Mistral-7B | 54.2 | 48.8 54.0 51.4 | 57.0 52.1 50.7 57.8 54.4 | 52.8 55.8 91.1 66.5
MathShepherd-Mistral-7B | 47.0 | 44.0 50.3 47.1 | 49.4 44.5 41.3 47.7 45.7 | 47.2 48.6 86.1 60.7
ReasonEval-7B | 60.1 | 61.0 50.1 55.6 | 62.1 65.9 61.5 66.0 63.9 | 55.7 58.0 99.5 71.1
ReasonEval-34B | 60.5 | 54.8 48.1 51.5 | 66.4 60.3 57.8 67.5 63.0 | 57.7 64.3 97.2 73.1
RLHFlow-PRM-Mistral-8B | 54.4 | 46.1 47.3 46.7 | 56.6 55.1 54.4 63.8 57.5 | 51.5 56.2 97.9 68.5
RLHFlow-PRM-Deepseek-8B | 54.2 | 46.4 48.9 47.6 | 55.7 55.0 53.2 66.2 57.5 | 49.0 55.4 99.8 68.1
Qwen2.5-Math-PRM-7B | 65.5 | 49.0 55.1 52.1 | 71.8 67.3 66.3 78.5 71.0 | 57.6 69.1 99.7 75.5
Qwen2.5-Math-PRM-72B | 68.2 | 50.4 58.8 54.6 | 73.7 71.1 72.2 78.6 73.9 | 60.3 71.2 99.4 77.0
Pure-PRM-7B | 65.3 | 49.2 55.2 52.2 | 71.1 68.8 64.0 76.9 70.2 | 60.3 69.2 98.0 75.8
QwQ-Preview-32B | 63.6 | 57.2 55.6 56.4 | 67.4 72.3 66.2 66.9 68.2 | 57.8 62.7 100.0 73.5
DeepSeek-R1 (subset) | 67.8 | 63.0 62.7 62.9 | 68.2 68.5 73.5 75.4 71.4 | 63.3 68.0 100.0 77.1
GPT-4o | 66.8 | 57.0 62.4 59.7 | 72.0 69.7 70.7 71.1 70.9 | 62.5 65.7 99.2 75.8
o1-mini (subset) | 68.8 | 65.6 63.7 64.6 | 74.5 67.7 73.8 72.3 72.1 | 61.8 64.8 100.0 75.5
Gemini-2.0-thinking-1219 | 68.8 | 68.5 63.8 66.2 | 72.9 71.3 71.0 71.8 71.8 | 60.3 65.7 99.8 75.3
"""
PRMBENCH = _prmbench()


def _mr_gsm8k() -> tuple[Published, ...]:
    """Each cell holds the figures without examples and with three of them."""
    names = ("mcc", "step_accuracy", "reason_accuracy", "mr_score")
    rows = []
    for model, cells in _rows(_MR_GSM8K):
        pairs = [_percent(cell) for cell in cells]
        for which, shots in enumerate(("0-shot", "3-shot")):
            figures = dict(zip(names, (pair[which] for pair in pairs), strict=True))
            rows.append(Published(f"{model}, {shots}", figures))
    return tuple(rows)


# The README of the project of arXiv:2312.17080.
_MR_GSM8K = """
Qwen1.5-1.8B | 0.0   0.0 | 0.0   0.4 | 0.0  0.0 | 0.0  0.1
Phi3-3.8B | 20.4  35.4 | 32.9  26.3 | 18.0 13.9 | 22.9 21.9
Deepseek-Math-7B-RL | 30.4   0.0 | 9.8   0.1 | 5.1  0.1 | 11.6  0.1
WizardMath-v1.1-7B | 0.0   0.0 | 0.3   0.2 | 0.3  0.1 | 0.2  0.1
Llama3-8B-Instruct | 5.1  23.1 | 29.1  23.3 | 15.0 11.6 | 17.2 17.4
MAmmoTH-70B | 14.6   0.0 | 3.9   0.3 | 1.8  0.3 | 5.0  0.2
MetaMath-70B | 0.0   0.0 | 0.1   0.0 | 0.0  0.0 | 0.0  0.0
Qwen1.5-72B-Chat | 42.0  42.5 | 19.1  23.1 | 13.5 15.8 | 20.9 23.3
Deepseek-v2-236B | 49.4  51.2 | 26.8  32.4 | 23.8 28.3 | 29.8 34.1
Llama3-70B-Instruct | 51.3  56.4 | 38.9  33.5 | 32.7 25.7 | 38.3 34.2
Claude3-Haiku | 22.5  16.7 | 17.2   2.3 | 11.3  1.8 | 15.3  4.9
GPT-3.5-Turbo | 16.2  25.5 | 30.6  21.0 | 20.3 13.0 | 22.6 17.9
Claude3-Sonnet | 30.0  36.5 | 25.2  18.8 | 19.9 15.6 | 23.5 20.8
GPT-4-Turbo | 63.3  67.2 | 48.8  51.7 | 46.3 48.1 | 50.5 53.0
"""
MR_GSM8K = _mr_gsm8k()


def _agent_process_bench() -> tuple[Published, ...]:
    """Each cell holds step accuracy and first-error accuracy; the last one is over all cases."""
    splits = ("hotpotqa/", "gaia_dev/", "bfcl/", "tau2/", "")
    rows = []
    for model, cells in _rows(_AGENT_PROCESS_BENCH):
        figures: dict[str, float] = {}
        for split, cell in zip(splits, cells, strict=True):
            step, first = _percent(cell)
            figures |= {f"{split}step_accuracy": step, f"{split}first_error_accuracy": first}
        rows.append(Published(model, figures))
    return tuple(rows)


# arXiv:2603.14465, Table 3.
_AGENT_PROCESS_BENCH = """
GPT-5.2 | 72.1/69.6 | 66.3/54.4 | 71.6/52.8 | 70.3/56.4 | 70.1/58.3
GPT-5.2-Chat | 71.4/70.0 | 69.3/58.0 | 71.6/58.0 | 80.4/58.4 | 74.8/61.1
DeepSeek-V3.2 | 74.4/65.2 | 61.8/48.0 | 74.1/50.0 | 73.3/57.6 | 71.4/55.2
Gemini-3-Flash-Preview | 76.7/70.0 | 73.8/53.2 | 77.6/40.8 | 81.2/56.0 | 78.3/55.0
Kimi-K2.5 | 71.7/67.2 | 61.4/54.4 | 75.3/56.4 | 73.0/49.2 | 71.4/56.8
GPT-5.2-Thinking (medium) | 72.3/73.2 | 70.9/58.8 | 64.9/44.4 | 75.2/53.6 | 71.0/57.5
DeepSeek-V3.2-Thinking | 70.4/69.2 | 60.2/49.2 | 75.3/54.4 | 77.2/65.6 | 72.8/59.6
Gemini-3-Flash-Preview-Thinking | 75.8/70.4 | 79.7/65.2 | 81.8/64.0 | 83.4/63.6 | 81.6/65.8
Kimi-K2.5-Thinking | 70.6/68.4 | 66.6/58.0 | 79.8/57.6 | 78.3/65.6 | 75.9/62.4
Qwen3-4B | 58.6/59.2 | 35.8/29.2 | 65.0/29.2 | 57.9/38.0 | 55.9/38.9
Qwen3-8B | 60.4/57.2 | 39.9/32.0 | 64.9/30.8 | 58.5/42.8 | 57.1/40.7
Qwen3-4B-Instruct-2507 | 66.6/59.2 | 44.0/36.0 | 65.8/33.6 | 59.2/48.8 | 58.9/44.4
Qwen3-30B-A3B-Instruct-2507 | 65.8/54.4 | 48.3/35.2 | 72.4/36.4 | 67.2/49.6 | 65.0/43.9
LLaMA-3.1-8B-Instruct | 34.6/53.6 | 26.8/31.2 | 61.2/28.8 | 61.1/47.2 | 52.3/40.2
LLaMA-3.2-3B-Instruct | 44.3/58.4 | 22.5/27.6 | 37.7/23.6 | 37.6/40.4 | 35.3/37.5
LLaMA-3.3-70B-Instruct | 46.3/60.0 | 36.6/30.8 | 64.6/30.8 | 56.9/46.8 | 54.4/42.1
Qwen3-4B-Thinking | 60.1/56.0 | 44.4/39.6 | 65.5/33.2 | 60.3/47.6 | 58.8/44.1
Qwen3-8B-Thinking | 59.7/58.0 | 45.9/41.2 | 70.9/38.8 | 66.4/46.0 | 63.2/46.0
Qwen3-4B-Thinking-2507 | 66.9/60.4 | 41.9/36.8 | 65.4/33.6 | 63.0/46.8 | 60.0/44.4
Qwen3-30B-A3B-Thinking-2507 | 70.0/64.8 | 53.1/46.4 | 73.2/35.2 | 71.8/61.6 | 68.5/52.0
"""
AGENT_PROCESS_BENCH = _agent_process_bench()


def _bigbench_mistake() -> tuple[Published, ...]:
    """Accuracies by task with their mean; then those on chains without a mistake, and with one."""
    tasks = (
        "word_sorting",
        "tracking_shuffled_objects",
        "logical_deduction",
        "multistep_arithmetic",
        "dyck_languages",
    )
    of_both = dict(_rows(_BIGBENCH_MISTAKE_9))
    rows = []
    for model, (accuracies, mean) in _rows(_BIGBENCH_MISTAKE_4):
        figures = {"accuracy": float(mean) / 100}
        cells = (accuracies, *of_both[model])
        for name, cell in zip(("", "_right", "_wrong"), cells, strict=True):
            keys = (f"{task}/accuracy{name}" for task in tasks)
            figures |= zip(keys, _percent(cell), strict=True)
        rows.append(Published(model, figures))
    return tuple(rows)


# arXiv:2311.08516v3, Table 4.
_BIGBENCH_MISTAKE_4 = """
GPT-4-Turbo, trace | 36.33 39.33 21.33 38.33 15.33 | 30.13
GPT-4-Turbo, steps | 33.00 61.67 75.00 43.33 28.67 | 48.33
GPT-4, trace | 35.00 62.29 40.67 44.00 17.06 | 39.80
GPT-4, steps | 44.33 65.33 67.67 42.67 44.33 | 52.87
GPT-4, steps by CoT | 34.00 90.67 10.33 41.00 41.00 | 43.40
GPT-3.5-Turbo, trace | 11.33 10.10 2.00 20.00 8.78 | 10.44
GPT-3.5-Turbo, steps | 15.00 1.67 25.33 26.00 5.91 | 14.78
GPT-3.5-Turbo, steps by CoT | 15.67 19.00 9.67 25.33 1.86 | 14.31
Gemini Pro, trace | 10.67 37.67 8.67 21.67 2.00 | 16.14
PaLM 2 Unicorn, trace | 11.67 18.00 6.67 22.00 10.98 | 17.09
PaLM 2 Unicorn, steps | 16.33 28.00 38.00 21.67 14.36 | 23.67
PaLM 2 Unicorn, steps by CoT | 14.00 55.67 12.00 23.67 17.91 | 24.65
"""
# Table 9: chains without a mistake; chains with one.
_BIGBENCH_MISTAKE_9 = """
GPT-4-Turbo, trace | 67.74 90.00 100.00 57.69 96.42 | 32.71 31.54 20.81 34.27 6.99
GPT-4-Turbo, steps | 38.24 77.50 83.33 40.32 30.00 | 32.33 59.23 74.83 44.12 28.46
GPT-4, trace | 88.24 82.50 100.00 53.23 98.41 | 28.20 59.14 39.46 41.60 7.37
GPT-4, steps | 82.35 82.50 100.00 46.77 78.57 | 39.47 62.69 67.01 41.60 40.81
GPT-4, steps by CoT | 58.82 80.00 0.00 27.42 13.79 | 30.83 92.31 10.54 44.54 43.91
GPT-3.5-Turbo, trace | 100.00 67.50 100.00 96.77 95.74 | 0.00 1.17 0.00 0.00 1.28
GPT-3.5-Turbo, steps | 97.06 0.00 50.00 79.03 4.76 | 4.51 1.92 24.83 12.18 6.05
GPT-3.5-Turbo, steps by CoT | 20.59 0.00 100.00 58.06 0.00 | 15.04 21.92 7.82 16.81 2.08
Gemini Pro, trace | 44.12 12.50 33.33 83.87 0.00 | 6.39 41.54 8.16 5.46 2.25
PaLM 2 Unicorn, trace | 100.00 100.00 100.00 83.87 100.00 | 0.38 5.38 4.76 5.88 0.38
PaLM 2 Unicorn, steps | 73.53 85.00 100.00 93.55 80.95 | 9.02 19.23 36.73 2.94 6.43
PaLM 2 Unicorn, steps by CoT | 35.29 47.50 50.00 29.03 19.05 | 11.28 56.92 11.22 22.27 17.77
"""
BIGBENCH_MISTAKE = _bigbench_mistake()


def _mr_math() -> tuple[Published, ...]:
    names = ("solution_macro_f1", "step_macro_f1")
    return tuple(
        Published(f"{model} (from published scores)", dict(zip(names, _percent(cell), strict=True)))
        for model, (cell,) in _rows(_MR_MATH)
    )


# Not printed: computed from the project's eval_results/, of commits 37d5d28 and c73fd59.
_MR_MATH = """
ReasonEval-Llemma-34B | 79.569 77.545
Math-Shepherd-Mistral-7B | 70.056 60.020
"""
MR_MATH = _mr_math()


def _who_and_when() -> tuple[Published, ...]:
    """Accuracies of agents and of steps, of logs by algorithms and by hand."""
    names = ("containing/agent_accuracy", "containing/step_accuracy")
    rows = []
    for model, cells in _rows(_WHO_AND_WHEN):
        figures: dict[str, float] = {}
        for split, cell in zip(("algorithm_generated", "hand_crafted"), cells, strict=True):
            figures |= zip((f"{split}/{name}" for name in names), _percent(cell), strict=True)
        rows.append(Published(model, figures))
    return tuple(rows)


# arXiv:2505.00212, Table 1; "told" where the judge is given the right answer.
_WHO_AND_WHEN = """
random | 29.10 19.06 | 12.00 4.16
GPT-4o, all at once, told | 54.33 12.50 | 55.17 5.26
GPT-4o, all at once | 51.12 13.53 | 53.44 3.51
GPT-4o, step by step, told | 35.20 25.51 | 34.48 7.02
GPT-4o, step by step | 26.02 15.31 | 32.75 8.77
GPT-4o, binary search, told | 44.13 23.98 | 51.72 6.90
GPT-4o, binary search | 30.11 16.59 | 36.21 6.90
"""
WHO_AND_WHEN = _who_and_when()

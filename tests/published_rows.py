"""Small files in the published formats of benchmarks, with known truth."""

import json
from pathlib import Path


def jsonl(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_json(path: Path, value, indent=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    return path


def processbench_row(split, number, n_steps, label):
    return {
        "id": f"{split}-{number}",
        "generator": "m",
        "problem": f"{split} problem {number}",
        "steps": [f"step {i} of {number}" for i in range(n_steps)],
        "final_answer_correct": label < 0,
        "label": label,
    }


PROCESSBENCH = {
    "gsm8k": [(3, 1), (2, -1), (4, 0), (1, -1)],
    "math": [(2, 1), (3, -1), (3, 2)],
}


def processbench(folder: Path) -> Path:
    for split, cases in PROCESSBENCH.items():
        rows = [processbench_row(split, i, n, label) for i, (n, label) in enumerate(cases)]
        as_json(folder / f"{split}.json", rows)
    return folder


def prmbench_row(kind, idx, n_steps, wrong):
    steps = [f"step {i} of {idx}" for i in range(n_steps)]
    return {
        "original_question": "q",
        "modified_question": f"question {kind} {idx}",
        "original_process": steps,
        "modified_process": steps,
        "modified_steps": [],
        "error_steps": wrong,
        "reason": "r",
        "idx": idx,
        "question": "q",
        "classification": kind,
    }


PRMBENCH = [
    ("redundency", "prm_test_p1_0", 3, [2]),
    ("circular", "prm_test_p1_0", 2, [1]),
    ("counterfactual", "prm_test_p1_1", 3, [3]),
    ("step_contradiction", "prm_test_p1_1", 2, [2]),
    ("domain_inconsistency", "prm_test_p1_2", 3, [1, 2]),
    ("confidence", "prm_test_p1_3", 2, [2, 5]),
    ("missing_condition", "prm_test_p1_4", 4, [4]),
    ("deception", "prm_test_p1_5", 2, [1]),
    ("multi_solutions", "prm_test_p2_6", 3, []),
]


def prmbench(folder: Path) -> Path:
    jsonl(folder / "prmbench.jsonl", [prmbench_row(*row) for row in PRMBENCH])
    return folder


def prm800k_row(number, ratings, offered):
    """A trajectory whose chosen steps have ratings; each step offers more completions."""
    steps = [
        {
            "completions": [
                {"text": f"step {i} of {number}", "rating": rating, "flagged": False},
                *({"text": f"other {i} {k}", "rating": r} for k, r in enumerate(offered)),
            ],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for i, rating in enumerate(ratings)
    ]
    return {
        "labeler": "x",
        "timestamp": "2022-07-30T14:02:17",
        "is_quality_control_question": number == 9,
        "is_initial_screening_question": False,
        "question": {"problem": f"problem {number}", "ground_truth_answer": "1"},
        "label": {"steps": steps, "total_time": 1, "finish_reason": "solution"},
    }


def prm800k(folder: Path) -> Path:
    rows = [prm800k_row(0, [1, 0], [-1]), prm800k_row(1, [1, 1, -1], []), prm800k_row(9, [1], [])]
    jsonl(folder / "phase1_test.jsonl", rows)
    return folder


def mr_gsm8k_row(uuid, kind, n_steps, right, first, answer_right=False):
    return {
        "uuid": uuid,
        "question": f"question {uuid[0]}",
        "ground_truth_solution": "#### 1",
        "ground_truth_answer": 1,
        "model_output_steps": [f"Step {i + 1}: text {uuid}" for i in range(n_steps)],
        "model_output_answer_correctness": "correct" if answer_right else "wrong",
        "model_output_solution_correctness": "correct" if right else "wrong",
        "model_output_solution_first_error_step": first,
        "model_output_solution_first_error_reason": "N/A" if right else "why",
        "question_type": kind,
    }


MR_GSM8K = [
    ("a1", "original", 3, True, "N/A", True),
    ("b1", "original", 3, False, 2),
    ("c1", "reversed", 2, False, 1),
    ("d1", "POT", 4, False, 4),
    ("e1", "POT", 2, True, "N/A", True),
]


def mr_gsm8k(folder: Path) -> Path:
    as_json(folder / "MR-GSM8K.json", [mr_gsm8k_row(*row) for row in MR_GSM8K], indent=2)
    return folder


def mr_ben_row(uuid, model, steps, right, first, **more):
    return {
        "Question_UUID": uuid,
        "Subject": "college_math",
        "Question": f"question {uuid}",
        "Options": "A: 1 \nB: 2 ",
        "Ground_Truth_Analysis": "",
        "Ground_Truth_Answer": "A",
        "Ground_Truth_Answer_Modified": "B",
        "Sampled_Model": model,
        "Model_Solution_Steps": steps,
        "Model_Solution_Correctness": "correct" if right else "incorrect",
        "Model_Solution_First_Error_Step": first,
        "Model_Solution_Error_Reason": "N/A" if right else ["why"],
        **more,
    }


CODE = "import os\ndef f(x):\n    # add one\n    return x + 2\n"


def mr_ben(folder: Path) -> Path:
    math = {
        "u1": [
            mr_ben_row(
                "u1", "A", ["Step 1: a", "", "* more", "Step 2: b", "Solution: B"], True, "N/A"
            ),
            mr_ben_row("u1", "B", ["So:", "Step 1: a", "- x", "", "Step 2: b"], False, "2"),
        ],
        "u2": [mr_ben_row("u2", "A", ["Step 1: a", "Step 2: b", "Step 3: c"], False, "1")],
    }
    coding = {
        "u3": [
            mr_ben_row("u3", "A", CODE, False, "    return x + 2"),
            mr_ben_row("u3", "B", CODE, False, ""),
            mr_ben_row("u3", "C", CODE, True, "N/A"),
        ]
    }
    as_json(folder / "math.json", math, indent=2)
    as_json(folder / "coding.json", coding, indent=2)
    return folder


def mr_math_row(number, steps, right, first):
    return {
        "id": number,
        "question": f"question {number}",
        "ground_truth_answer": "1",
        "generator": "m",
        "model_output": "",
        "model_output_step_format": steps,
        "model_output_answer_correctness": "correct",
        "model_output_solution_correctness": "correct" if right else "wrong",
        "model_output_solution_first_error_step": first,
    }


def mr_math(folder: Path) -> Path:
    rows = [
        mr_math_row(0, [["a"], ["b"]], True, "N/A"),
        mr_math_row(1, [["a"], ["b", "$$x$$", "c"], ["d"]], False, 2),
        mr_math_row(2, [["a"], ["b"], ["c"]], False, 3),
    ]
    jsonl(folder / "mr-math_invalid_errors.json", rows)
    return folder


def mr_math_redundant(folder: Path) -> Path:
    rows = [
        {
            "id": i,
            "question": f"question {i}",
            "ground_truth_answer": "1",
            "generator": "GPT-4 (PRM800K)",
            "model_output_step_format": [[f"step {k}\nmore"] for k in range(len(rating))],
            "rating": rating,
        }
        for i, rating in enumerate([[1, 1], [1, 0, 1], [0, 0]])
    ]
    jsonl(folder / "mr-math_redundant_errors.json", rows)
    return folder


def bigbench_mistake(folder: Path) -> Path:
    def row(index, n=3, target="(A)", answer="(A)"):
        steps = [f"step {i}" for i in range(n)]
        return {
            "input": "q",
            "steps": steps,
            "target": target,
            "answer": answer,
            "mistake_index": index,
        }

    jsonl(folder / "word_sorting.jsonl", [row(1), row(None), row(0)])
    jsonl(folder / "dyck_languages.jsonl", [row(2, answer="")])
    return folder


def agent_row(number, labels, dataset="hotpotqa", with_messages=True):
    last = max(map(int, labels), default=1) + 1
    roles = ["system", "user"]
    for i in range(2, last + 1):
        roles.append("assistant" if str(i) in labels else "tool")
    messages = [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]
    offset = ["hotpotqa", "gaia_dev", "bfcl", "tau2"].index(dataset) * 250
    row = {
        "total_index": offset + number,
        "dataset": dataset,
        "query_index": number // 5,
        "sample_index": number % 5,
        "question": f"question {number // 5}",
        "step_labels": labels,
        "final_label": -1,
    }
    return {**row, "messages": messages} if with_messages else row


AGENTS = [
    (0, {"2": 1, "4": 1, "10": -1}, "hotpotqa"),
    (1, {"2": 0, "3": 1}, "hotpotqa"),
    (7, {"2": -1, "5": 1}, "tau2"),
]


def agent_process_bench(folder: Path) -> Path:
    jsonl(folder / "hotpotqa.jsonl", [agent_row(*row) for row in AGENTS[:2]])
    jsonl(folder / "tau2_final.jsonl", [agent_row(*AGENTS[2], with_messages=False)])
    return folder


def who_and_when(folder: Path) -> Path:
    one = {
        "is_correct": False,
        "question": "q1",
        "question_ID": "x",
        "level": "2",
        "ground_truth": "5",
        "history": [
            {"content": "plan", "role": "assistant", "name": "Planner"},
            {"content": "2 + 2 = 5", "name": "Solver", "role": "user"},
            {"content": "done", "role": "assistant", "name": "Planner"},
        ],
        "mistake_agent": "Solver",
        "mistake_step": "1",
        "mistake_reason": "r",
    }
    two = {
        "is_corrected": False,
        "question": "q2",
        "groundtruth": "7",
        "history": [{"content": "go", "role": "human"}]
        + [{"content": f"t{i}", "role": "Orchestrator (thought)"} for i in range(10)]
        + [{"content": "w", "role": "WebSurfer"}],
        "mistake_agent": "Orchestrator",
        "mistake_step": 1,
    }
    as_json(folder / "Who&When" / "Algorithm-Generated" / "1.json", one, indent=4)
    as_json(folder / "Who&When" / "Hand-Crafted" / "1.json", two, indent=4)
    return folder


def best_of_n(folder: Path) -> Path:
    """Two problems with three samples each, and the scores of two models."""
    problems, candidates, scores = [], [], []
    samples = {
        "p0": [("4", True, [0.9, 0.8]), ("4", True, [0.5]), ("5", False, [0.9, 0.9, 0.1])],
        "p1": [("1", False, [0.7]), ("2", True, [0.7, 0.6]), ("1", False, [0.2, 0.9])],
    }
    for name, rows in samples.items():
        problems.append({"problem_id": name, "question": f"q {name}", "ground_truth": "2"})
        candidates.append(
            {
                "problem_id": name,
                "candidates": [
                    {"steps": [f"s{k}" for k in range(len(s))], "answer": a, "is_correct": c}
                    for a, c, s in rows
                ],
            }
        )
        given = [s for *_, s in rows]
        scores.append(
            {
                "problem_id": name,
                "scores": {"one": given, "two": [[1 - v for v in s] for s in given]},
            }
        )
    jsonl(folder / "x_problems.jsonl", problems)
    jsonl(folder / "x_candidates.jsonl", candidates)
    jsonl(folder / "x_step_scores.jsonl", scores)
    return folder


WRITERS = {
    "processbench": processbench,
    "prmbench": prmbench,
    "best_of_n": best_of_n,
    "prm800k": prm800k,
    "prm800k_completions": prm800k,
    "mr_gsm8k": mr_gsm8k,
    "mr_ben": mr_ben,
    "mr_math": mr_math,
    "mr_math_redundant": mr_math_redundant,
    "bigbench_mistake": bigbench_mistake,
    "agent_process_bench": agent_process_bench,
    "who_and_when": who_and_when,
}

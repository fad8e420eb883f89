"""Every format against its laws, and against rows as they are published."""

import gzip
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conversations import ROW_WITH_CALLS
from prmkit.errors import AmbiguousFormat, FormatError, LabelPolicyNeeded, UnknownName
from prmkit.formats import (
    FORMATS,
    ConvertSettings,
    LabelPolicy,
    convert,
    read_records,
    recognise,
    write_records,
)
from prmkit.records import Message, Problem, Record, Step, StepLabels, Trajectory
from strategies import records, step_labels

ROWS = {
    "prmkit": {"version": 1, "trajectory": {"problem": {"id": "p", "prompt": "q"}}},
    "prm800k": {
        "labeler": "x",
        "question": {"problem": "1+1?", "ground_truth_answer": "2"},
        "label": {
            "steps": [
                {
                    "completions": [
                        {"text": "Add.", "rating": 1, "flagged": False},
                        {"text": "Guess.", "rating": 0},
                    ],
                    "human_completion": None,
                    "chosen_completion": 0,
                },
                {
                    "completions": [{"text": "It is 3.", "rating": -1}],
                    "human_completion": {"text": "2\n\n# Answer\n\n2", "rating": None},
                    "chosen_completion": None,
                },
            ],
            "total_time": 7,
            "finish_reason": "solution",
        },
    },
    "math_shepherd": {
        "input": "What is 2 - 1 + 1? Step 1: 2 - 1 = 1 ки\nStep 2: 1 + 1 = 3 ки",
        "label": "What is 2 - 1 + 1? Step 1: 2 - 1 = 1 +\nStep 2: 1 + 1 = 3 -",
        "task": "GSM8K",
    },
    "rlhflow": {
        "conversations": [
            {"role": "user", "content": "1+1? Step 1: Add."},
            {"role": "assistant", "content": "+"},
            {"role": "user", "content": "Step 2: It is 3."},
            {"role": "assistant", "content": "-"},
        ]
    },
    "stepwise": {"prompt": "1+1?", "completions": ["Add.", "It is 3."], "labels": [True, False]},
    "openrlhf": {"input": "1+1? Step 1: Add. ки\nStep 2: It is 3. ки", "value": [0.75, 0.0]},
    "processbench": {
        "id": "gsm8k-0",
        "generator": "g",
        "problem": "1+1?",
        "steps": ["Add.", "It is 3.", "Done."],
        "final_answer_correct": False,
        "label": 1,
    },
    "prmbench": {
        "original_question": "1+1?",
        "modified_question": "1+1=?",
        "original_process": ["Add.", "It is 2."],
        "modified_process": ["Add.", "It is 3."],
        "modified_steps": [2],
        "error_steps": [2, 5],
        "reason": "r",
        "idx": "t_0",
        "question": "1+1?",
        "classification": "circular",
    },
    "gsm8k": {"question": "1+1?", "answer": "Add <<1+1=2>>2.\nSo 2.\n#### 2"},
    "gsm8k_solutions": {
        "question": "1+1?",
        "ground_truth": "So 2.\n#### 2",
        "6b": {"is_correct": False, "solution": "So 3.\n#### 3"},
        "175b": {"is_correct": True, "solution": "So 2.\n#### 2"},
    },
    "openai_chat": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "Add.\n\nIt is 2."},
        ]
    },
    "openai_tools": ROW_WITH_CALLS,
    "bon_pool": {"problem_id": "p", "candidates": []},
    "qwen_math": {
        "idx": 3,
        "question": "1+1?",
        "gt_cot": "2",
        "gt": "2",
        "code": ["It is 2.", "It is 3."],
        "pred": ["2", ""],
        "report": [None, None],
        "score": [True, False],
        "pred_score": [[1.5], [-0.25]],
    },
    "rprm_pool": {
        "id": 0,
        "question": "1+1?",
        "steps": [["Add.", "It is 2."], ["It is 3."]],
        "labels": [True, False],
    },
    "search_and_learn": {
        "problem": "1+1?",
        "solution": "2",
        "answer": "2",
        "unique_id": "test/1.json",
        "completions": ["Add.\n\nIt is \\boxed{2}.", "It is 3."],
        "scores": [[0.5, 0.75], [0.25, 0.5, 0.125]],
        "pred": "\\boxed{2}",
    },
    "prm800k_samples": {
        "problem": "1+1?",
        "answer": "2",
        "prm_score": 0.75,
        "orm_score": 0.5,
        "is_correct": True,
    },
}
GOOD = json.dumps(ROWS["stepwise"]).encode()
WRITABLE = [name for name, found in FORMATS.items() if found.write]


def put(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def only(path, **kwargs):
    (record,) = read_records(path, **kwargs)
    return record


def texts(record):
    return [step.text for step in record.trajectory.steps]


def test_there_is_a_published_row_of_every_format():
    assert set(ROWS) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_published_row_is_recognised_and_fits_no_other(tmp_path, name):
    assert recognise(put(tmp_path / "a.jsonl", [ROWS[name]])).name == name


@pytest.mark.parametrize("name", [n for n in WRITABLE if n != "prmkit"])
def test_reading_what_was_written_gives_the_same_records(tmp_path, name):
    first = list(read_records(put(tmp_path / "a.jsonl", [ROWS[name]])))
    assert first
    for suffix in (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz"):
        out = tmp_path / f"a{suffix}"
        out.unlink(missing_ok=True)
        write_records(first, out, name)
        again = list(read_records(out, name))
        for old, new in zip(first, again, strict=True):
            # Ids of formats that store none come from the place in the file.
            old, new = (
                r.model_dump(exclude={"trajectory": {"problem": {"id"}}}) for r in (old, new)
            )
            assert new == old


@given(st.lists(records(), max_size=4), st.sampled_from([".jsonl", ".json", ".parquet"]))
def test_own_format_loses_nothing(tmp_path_factory, some, suffix):
    path = tmp_path_factory.mktemp("own") / f"a{suffix}"
    assert write_records(some, path) == len(some)
    assert list(read_records(path, "prmkit")) == some


OTHERS = [n for n in WRITABLE if n not in ("prmkit", "gsm8k")]


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=25)
@given(record=records(), data=st.data())
def test_any_record_is_kept_or_refused_never_garbled(tmp_path_factory, name, record, data):
    keep_or_refuse(tmp_path_factory, name, record, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=400)
@given(record=records(), data=st.data())
def test_so_are_many(tmp_path_factory, name, record, data):
    keep_or_refuse(tmp_path_factory, name, record, data)


def keep_or_refuse(tmp_path_factory, name, record, data):
    labels = data.draw(step_labels(len(record.trajectory.steps), kinds=("hard",)))
    if name not in ("gsm8k_solutions", "openai_chat", "openai_tools"):
        assume(any(v is not None for v in labels.values))
    meta = {"classification": "c", "idx": "i"} if name == "prmbench" else {}
    record = record.replace(labels=labels, meta=meta)
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    try:
        write_records([record], path, name)
    except FormatError:
        assert not path.exists()
        return
    try:
        first = list(read_records(path, name))
    except FormatError:
        # A solution without a line that says so is no row of its format.
        assert name == "gsm8k_solutions"
        return
    write_records(first, path, name)
    again = list(read_records(path, name))
    assert [texts(r) for r in again] == [texts(r) for r in first]
    assert [r.labels for r in again] == [r.labels for r in first]
    got = [v for r in first if r.labels for v in r.labels.values if v is not None]
    if name in ("stepwise", "math_shepherd", "openrlhf", "rlhflow", "prmbench"):
        assert got == [v for v in labels.values if v is not None]
    if name == "stepwise" and None not in labels.values:
        assert texts(first[0]) == texts(record)


def test_prm800k_views(tmp_path):
    path = put(tmp_path / "a.jsonl", [ROWS["prm800k"]])
    record = only(path)
    assert texts(record) == ["Add.", "2\n\n# Answer\n\n2"]
    assert record.labels == StepLabels(values=(1, None), kind="human", source="PRM800K")
    assert (record.trajectory.answer, record.trajectory.finish) == ("2", "answer")
    assert record.trajectory.problem.answer == "2"
    every = list(read_records(path, view="completions"))
    assert [texts(r) for r in every] == [["Add."], ["Guess."], ["Add.", "It is 3."]]
    assert [r.labels.values for r in every] == [(1,), (0,), (None, -1)]


def test_prm800k_ends_at_the_error_that_was_not_chosen(tmp_path):
    row = json.loads(json.dumps(ROWS["prm800k"]))
    row["label"]["steps"][1]["human_completion"] = None
    row["label"]["finish_reason"] = "found_error"
    record = only(put(tmp_path / "a.jsonl", [row]))
    assert (texts(record), record.labels.values) == (["Add.", "It is 3."], (1, -1))
    assert record.trajectory.finish == "open"


def test_math_shepherd_signs_are_found_by_alignment(tmp_path):
    record = only(put(tmp_path / "a.jsonl", [ROWS["math_shepherd"]]))
    assert record.trajectory.problem.prompt == "What is 2 - 1 + 1?"
    assert texts(record) == ["Step 1: 2 - 1 = 1", "Step 2: 1 + 1 = 3"]
    assert record.labels.values == (1, 0)
    missing = dict(ROWS["math_shepherd"])
    missing["label"] = "What is 2 - 1 + 1? Step 1: 2 - 1 = 1 \nStep 2: 1 + 1 = 3 -"
    assert only(put(tmp_path / "b.jsonl", [missing])).labels.values == (None, 0)
    missing["label"] = missing["label"].replace("Step 2: 1", "Step 2: 7")
    with pytest.raises(FormatError, match=r"c\.jsonl:1: 'label' does not match 'input' after 1"):
        only(put(tmp_path / "c.jsonl", [missing]))


def test_soft_labels_stay_soft(tmp_path):
    row = {"prompt": "q", "completions": ["a", "b"], "labels": [0.25, 1.0]}
    record = only(put(tmp_path / "a.jsonl", [row]))
    assert record.labels == StepLabels(values=(0.25, 1), kind="soft", source="stepwise")
    for name in ("stepwise", "openrlhf"):
        write_records([record], tmp_path / "b.jsonl", name)
        assert only(tmp_path / "b.jsonl").labels.values == (0.25, 1.0)
    with pytest.raises(LabelPolicyNeeded, match=r"record 1: Math-Shepherd .* --threshold 0"):
        write_records([record], tmp_path / "c.jsonl", "math_shepherd")
    assert not (tmp_path / "c.jsonl").exists()
    write_records(
        [record], tmp_path / "c.jsonl", "math_shepherd", policy=LabelPolicy(threshold=0.5)
    )
    assert only(tmp_path / "c.jsonl").labels.values == (0, 1)


def labelled(kind, *values):
    return Record(
        trajectory=Trajectory(
            problem=Problem(id="p", prompt="q"),
            steps=tuple(Step(text=f"s{i}") for i in range(len(values))),
            separator="\n",
        ),
        labels=StepLabels(values=values, kind=kind),
    )


@pytest.mark.parametrize(
    ("policy", "kind", "values", "expected"),
    [
        ({}, "human", (1, 0, -1, 1), (1, 0, -1, 1)),
        ({"neutral": "positive"}, "human", (1, 0, -1, 1), (1, 1, 0, 1)),
        ({"neutral": "negative"}, "human", (1, 0, -1, 1), (1, 0, 0, 1)),
        ({"neutral": "drop"}, "human", (1, 0, -1, 1), (1, None, 0, 1)),
        ({"neutral": "drop", "after_error": "drop"}, "human", (1, 0, -1, 1), (1, None, 0, None)),
        ({"after_error": "negative"}, "human", (1, -1, 0, 1), (1, -1, -1, -1)),
        ({"after_error": "negative"}, "hard", (1, 0, None, 1), (1, 0, 0, 0)),
        ({"after_error": "drop"}, "hard", (1, 0, 1), (1, 0, None)),
        ({"threshold": 0.0}, "soft", (0.125, 0.0, 1.0), (1, 0, 1)),
        ({"threshold": 0.5}, "soft", (0.5, 0.51, None), (0, 1, None)),
        ({"after_error": "negative"}, "soft", (0.5, 0.0, 0.5), (0.5, 0, 0)),
        ({"threshold": 0.5}, "hard", (1, 0), (1, 0)),
    ],
)
def test_label_policy(policy, kind, values, expected):
    assert LabelPolicy(**policy).apply(labelled(kind, *values).labels).values == expected


def test_neutral_needs_a_decision(tmp_path):
    record = labelled("human", 1, 0, -1)
    with pytest.raises(LabelPolicyNeeded, match="step 1 is rated neutral"):
        write_records([record], tmp_path / "a.jsonl", "stepwise")
    write_records([record], tmp_path / "a.jsonl", "stepwise", policy=LabelPolicy(neutral="drop"))
    again = only(tmp_path / "a.jsonl")
    # The step without a label is joined to the next.
    assert (texts(again), again.labels.values) == (["s0", "s1\ns2"], (1, 0))


def test_processbench_says_only_what_is_known(tmp_path):
    record = only(put(tmp_path / "a.jsonl", [ROWS["processbench"]]))
    assert record.labels.values == (1, 0, None)
    write_records([labelled("hard", 1, 1)], tmp_path / "b.jsonl", "processbench")
    assert json.loads((tmp_path / "b.jsonl").read_text())["label"] == -1
    with pytest.raises(FormatError, match="step 1 has no label"):
        write_records([labelled("hard", 1, None)], tmp_path / "b.jsonl", "processbench")


def test_prmbench_counts_from_one_and_keeps_steps_past_the_end(tmp_path):
    record = only(put(tmp_path / "a.jsonl", [ROWS["prmbench"]]))
    assert record.trajectory.problem.id == "circular_t_0"
    assert record.labels.values == (1, 0)
    write_records([record], tmp_path / "b.jsonl", "prmbench")
    assert json.loads((tmp_path / "b.jsonl").read_text())["error_steps"] == [2, 5]


def test_gsm8k_text_is_kept(tmp_path):
    record = only(put(tmp_path / "a.jsonl", [ROWS["gsm8k"]]))
    assert texts(record) == ["Add <<1+1=2>>2.\n", "So 2.\n#### 2"]
    assert record.trajectory.text == ROWS["gsm8k"]["answer"]
    assert record.trajectory.problem.answer == "2"


def test_chat_splitters_and_parts(tmp_path):
    path = put(tmp_path / "a.jsonl", [ROWS["openai_chat"]])
    assert texts(only(path)) == ["Add.\n\n", "It is 2."]
    assert texts(only(path, split="sentence")) == ["Add.\n\n", "It is 2."]
    assert texts(only(path, split="marker:d.")) == ["Add.\n", "\nIt is 2."]
    image = {"type": "image_url", "image_url": {"url": "file:a.png"}}
    content = [{"type": "text", "text": "See:"}, image]
    record = only(put(tmp_path / "b.jsonl", [{"messages": [{"role": "user", "content": content}]}]))
    assert record.trajectory.problem.images == ("file:a.png",)
    assert record.trajectory.finish == "open"
    calls = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    with pytest.raises(FormatError, match="calls tools"):
        list(read_records(put(tmp_path / "c.jsonl", [{"messages": [calls]}]), "openai_chat"))


def test_a_tag_inside_of_a_step_is_refused(tmp_path):
    record = labelled("hard", 1)
    bad = record.replace(
        trajectory=Trajectory(problem=Problem(id="p", prompt="q"), steps=(Step(text="a ки b"),))
    )
    for name in ("math_shepherd", "openrlhf"):
        with pytest.raises(FormatError, match="which this text itself holds"):
            write_records([bad], tmp_path / "a.jsonl", name)


def test_ambiguous_and_unknown_files_are_refused(tmp_path):
    both = {**ROWS["math_shepherd"], "value": ["+", "-"]}
    with pytest.raises(AmbiguousFormat, match="math_shepherd and openrlhf; name one"):
        recognise(put(tmp_path / "a.jsonl", [both]))
    with pytest.raises(FormatError, match="no known format has rows with the keys 'x'"):
        recognise(put(tmp_path / "b.jsonl", [{"x": 1}]))
    with pytest.raises(FormatError, match="holds no row"):
        recognise(put(tmp_path / "c.jsonl", []))
    with pytest.raises(FormatError, match="not all of the first 2 are"):
        recognise(put(tmp_path / "d.jsonl", [ROWS["gsm8k"], {"x": 1}]))
    with pytest.raises(UnknownName, match="Did you mean 'stepwise'"):
        list(read_records(put(tmp_path / "e.jsonl", []), "step_wise"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("processbench", {"label": 9}, "from -1 .* to 2"),
        ("processbench", {"label": "1"}, "'label' is '1'; expected a whole number"),
        ("processbench", {"steps": [1]}, "item 0 of 'steps' is 1; expected a text"),
        ("stepwise", {"labels": [True]}, "1 labels for 2 completions"),
        ("stepwise", {"labels": [2.0, 0.5]}, r"soft labels are in \[0, 1\]"),
        ("openrlhf", {"value": ["+"]}, "1 values for 2 tags"),
        ("openrlhf", {"value": ["+", 0.5]}, "'\\+' and '-' alone, or numbers alone"),
        ("rlhflow", {"conversations": [{"role": "assistant", "content": "+"}]}, "expected 'user'"),
        ("prmbench", {"error_steps": [0]}, "counted from 1"),
        ("gsm8k", {"answer": "no"}, "no line '#### …'"),
        ("prmkit", {"colour": 1}, "colour: Extra inputs"),
        ("prmkit", {"version": 2}, "version: Input should be 1"),
        ("math_shepherd", {"input": 5}, "'input' is 5; expected a text"),
        (
            "prm800k",
            {"label": {"steps": [{"completions": [{"text": "a", "rating": 5}]}]}},
            "rating is 5",
        ),
    ],
)
def test_bad_rows_are_told_with_their_line(tmp_path, name, change, message):
    path = put(tmp_path / "a.jsonl", [ROWS[name], {**ROWS[name], **change}])
    with pytest.raises(FormatError, match=message) as caught:
        list(read_records(path, name))
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'\n{"a": \n', r"a\.jsonl:2: this line is no JSON"),
        (b'{"a": NaN}\n', "NaN is no JSON"),
        (b"[1]\n", r"a\.jsonl:1: expected a JSON object, found 1"),
        (b"[" + GOOD + b', {"a"', "item 2 of the list is no JSON"),
        (b"\xff\xfe", "no UTF-8"),
        (b"PAR1nonsense", "Parquet file is damaged"),
        (gzip.compress(GOOD * 999)[:-9], "breaks off"),
        (b'{"version": 1, "trajectory": {"problem": {"id": "\\ud800", "prompt": ""}}}\n', ":1: "),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        list(read_records(path, "prmkit" if b"version" in content else "stepwise"))


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        list(read_records(tmp_path / "none.jsonl"))
    with pytest.raises(FormatError, match=r"end it with \.jsonl"):
        write_records([], tmp_path / "a.csv")
    with pytest.raises(FormatError, match="can only be read"):
        write_records([], tmp_path / "a.jsonl", "bon_pool")
    with pytest.raises(FormatError, match="has no view 'chosen'; it has path, completions"):
        list(read_records(put(tmp_path / "a.jsonl", [ROWS["prm800k"]]), view="chosen"))
    with pytest.raises(FormatError, match="says itself what its steps are"):
        list(read_records(put(tmp_path / "b.jsonl", [ROWS["gsm8k"]]), split="line"))


def test_a_list_with_strange_spacing(tmp_path):
    path = tmp_path / "a.json"
    rows = [ROWS["stepwise"]] * 3
    path.write_text("\n [ " + " ,\n".join(json.dumps(row, indent=2) for row in rows) + "\n]\n")
    assert len(list(read_records(path))) == 3
    path.write_text("[]")
    assert list(read_records(path, "stepwise")) == []


def test_a_bad_row_leaves_no_output_and_the_old_one(tmp_path):
    source = put(tmp_path / "a.jsonl", [ROWS["processbench"], {**ROWS["processbench"], "label": 9}])
    target = tmp_path / "b.jsonl"
    settings = ConvertSettings(source=source, target=target, from_="processbench", to="stepwise")
    with pytest.raises(FormatError, match=r"a\.jsonl:2"):
        convert(settings)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_skip_bad_counts_and_lists(tmp_path):
    good = ROWS["processbench"]
    source = tmp_path / "a.jsonl"
    lines = [json.dumps(good), "{", json.dumps({**good, "label": 9}), json.dumps(good)]
    source.write_text("\n".join(lines) + "\n")
    seen = []
    result = convert(
        ConvertSettings(
            source=source,
            target=tmp_path / "b.jsonl",
            from_="processbench",
            to="stepwise",
            skip_bad=True,
        ),
        on_progress=seen.append,
    )
    assert (result.records, result.from_format, sum(seen)) == (2, "processbench", 2)
    assert [s.line for s in result.skipped] == [2, 3]
    assert "no JSON" in result.skipped[0].why
    assert len(list(read_records(tmp_path / "b.jsonl"))) == 2


def test_a_record_that_the_target_cannot_hold_names_the_line_of_the_source(tmp_path):
    source = put(tmp_path / "a.jsonl", [ROWS["gsm8k"]])
    with pytest.raises(FormatError, match=r"a\.jsonl:1: Math-Shepherd holds labelled steps"):
        convert(ConvertSettings(source=source, target=tmp_path / "b.jsonl", to="math_shepherd"))


def test_parquet_with_new_keys_late_is_refused_not_cut(tmp_path):
    first = [labelled("hard", 1)] * 1000
    late = labelled("hard", 1).replace(meta={"colour": "red"})
    with pytest.raises(FormatError, match="a row has .'colour'., which the first 1000 rows lack"):
        write_records([*first, late], tmp_path / "a.parquet", "stepwise")
    assert not (tmp_path / "a.parquet").exists()


def test_a_chat_that_would_read_its_question_as_the_solution_is_not_written(tmp_path):
    problem = Problem(id="p", messages=(Message(role="assistant", content="Ask me."),))
    path = tmp_path / "a.jsonl"
    with pytest.raises(FormatError, match="'p' ends with a turn of the assistant"):
        write_records([Record(trajectory=Trajectory(problem=problem))], path, "openai_chat")
    assert not path.exists()
    solved = Trajectory(problem=problem, steps=(Step(text="7"),), finish="eos")
    write_records([Record(trajectory=solved)], path, "openai_chat")
    (again,) = read_records(path, "openai_chat")
    assert texts(again) == ["7"]
    assert again.trajectory.problem.messages == problem.messages


def test_pools_of_samples_with_their_scores(tmp_path):
    def read(name):
        return list(read_records(put(tmp_path / f"{name}.jsonl", [ROWS[name]])))

    right, wrong = read("qwen_math")
    assert (right.trajectory.problem.id, right.trajectory.answer) == ("3", "2")
    assert (wrong.trajectory.answer, wrong.trajectory.correct) == (None, False)
    assert wrong.scores[0].values == (-0.25,)
    right, wrong = read("rprm_pool")
    assert texts(right) == ["Add.", "It is 2."]
    assert [r.trajectory.correct for r in (right, wrong)] == [True, False]
    first, second = read("search_and_learn")
    assert texts(first) == ["Add.", "It is \\boxed{2}."]
    assert first.scores[0].values == (0.5, 0.75)
    assert first.trajectory.correct is None
    # Cut elsewhere than between blank lines: the last score is of the whole.
    assert (texts(second), second.scores[0].values) == (["It is 3."], (0.125,))
    (sample,) = read("prm800k_samples")
    assert {s.model: s.values for s in sample.scores} == {"prm_score": (0.75,), "orm_score": (0.5,)}


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("qwen_math", {"pred": ["2"]}, "2 in 'code', 1 in 'pred'"),
        ("qwen_math", {"pred_score": [["x"], [1]]}, "item 0 of 'pred_score'"),
        ("qwen_math", {"score": [1, "no"]}, "expected true or false"),
        ("rprm_pool", {"labels": [True]}, "2 in 'steps', 1 in 'labels'"),
        ("rprm_pool", {"steps": [["a"], [1]]}, "solution 1 of 'steps'"),
        ("search_and_learn", {"scores": [[0.1]]}, "2 in 'completions', 1 in 'scores'"),
        ("search_and_learn", {"scores": [[0.1], ["x"]]}, "item 1 of 'scores'"),
        ("bon_pool", {"candidates": [3]}, "a candidate is 3"),
    ],
)
def test_bad_pools(tmp_path, name, change, told):
    if name == "bon_pool":
        path = tmp_path / "x_candidates.jsonl"
        put(tmp_path / "x_problems.jsonl", [{"problem_id": "p", "question": "q"}])
    else:
        path = tmp_path / "a.jsonl"
    put(path, [{**ROWS[name], **change}])
    with pytest.raises(FormatError, match=f":1: .*{told}"):
        list(read_records(path, name))


def test_lists_and_objects_over_several_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\n  " + json.dumps(ROWS["stepwise"], indent=2))
    assert texts(only(path)) == ["Add.", "It is 3."]
    for text, told in (
        ("[{} {}]", r"after item 1 of the list comes '\{\}"),
        ("[{}] x", "after the list comes 'x'"),
    ):
        path.write_text(text.replace("{}", json.dumps(ROWS["stepwise"])))
        with pytest.raises(
            FormatError, match=told if "list comes 'x'" in told else "expected a comma"
        ):
            list(read_records(path, "stepwise"))


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"a, b","one\ntwo\n#### 2"\n')
    assert only(path).trajectory.problem.text == "a, b"
    path.write_text("question,answer\na,b,c\n")
    with pytest.raises(FormatError, match=r"a\.csv:2: a row has more or fewer cells than the 2"):
        list(read_records(path, "gsm8k"))


def test_damaged_gzip_is_told(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(GOOD * 500)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(FormatError):
        list(read_records(path, "stepwise"))

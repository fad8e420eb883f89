"""Published figures from published scores; skipped where the data are not at hand."""

import pytest

from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import check_content, constant_scores, group_numbers, splits
from prmkit.evaluation.contamination import contamination
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement, verdict_of_index
from prmkit.evaluation.run import MeasureSettings, statistics_of
from prmkit.evaluation.score_files import in_order, read_scores, stored_scores
from prmkit.evaluation.statistics import Bootstrap
from prmkit.formats.files import read_records
from prmkit.testing import check_benchmark


def values(benchmark, cases, judgements, **settings):
    protocol = MeasureSettings(**settings).protocol
    judged = Judged.of(cases, judgements, group_numbers(cases), protocol, benchmark.equal)
    figures, _ = statistics_of(benchmark, judged, protocol)
    once = Bootstrap(judged.n_groups, resamples=0)
    return {name: once.value(statistic) for name, statistic in figures.items()}


@pytest.fixture(scope="module")
def gsm8k(shared_data):
    return BENCHMARKS["best_of_n"].read(shared_data / "bon_gsm8k")


@pytest.fixture(scope="module")
def prmbench(shared_data):
    return BENCHMARKS["prmbench"].read(shared_data / "prmbench")


# R-PRM-7B on PRMBench: with its own labels, with score > 0.5, with score >= 0.5.
R_PRM = {
    "NR": 52.7,
    "NCL": 64.7,
    "ES": 70.1,
    "SC": 62.7,
    "DC": 63.4,
    "CI": 69.5,
    "PS": 61.4,
    "DR": 67.4,
    "repeats_counted/MS": 98.4,
}


def test_r_prm_on_prmbench(shared_data, prmbench):
    known, cases = BENCHMARKS["prmbench"], prmbench
    assert len(cases) == 6216
    assert not check_content(known, cases)
    path = shared_data / "prmbench" / "rprm7b_step_scores_6216.jsonl"
    (judgements,) = in_order(read_scores(path, known, cases), cases).values()
    labels = values(known, cases, judgements)
    assert 100 * labels["prm_score"] == pytest.approx(64.9, abs=0.05)
    for name, expected in R_PRM.items():
        assert 100 * labels[name] == pytest.approx(expected, abs=0.05), name
    # Of the official 160 without the repeated ids.
    assert 100 * labels["MS"] == pytest.approx(98.30, abs=0.005)
    above = values(known, cases, judgements, use="scores")
    assert 100 * above["prm_score"] == pytest.approx(65.96, abs=0.005)
    at_least = values(known, cases, judgements, use="scores", equal="right")
    assert 100 * at_least["prm_score"] == pytest.approx(66.62, abs=0.005)


def test_all_valid_on_prmbench(prmbench):
    known, cases = BENCHMARKS["prmbench"], prmbench
    found = values(known, cases, [constant_scores(case, 1.0) for case in cases])
    assert 100 * found["prm_score"] == pytest.approx(45.7, abs=0.05)
    n_valid = sum(v == 1 for c in cases for v in c.record.labels.values)
    n_steps = sum(len(c.record.labels.values) for c in cases)
    assert (n_valid, n_steps - n_valid) == (70307, 13149)


# Tie-aware best of 8 and of 32 by the lowest, the last, the product and the mean of the steps.
GSM8K = {
    "qwen_prm": (".9551/.9609", ".9501/.9519", ".9551/.9600", ".9555/.9620"),
    "skywork_prm": (".9503/.9548", ".9565/.9660", ".9484/.9560", ".9532/.9660"),
    "rlhflow_prm": (".9433/.9486", ".9381/.9378", ".9431/.9436", ".9434/.9476"),
    "skywork_prm_1_5b": (".9389/.9399", ".9462/.9480", ".9363/.9360", ".9418/.9500"),
    "math_shepherd": (".9372/.9370", ".9365/.9380", ".9347/.9400", ".9358/.9420"),
    "internlm2_7b_reward": (".9267/.9200", ".9427/.9460", ".9261/.9160", ".9361/.9320"),
    "internlm2_1_8b_reward": (".9190/.9090", ".9349/.9340", ".9212/.9160", ".9258/.9220"),
}
AUC = {
    "qwen_prm": (0.904, 0.830),
    "skywork_prm": (0.894, 0.896),
    "rlhflow_prm": (0.851, 0.789),
    "skywork_prm_1_5b": (0.829, 0.852),
    "math_shepherd": (0.814, 0.825),
    "internlm2_7b_reward": (0.590, 0.818),
    "internlm2_1_8b_reward": (0.579, 0.669),
}


@pytest.fixture(scope="module")
def judged(gsm8k):
    return in_order(stored_scores(gsm8k), gsm8k)


def test_seven_models_judged_the_gsm8k_samples(gsm8k, judged):
    assert len(gsm8k) == 16000
    assert set(judged) == set(GSM8K)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(one, marks=[] if one in ("qwen_prm", "math_shepherd") else pytest.mark.slow)
        for one in GSM8K
    ],
)
def test_the_table_of_seven_models_on_gsm8k_samples(gsm8k, judged, model):
    found = values(BENCHMARKS["best_of_n"], gsm8k, judged[model])
    assert found["pass_1"] == pytest.approx(0.9206, abs=5e-5)
    assert found["pass_8"] == pytest.approx(0.9713, abs=5e-5)
    assert found["pass_32"] == pytest.approx(0.9800, abs=5e-5)
    assert found["majority_32"] == pytest.approx(0.942, abs=1e-9)
    for how, cell in zip(("min", "last", "product", "mean"), GSM8K[model], strict=True):
        for n, expected in zip((8, 32), cell.split("/"), strict=True):
            shown = f"{found[f'best_of_{n}/{how}']:.4f}"
            assert shown == f"0{expected}", (model, n, how)
    for how, expected in zip(("min", "last"), AUC[model], strict=True):
        assert found[f"solutions/roc_auc/{how}"] == pytest.approx(expected, abs=5.1e-4)


def test_scores_beside_the_pool_are_those_in_it(shared_data, gsm8k):
    known, cases = BENCHMARKS["best_of_n"], gsm8k
    path = shared_data / "bon_gsm8k" / "gsm8k_step_scores.jsonl.gz"
    beside, inside = read_scores(path, known, cases), stored_scores(cases)
    assert beside == inside


def test_processbench_counts_and_judges_by_hand(shared_data):
    known = BENCHMARKS["processbench"]
    cases = known.read(shared_data / "processbench")
    assert splits(cases) == ["gsm8k", "math"]
    check_benchmark(known, cases, published=True)
    truth = [case.record.labels.first_error for case in cases]
    counts = {
        split: (
            sum(t is not None for c, t in zip(cases, truth, strict=True) if c.split == split),
            sum(t is None for c, t in zip(cases, truth, strict=True) if c.split == split),
        )
        for split in splits(cases)
    }
    assert counts == {"gsm8k": (207, 193), "math": (594, 406)}
    n = [len(case.record.trajectory.steps) for case in cases]

    def judge(say):
        return [
            Judgement(None, verdict_of_index(say(t, k), k)) for t, k in zip(truth, n, strict=True)
        ]

    assert values(known, cases, judge(lambda t, k: t))["f1"] == 1
    assert values(known, cases, judge(lambda t, k: None if t is not None else 0))["f1"] == 0
    never = values(known, cases, judge(lambda t, k: None))
    assert never["f1"] == 0
    assert never["gsm8k/accuracy_right"] == 1
    # "The first step, always": right where it is, never on right solutions.
    first = values(known, cases, judge(lambda t, k: 0))
    wrong_at_first = sum(t == 0 for c, t in zip(cases, truth, strict=True) if c.split == "gsm8k")
    assert first["gsm8k/accuracy_wrong"] == pytest.approx(wrong_at_first / 207)
    assert first["f1"] == 0


def test_published_overlaps_of_training_and_benchmarks(shared_data, prmbench):
    training = [
        r.trajectory.problem.text
        for r in read_records(shared_data / "prm800k" / "phase1_train.jsonl", "prm800k")
    ]
    assert len(set(training)) == 900
    math = [
        c.record.trajectory.problem.text
        for c in BENCHMARKS["processbench"].read(shared_data / "processbench" / "math.json")
    ]
    exact = [o for o in contamination(sorted(set(math)), training) if o.exact]
    assert len(set(math)) == 955
    assert not exact
    questions = {str(c.record.meta["original_question"]) for c in prmbench}
    texts = sorted(questions)
    found = {texts[o.problem] for o in contamination(texts, training) if o.exact}
    same = questions & set(training)
    # 310 are the same texts. PRMBench writes many others without dollar signs: these are seen too.
    assert len(same) == 310
    assert same < found
    assert len(found) == 754

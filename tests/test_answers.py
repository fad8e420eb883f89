import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.answers import Checker, canonical, extract_answer, same_answer


@pytest.fixture(scope="module")
def checker():
    with Checker(workers=2, timeout=5.0) as checker:
        yield checker


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{12} or rather \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{3} and \\boxed{unclosed", "3"),
        ("She has 9.\n#### 1,234", "1,234"),
        ("Thus 7.\n\n# Answer\n\n$7$", "7"),
        ("Therefore, the final answer is: $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
        ("The answer is 3.5.", "3.5"),
        ("**Answer:** 42", "42"),
        ("The answer is 1 apple. No: the answer is 2", "2"),
        ("nothing here 5", None),
        ("", None),
    ],
)
def test_extract(text, answer):
    assert extract_answer(text) == answer


def test_extract_last_number():
    assert extract_answer("He pays 3 times 1,200 or -4.5", last_number=True) == "-4.5"
    assert extract_answer("none", last_number=True) is None


@given(st.text())
def test_extract_takes_any_text(text):
    extract_answer(text, last_number=True)
    canonical(text)


@pytest.mark.parametrize(
    ("gold", "given", "verdict"),
    [
        ("18", "18.00", "equal"),
        ("1,234", "$1234$", "equal"),
        ("-0", "0", "equal"),
        ("18", "19", "different"),
        ("1/2", "0.5", "equal"),
        ("\\frac{1}{2}", "\\dfrac{2}{4}", "equal"),
        ("\\frac{\\sqrt{3}}{3}", "1/\\sqrt{3}", "equal"),
        ("(1,2)", "(2,1)", "different"),
        ("x^2+2x+1", "(x+1)^2", "equal"),
        ("tab", "bat", "different"),
        ("\\text{Tuesday}", "tuesday", "equal"),
        ("(B)", "B", "equal"),
        ("B", "A", "different"),
        ("3", "", "unparsable"),
    ],
)
def test_compare(checker, gold, given, verdict):
    assert checker.compare(gold, given) == verdict


def test_a_runaway_power_is_stopped_and_the_next_comparison_works():
    with Checker(timeout=1.0) as checker:
        assert checker.compare("1/3", "2/6") == "equal"
        assert checker.compare("9^{9^{9}}", "5") == "timeout"
        assert checker.compare("1/4", "2/8") == "equal"


def test_a_dead_worker_is_replaced():
    with Checker() as checker:
        assert checker.compare("1/3", "2/6") == "equal"
        worker = checker._idle.get()
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        checker._idle.put(worker)
        assert checker.compare("1/5", "2/10") == "equal"


def test_threads_and_async_share_it(checker):
    pairs = [(f"{i}/7", f"{2 * i}/14") for i in range(1, 20)]
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda p: checker.compare(*p), pairs)) == {"equal"}

    async def many():
        return await asyncio.gather(
            *(checker.compare_async(f"{i}/11", f"{i + 1}/11") for i in range(1, 10))
        )

    assert set(asyncio.run(many())) == {"different"}


def test_the_alarm_of_the_caller_survives(checker):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        assert checker.compare("1/13", "2/26") == "equal"
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_groups_of_equal_answers(checker):
    answers = ["1/2", "3", "0.5", None, "3.0", "\\frac12", "4"]
    assert checker.group(answers) == [0, 1, 0, None, 1, 0, 2]


def test_shared_checker_in_a_thread_of_a_fresh_process():
    code = (
        "import threading\n"
        "from prmkit.answers import same_answer\n"
        "threading.Thread(target=lambda: print(same_answer('1/2', '0.5'))).start()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "equal\n"
    assert ran.stderr == ""


def test_results_are_remembered(checker):
    assert same_answer("2", "2.0") == "equal"
    checker.compare("17/3", "34/6")
    held = [checker._idle.get(), checker._idle.get()]
    try:
        # No worker is free: only what is remembered can be told.
        answer = []
        thread = threading.Thread(target=lambda: answer.append(checker.compare("17/3", "34/6")))
        thread.start()
        thread.join(10)
        assert answer == ["equal"]
    finally:
        for worker in held:
            checker._idle.put(worker)


def test_refusals():
    with pytest.raises(ValueError, match="workers is 0"):
        Checker(workers=0)
    with pytest.raises(ValueError, match="timeout is 0"):
        Checker(timeout=0)

"""Benchmarks, one file each: the cases, the protocol, the published rows."""

from prmkit.evaluation.benchmarks import (
    agent_process_bench,
    best_of_n,
    bigbench_mistake,
    mr_ben,
    mr_gsm8k,
    mr_math,
    prm800k,
    prmbench,
    processbench,
    who_and_when,
)
from prmkit.evaluation.cases import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        processbench.BENCHMARK,
        prmbench.BENCHMARK,
        best_of_n.BENCHMARK,
        prm800k.BENCHMARK,
        prm800k.COMPLETIONS,
        mr_gsm8k.BENCHMARK,
        mr_ben.BENCHMARK,
        mr_math.BENCHMARK,
        mr_math.REDUNDANT,
        bigbench_mistake.BENCHMARK,
        agent_process_bench.BENCHMARK,
        who_and_when.BENCHMARK,
    )
}
"""Every benchmark, by name."""

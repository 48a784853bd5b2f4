"""The processor, from what Linux and macOS say about it."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lowbit.processor import in_order, parse_cpuinfo, parse_sysctl, processor, single_thread_blas

X86 = """processor\t: 0
model name\t: AMD EPYC 9R14
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx2
processor\t: 1
model name\t: other
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"
APPLE = "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n"
INTEL_MAC = (
    "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nmachdep.cpu.leaf7_features: AVX2 BMI1\n"
    "machdep.cpu.features: SSE FMA F16C\n"
)


def test_parsing():
    assert parse_cpuinfo(X86) == ("AMD EPYC 9R14", ("avx2", "avx512f", "avx512_vnni"))
    assert parse_cpuinfo(ARM)[1] == ("asimd", "asimddp", "i8mm")
    assert parse_cpuinfo("")[0]
    assert parse_sysctl(APPLE) == ("Apple M2", ("asimddp", "i8mm"))
    assert parse_sysctl(INTEL_MAC) == ("Intel(R) Core(TM) i7", ("avx2", "fma", "f16c"))


def test_this_processor():
    name, flags = processor()
    assert name
    if sys.platform == "linux":
        assert (name, flags) == parse_cpuinfo(Path("/proc/cpuinfo").read_text())


@pytest.mark.parametrize("threads", [1, 3])
def test_work_on_threads_comes_back_in_order_and_never_runs_far_ahead(threads):
    begun = []

    def work(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    def items():
        for item in range(20):
            begun.append(item)
            yield item

    for at, found in enumerate(in_order(work, items(), threads=threads)):
        assert found == at * at
        assert len(begun) <= at + threads + 2


def test_an_error_in_a_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [1, 0, 1], threads=2))


def test_products_take_one_thread_inside_and_as_many_as_before_after():
    def threads():
        (np.ones((2, 2)) @ np.ones((2, 2))).sum()  # so that there is a library
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before = threads()
    with single_thread_blas():
        assert set(threads()) == {1}
    assert threads() == before

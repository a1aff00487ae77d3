import pytest
from builders import build_condition

from hilo_nas.timing.advice import advise, count_cores, read_cpu_flags


@pytest.mark.parametrize(
    ("fields", "flags", "words"),
    [
        ({"threads": 2}, {"avx2"}, []),
        ({"threads": None}, {"avx2"}, []),
        ({"threads": 8}, {"avx2"}, ["Set timing.threads=2"]),
        ({"precision": "fp16"}, {"avx2"}, ["fp16 is emulated"]),
        ({"precision": "amp-fp16"}, {"avx2"}, ["amp-fp16 is emulated"]),
        ({"precision": "fp16"}, {"avx512_fp16"}, []),
        ({"precision": "fp16"}, {"asimdhp"}, []),
        ({"precision": "fp16"}, None, []),
        ({"precision": "bf16"}, set(), []),
        ({"precision": "fp16", "device": "cuda"}, set(), []),
        ({"precision": "fp16", "threads": 3}, set(), ["but got 3", "fp16 is emulated"]),
    ],
)
def test_threads_beyond_the_cores_and_half_precision_without_its_arithmetic_are_warned_of(fields, flags, words):
    found = advise(build_condition(**fields), cores=2, flags=flags)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_this_machine_says_what_it_has():
    assert count_cores() >= 1
    assert read_cpu_flags() is None or read_cpu_flags()

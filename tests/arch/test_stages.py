import dataclasses

from builders import TINY

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import count_cost, count_parts
from hilo_nas.arch.stages import summarize_stages


def test_stages_of_litv2_small_are_those_of_the_paper():
    stages = summarize_stages(PRESETS["litv2_small"], 224)
    assert [stage.map_side for stage in stages] == [56, 28, 14, 7]
    assert [stage.attention for stage in stages] == ["none", "none", "hilo", "hilo"]
    assert (stages[2].hifi_heads, stages[2].lofi_heads, stages[2].window_size) == (2, 10, 2)
    assert (stages[3].hifi_heads, stages[3].lofi_heads) == (0, 24)
    assert stages[0].num_heads is stages[0].window_size is None


def test_stages_and_the_ends_add_up_to_the_network():
    stages, cost, parts = summarize_stages(TINY, 32), count_cost(TINY, 32), count_parts(TINY, 32)
    ends = [parts["patches"], parts["head"]]
    for name in ("parameters", "macs"):
        assert sum(getattr(own, name) for own in (*stages, *ends)) == getattr(cost, name)


def test_a_kind_that_has_no_heads_names_none():
    arch = dataclasses.replace(TINY, attention=("none", "none", "none", "none"))
    assert {stage.lofi_heads for stage in summarize_stages(arch, 32)} == {None}

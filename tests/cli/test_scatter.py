from hilo_nas.cli.scatter import render_scatter
from hilo_nas.proxy.kinds import metric_named

TOP1 = metric_named("top1")


def test_the_fastest_is_at_the_right_and_the_best_at_the_top():
    lines = render_scatter([(200.0, 0.2)], [(100.0, 0.5), (1000.0, 0.1)], TOP1, width=40, height=6)
    assert len(lines) == 6
    assert lines[0].startswith("50.0 % │●")
    assert lines[4].startswith("10.0 % │")
    assert lines[4].endswith("●")
    assert sum(line.count("·") for line in lines) == 1
    assert lines[5].startswith("       └100")
    assert lines[5].endswith("1,000 images/s")
    assert max(map(len, lines)) <= 40


def test_a_member_of_the_front_covers_other_networks():
    lines = render_scatter([(100.0, 0.5), (900.0, 0.1)], [(100.0, 0.5)], TOP1, width=30, height=4)
    assert lines[0].count("●") == 1


def test_nothing_is_drawn_without_networks_and_one_network_is_a_point():
    assert render_scatter([], [], TOP1, width=40, height=6) == []
    assert "●" in "".join(render_scatter([], [(100.0, 0.5)], TOP1, width=40, height=6))

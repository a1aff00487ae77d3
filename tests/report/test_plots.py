import dataclasses
import datetime

import optuna
import plotly.graph_objects as go
import pytest
from builders import build_arch, build_failed, build_manifest, build_record, demo_records, digits, write_study

from hilo_nas.errors import UsageError
from hilo_nas.report.plots import plot_front, plot_hypervolume, plot_importances, plot_parallel, plot_timeline
from hilo_nas.report.plots.hypervolume_plot import hypervolume_curve
from hilo_nas.report.plots.importances_plot import knob_importances
from hilo_nas.report.plots.static_figure import render_static
from hilo_nas.report.plots.timeline_plot import seconds_spent
from hilo_nas.report.study_view import StudyView
from hilo_nas.study.front import speed_hypervolume


def searched(count=32):
    """Records of a search: depths of stage 3 set the value, depths of stage 1 the speed; each trial ends later."""
    start = datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC)
    records = []
    for i in range(count):
        arch = build_arch(i)
        speed = 1000.0 / arch.depths[0] - 5 * arch.depths[2]
        value = 0.5 + 0.08 * arch.depths[2] + 0.01 * arch.depths[0]
        ended = (start + datetime.timedelta(minutes=i)).isoformat()
        records.append(build_record(i, speed, value, arch=arch, finished_at=ended, params=digits().encode(arch)))
    return records


@pytest.fixture
def view(tmp_path):
    return StudyView.from_study(write_study(tmp_path, "demo", searched()))


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_the_front_keeps_every_network_that_has_a_speed(tmp_path):
    manifest = build_manifest(limits={"images_per_s": 400.0})
    own = StudyView.from_study(write_study(tmp_path, "demo", demo_records(), manifest))
    figure = plot_front([own])
    found = traces(figure)
    assert sorted(found["on the front"].x) == [500.0, 900.0, 1000.0]
    assert found["on the front"].y == pytest.approx((80.0, 75.0, 50.0))
    assert len(found["beaten"].x) == 2
    infeasible = found["infeasible (not trained)"]
    assert infeasible.x == (10.0,)
    assert infeasible.y[0] < 50.0
    assert found["anchor"].text == ("litv2_tiny",)
    assert figure.layout.shapes[0].x0 == 400.0
    (note,) = figure.layout.annotations
    assert (10**note.x, note.text) == (pytest.approx(400.0), "limit 400")  # plotly wants the logarithm
    assert found["on the front"].error_y.array[0] == pytest.approx(100 * own.front.half_widths[2])


def test_a_front_without_a_speed_is_refused(tmp_path):
    view = StudyView.from_study(write_study(tmp_path, "demo", [build_failed(0)]))
    with pytest.raises(UsageError, match="no network was timed"):
        plot_front([view])


def test_networks_that_were_only_timed_are_at_the_lower_edge(tmp_path):
    records = [build_record(0), build_record(1, value=None, state="timed", finished_at=None)]
    found = traces(plot_front([StudyView.from_study(write_study(tmp_path, "demo", records))]))
    assert found["timed, not trained"].x == (1000.0,)
    assert found["timed, not trained"].y[0] < 50.0


def test_plots_leave_the_messages_of_optuna_as_they_are(view):
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        knob_importances(view)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)


def test_each_point_of_a_front_names_its_network(view):
    for trace in plot_front([view]).data:
        for place, speed in zip(trace.customdata or (), trace.x, strict=False):
            assert view.networks[int(place.split(":")[1])].images_per_s == speed


def test_two_studies_have_two_colours(view):
    figure = plot_front([view, dataclasses.replace(view, index=1)])
    colours = {trace.marker.color for trace in figure.data if trace.name == "demo: on the front"}
    assert len(colours) == 2


def test_names_from_a_study_are_no_html(tmp_path):
    failed = build_record(0, 100.0, None, state="infeasible", reason="<a href='x'>y</a> & more")
    figure = plot_front([StudyView.from_study(write_study(tmp_path, "demo", [failed, build_record(1)]))])
    text = traces(figure)["infeasible (not trained)"].text[0]
    assert "&lt;a href" in text
    assert "<a" not in text


def test_hypervolume_grows_to_that_of_the_front(view):
    curve = hypervolume_curve(view, view.ref_point)
    areas = [area for _, _, area in curve]
    assert areas == sorted(areas)
    assert [trials for trials, _, _ in curve] == list(range(1, 33))
    assert curve[-1][1] == pytest.approx(32 * 10.0 / 3600)
    points = [(own.images_per_s, own.value) for own in view.networks]
    assert areas[-1] == pytest.approx(speed_hypervolume(points, view.ref_point))
    assert plot_hypervolume([view], over_hours=True).data[0].y[-1] == pytest.approx(100.0)


def test_importance_finds_the_knobs_that_matter(view):
    found = knob_importances(view)
    assert max(found["images/s"], key=found["images/s"].get) == "depths_1"
    assert max(found["value"], key=found["value"].get) == "depths_3"
    assert sum(found["value"].values()) == pytest.approx(1.0)
    assert set(found["value"]) == set(view.networks[0].knobs)


def test_importance_of_few_networks_is_refused(tmp_path):
    few = StudyView.from_study(write_study(tmp_path, "demo", searched(9)))
    with pytest.raises(UsageError, match="at least 10"):
        plot_importances(few)


def test_parallel_axes_have_the_choices_of_their_knobs(view):
    figure = plot_parallel(view)
    axes = list(figure.layout.xaxis.ticktext)
    assert axes[-2:] == ["images/s", "top-1 %"]
    place = axes.index("depths_3")
    labels = [(note.y, note.text) for note in figure.layout.annotations if note.x == place]
    assert labels == [(0.0, "1"), (pytest.approx(1 / 3), "2"), (pytest.approx(2 / 3), "3"), (1.0, "4")]
    drawn = {name for trace in figure.data for name in trace.customdata}
    assert drawn == {f"0:{i}" for i in range(32)}
    for trace in figure.data:  # each line is at the height of its network's choice
        for x, y, name in zip(trace.x, trace.y, trace.customdata, strict=True):
            if x == place:
                assert y == pytest.approx((view.networks[int(name[2:])].knobs["depths_3"] - 1) / 3, abs=0.026)


def test_time_is_split_between_timing_training_and_the_rest(view):
    spent = seconds_spent(view.networks[0])
    assert spent == {"timing": 2.5, "training": 7.5, "other": 0.0}
    bars = plot_timeline(view).data
    assert sum(sum(trace.x) for trace in bars) == pytest.approx(32 * 10.0 / 3600)


@pytest.mark.parametrize("format", ["png", "svg"])
def test_every_plot_can_be_a_static_file(view, format):
    starts = {"png": b"\x89PNG", "svg": b"<?xml"}
    for figure in (
        plot_front([view]),
        plot_hypervolume([view]),
        plot_importances(view),
        plot_parallel(view),
        plot_timeline(view),
    ):
        content = render_static(figure, format)
        assert content.startswith(starts[format])
        assert len(content) > 5000


def test_an_unknown_kind_of_trace_is_refused():
    with pytest.raises(UsageError, match="got pie"):
        render_static(go.Figure(go.Pie(values=[1])))

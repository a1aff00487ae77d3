import pytest
from builders import build_condition, build_device, build_measurement

from hilo_nas.bench.attention.attention_bench import AttentionPlan, run_attention
from hilo_nas.bench.attention.attention_report import report_attention
from hilo_nas.bench.attention.layers import KINDS, PUBLISHED_AT, SHAPES, Shape, list_layers, parse_shape
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.report import render_csv, render_markdown, write_report
from hilo_nas.report.benches import name_results

HILO = "HiLo alpha 0.9 window 2"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layers_of_a_shape_share_one_cohort_and_hilo_leads(shape):
    layers = list_layers(shape)
    assert layers[0].name == HILO
    assert len({layer.name for layer in layers}) == len(layers) <= 24
    assert {layer.kind for layer in layers} == set(KINDS)


def test_costs_are_those_that_were_published():
    """Of github HubHop/vit-attention-benchmark: millions of multiply-adds and of parameters."""
    published = {
        HILO: (298.30, 2.20),
        "MSA": (521.43, 2.36),
        "local window 7": (477.17, 2.36),
        "XCA": (481.69, 2.36),
        "SRA ratio 2": (419.56, 4.72),
    }
    found = {layer.name: (layer.macs / 1e6, layer.params / 1e6) for layer in list_layers(PUBLISHED_AT)}
    for name, (macs, params) in published.items():
        # Theirs counts SRA's norm, too.
        assert found[name] == (pytest.approx(macs, abs=0.2), pytest.approx(params, abs=0.005)), name


def test_every_layer_is_built_from_its_plain_value_and_keeps_the_map():
    import torch

    from hilo_nas.models import build_subject

    shape = Shape(side=14, dim=24, num_heads=2)
    maps = torch.randn(2, 14, 14, 24)
    with torch.inference_mode():
        for layer in list_layers(shape):
            module = build_subject(layer.subject, num_classes=10, in_chans=3).eval()
            assert module(maps).shape == maps.shape, layer.name
            assert sum(parameter.numel() for parameter in module.parameters()) == layer.params, layer.name


def test_windows_that_do_not_divide_the_map_are_left_out_of_hilos_grid():
    windows = {layer.knobs["window_size"] for layer in list_layers(SHAPES[0]) if layer.kind == "hilo"}
    assert windows == {2, 7}


@pytest.mark.parametrize("text", ["", "14/768", "14x768x12", "14/768/11", "0/8/2", "14/768/0"])
def test_a_shape_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match=r"SIDE/DIM/HEADS.*Use 14/768/12"):
        parse_shape(text)


def test_a_shape_is_read_as_it_is_written():
    assert [parse_shape(str(shape)) for shape in SHAPES] == list(SHAPES)


def test_an_unknown_layer_is_refused_before_anything_is_timed():
    with pytest.raises(UsageError, match=r"a layer must be one of hilo, msa, .*, but got 'focal'"):
        AttentionPlan(kinds=("focal",))


@pytest.fixture
def run(evaluator, planted_machine, tmp_path):
    """Runs the bench on a fake evaluator."""

    def bench(plan, *, failing=lambda name: None, seconds_of=lambda name, entrant: 0.02, neighbour=0.0):
        habit = planted_machine(noise=0.01, neighbour=neighbour)
        fake = evaluator(seconds_of, machine=lambda: habit, failing=failing)
        found = run_attention(plan, lambda event: None, logs=tmp_path, evaluator=fake)
        timings = [task for task in fake.submitted if task.kind == "time"]
        # HiLo is the anchor of every timing.
        assert all(task.reference == next(iter(task.entries.values())).subject for task in timings)
        return found

    return bench


def seconds_of(name, entrant):
    """HiLo is 1.5 times as fast as SRA and 1.6 times as fast as local windows."""
    return {"SRA ratio 2": 0.03, "local window 7": 0.032}.get(name, 0.02)


def test_each_batch_size_has_findings_of_its_own(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:2], kinds=("msa",), device="cpu")
    found = run(plan)
    assert [findings.batch_size for findings in found] == [1, 64]
    assert all(len(findings.list_rows()) == 4 for findings in found)


def test_the_papers_headlines_are_compared_with_the_measured_ones(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:1], batch_sizes=(64,), device="cpu")
    (findings,) = run(plan, seconds_of=seconds_of)
    sra, window = findings.list_headlines()
    assert (sra.published, window.published) == (pytest.approx(1.45, abs=0.005), pytest.approx(1.63, abs=0.005))
    assert (sra.measured, window.measured) == (pytest.approx(1.5, rel=0.02), pytest.approx(1.6, rel=0.02))
    assert sra.low < sra.measured < sra.high
    assert sra.macs == pytest.approx(1.41, abs=0.005)
    assert f"HiLo over SRA ratio 2: {sra.measured:.2f} [{sra.low:.2f}, {sra.high:.2f}] here, 1.45 published" in (
        sra.sentence()
    )


def test_another_batch_or_shape_has_no_headline(run):
    for fields in ({"batch_sizes": (1,), "shapes": SHAPES[:1]}, {"batch_sizes": (64,), "shapes": SHAPES[1:2]}):
        (findings,) = run(AttentionPlan(is_quick=True, device="cpu", **fields))
        assert findings.list_headlines() == []
        assert all(row["published_ratio"] is None for row in findings.list_rows())


def test_ratios_are_to_litv2s_hilo_round_by_round(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:1], batch_sizes=(64,), device="cpu")
    (findings,) = run(plan, seconds_of=seconds_of)
    rows = {row["layer"]: row for row in findings.list_rows()}
    assert (rows[HILO]["ratio"], rows[HILO]["published_ratio"]) == (1.0, 1.0)
    assert rows["SRA ratio 2"]["ratio"] == pytest.approx(1 / 1.5, rel=0.02)
    assert rows["SRA ratio 2"]["ratio_low"] < rows["SRA ratio 2"]["ratio"] < rows["SRA ratio 2"]["ratio_high"]
    assert all(row["is_paired"] for row in rows.values())


def test_a_layer_that_does_not_fit_is_a_row_that_says_so(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:1], batch_sizes=(64,), device="cpu")
    error = OutOfMemoryError("it does not fit")
    (findings,) = run(plan, failing=lambda name: error if name == "MSA" else None)
    rows = {row["layer"]: row for row in findings.list_rows()}
    assert (rows["MSA"]["verdict"], rows["MSA"]["failure"]) == ("failed", "it does not fit")
    assert rows["SRA ratio 2"]["is_paired"]  # the others were timed again, together
    text = render_markdown(report_attention(plan, findings, "hilo-nas bench attention"))
    assert "* MSA at 14/768/12: it does not fit" in text


def test_nothing_timed_is_an_error(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:1], device="cpu")
    with pytest.raises(MeasurementError, match="too large"):
        run(plan, failing=lambda name: OutOfMemoryError("too large"))


def test_a_noisy_neighbour_is_said_in_the_report(run):
    plan = AttentionPlan(is_quick=True, shapes=SHAPES[:1], batch_sizes=(64,), device="cpu")
    (findings,) = run(plan, seconds_of=seconds_of, neighbour=0.4)
    text = render_markdown(report_attention(plan, findings, "hilo-nas bench attention"))
    assert "12 bursty" in text
    assert "quiet machine" in text


def test_files_are_named_by_their_condition_and_hold_every_row(run, tmp_path):
    whole = AttentionPlan(batch_sizes=(64,), device="cpu", precision="bf16", threads=2)
    part = AttentionPlan(batch_sizes=(64,), device="cpu", shapes=SHAPES[:1])
    names = []
    for plan in (whole, part):
        (findings,) = run(plan, seconds_of=seconds_of)
        report = report_attention(plan, findings, "hilo-nas bench attention")
        names += [path.name for path in write_report(report, tmp_path / "results")]
    stem, some = "attention-cpu-bf16-b64-t2-pt2.9-2026-07", "attention-part-cpu-fp32-b64-pt2.9-2026-07"
    assert names == [f"{stem}.csv", f"{stem}.md", f"{some}.csv", f"{some}.md"]
    lines = (tmp_path / "results" / f"{stem}.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(list_layers(shape)) for shape in SHAPES)
    assert lines[0].startswith("shape,batch_size,layer,kind,alpha,window_size")
    assert render_csv(report.tables[0]).count("14/768/12") == len(list_layers(SHAPES[0]))


def test_a_gpus_files_are_named_by_its_model():
    taken = build_measurement(
        condition=build_condition(device="cuda", precision="fp16", batch_size=64),
        device=build_device(kind="cuda", model="NVIDIA H100 80GB HBM3", torch="2.15.0+cu132"),
    )
    assert name_results("backbones", taken) == "backbones-cuda-nvidia-h100-80gb-hbm3-fp16-b64-pt2.15-2026-07"


def test_a_strangers_table_names_files_in_the_folder_alone():
    stem = name_results("samplers", build_measurement(), condition="../../elsewhere/name\n")
    assert stem.startswith("samplers-cpu-.._.._elsewhere_name_-pt")

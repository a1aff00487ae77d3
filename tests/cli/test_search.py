"""`hilo-nas search`: its aims, tables of speeds and taken-over scores, from the command line, on a fake machine."""

import shlex

import pytest
from builders import build_arch, build_manifest, build_record, fresh, write_study
from fakes import FakeMachine, speed, write_speeds, write_timed_study

from hilo_nas.cli import main
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import use_evaluator


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def machine():
    machine = FakeMachine()
    machine.baselines = {"swift": (9e9, 0.99), "dull": (1.0, 0.1)}
    with use_evaluator(machine):
        yield machine


def search(capsys, *arguments):
    assert main(["search", "litv2_digits", "--set", "search.sampler=random", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments, code):
    assert main(["search", *arguments]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return " ".join(err.replace("│", " ").split())


def test_aims_are_foreseen_kept_and_shown(home, capsys):
    bound = f"{speed(build_arch(4)):.0f}"
    options = (
        "--set",
        "timing.also=batch_size=1,max_latency_ms=20",
        "--set",
        "timing.also=batch_size=64",
        "--min-images-per-s",
        bound,
    )
    out = search(capsys, *options, "--study", "aims", "--until-trials", "3")
    law = f"images_per_s >= {bound} and latency_ms <= 20 at cpu-b1-32px-fp32-fused-t2: met by "
    assert law in out
    assert "3 networks will take about" in out
    assert "3 of 3 networks measured, all done" in out
    folder = StoredStudy(home / "studies" / "aims")
    assert fresh(folder).manifest.limits == {"images_per_s": float(bound), "latency_ms@cpu-b1-32px-fp32-fused-t2": 20.0}
    assert [condition.batch_size for condition in fresh(folder).manifest.conditions] == [32, 1, 64]
    records = fresh(folder).records
    assert all(len({m.condition for m in record.measurements}) == 3 for record in records)


def test_the_front_is_timed_at_the_end_by_default(home, machine, capsys):
    out = search(capsys, "--study", "a", "--until-trials", "3")
    assert "networks timed side by side at cpu-b32-32px-fp32-fused-t2 in" in out
    assert "timed side by side" not in search(
        capsys, "--study", "b", "--until-trials", "3", "--set", "timing.remeasure=false"
    )
    assert len(machine.cohorts) == 1


def test_baselines_are_compared_with_and_priced(home, machine, capsys):
    out = search(capsys, "--study", "a", "--until-trials", "2", "--set", "search.baselines=[timm:swift, timm:dull]")
    assert "2 of 2 networks measured, all done" in out
    assert "no trial beats timm:swift (trial 1): none is as fast and as accurate" in out
    assert "timm:dull (trial 2)" in out
    out = search(capsys, "--study", "b", "--dry-run", "--trials", "2", "--set", "search.baselines=timm:swift")
    assert "baselines (1): about" in out


def test_scores_and_speeds_come_from_elsewhere(home, machine, capsys):
    archs = [build_arch(i) for i in (0, 3, 7)]
    write_timed_study(home / "studies", machine, archs[:2], "source")
    write_speeds(home / "studies", archs)
    out = search(
        capsys,
        "--set",
        "study.speeds=edge",
        "--set",
        "study.reuse=source",
        "--study",
        "both",
        "--trials",
        "5",
        "--set",
        "proxy.rungs=1",
    )
    assert "3 of 7 networks measured, the space has no further network within the limits" in out
    assert "timed by study edge" in out
    assert machine.scored == [archs[2].key()]
    assert machine.measured == machine.cohorts == []


def test_a_study_without_a_proxy_is_timed_and_says_what_comes_next(home, machine, capsys):
    out = search(capsys, "--proxy", "none", "--study", "edge", "--trials", "3")
    assert "3 of 3 networks timed, all done" in out
    assert "edge: 3 networks of litv2_digits timed but not scored" in out
    way = "hilo-nas search litv2_digits --set study.speeds=edge --study NAME"
    assert way in out
    assert machine.scored == []
    assert main(["front", "edge"]) == 0
    assert way in capsys.readouterr().out
    assert main(["status", "edge"]) == 0
    assert "3 timed" in capsys.readouterr().out
    assert len((home / "studies/edge/trials.csv").read_text().splitlines()) == 4
    out = search(capsys, "--study", "edge", "--set", "search.networks=litv2_small")
    assert "4 networks of litv2_digits timed" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "timing.also=colour=red,batch_size=x", "--set", "timing.also=batch_size=0"), "but got 'colour=red'"),
        (("--set", "timing.also=batch_size=1,max_latency_ms=0"), "max_latency_ms cannot be '0'"),
        (("--max-latency-ms", "0"), "max_latency_ms must be a number above 0, but got 0"),
        (("--set", "timing.seconds=nan"), "timing.seconds must be a number or null, but got 'nan'"),
        (("--min-images-per-s", "inf"), "min_images_per_s must be a number above 0, but got inf"),
        (("--max-memory-mib", "much"), "Invalid value for '--max-memory-mib'"),
        (("--set", "study.speeds=nowhere"), "no study 'nowhere'"),
        (("--set", "study.reuse=ghost"), "no study 'ghost'"),
        (("--set", "search.networks=litv2_small"), "search.networks is only valid for a study without a proxy"),
        (
            ("--proxy", "none", "--set", "search.sampler=gp"),
            "sampler must be random without a proxy, but got 'gp'",
        ),
        (("--proxy", "none", "--max-latency-ms", "9"), "limits on images/s, latency and memory"),
        (("--proxy", "none", "--set", "proxy.rungs=2"), "proxy.rungs has no effect with proxy none"),
        (("--proxy", "none", "--set", "search.networks=timm:swift"), "Name timm's networks in search.baselines"),
        (("--proxy", "none", "--set", "search.networks=ghost.yaml"), "ghost.yaml"),
        (("--set", "timing.also=img_size=8"), "img_size must be at least"),
        (("--set", "search.baselines=[swift, convnext_tiny]"), "timm has no model 'convnext_tiny'"),
        (("--set", "search.baselines=timm:resnet18,"), "as NAME or timm:NAME, but got 'timm:resnet18,'"),
        (("--set", "search.baselines=timm:swoft"), "timm has no model 'swoft'. Use swift or dull."),
        (("--set", "search.baselines=timm:swift", "--set", "study.speeds=edge"), "no study 'edge'"),
        (("--runtime", "best"), "but got 'best': all networks of a study have the same condition"),
        (("--runtime", "best", "--hours", "1"), "but got 'best': all networks of a study have the same condition"),
        (("--set", "timing.also=runtime=best"), "runtime must be one of torch, onnxruntime, openvino, but got 'best'"),
        (("--runtime", "tensorrt"), "runtime must be one of torch, onnxruntime, openvino, but got 'tensorrt'"),
        (
            (
                "--set",
                "timing.cuda_graph=true",
            ),
            "cuda_graph needs a cuda device, but got 'cpu'",
        ),
    ],
)
def test_what_cannot_be_meant_ends_with_2_and_makes_no_study(home, capsys, arguments, said):
    assert said in refused(capsys, *arguments, code=2)
    assert not list(home.glob("studies/*"))


@pytest.mark.parametrize("where", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "timing.also=colour=red"), "but got 'colour=red'"),
        (("--set", "timing.also=batch_size=32"), "but is the same as the objective"),
        (("--set", "timing.also=img_size=8"), "img_size must be at least 16"),
        (("--precision", "int3"), "precision must be one of"),
        (("--set", "proxy.metric=f1"), "metric must be one of"),
        (("litv2_cifar",), "--data"),
    ],
)
def test_faults_on_every_device_are_reported_before_a_device_is_read(machine, capsys, arguments, said, where):
    machine.read_device = None
    assert said in refused(capsys, *arguments, *where, code=2)


def test_a_condition_that_only_the_device_shows_to_repeat_another_is_refused_all_the_same(capsys):
    said = refused(capsys, "--set", "timing.also=threads=2", code=2)  # the default number of threads here
    assert "timing.also threads=2: must differ from the objective and from the others, but is the same as" in said


def test_all_faults_of_further_conditions_are_reported_at_once(capsys):
    said = refused(capsys, "--set", "timing.also=colour=red,batch_size=x", "--set", "timing.also=batch_size=0", code=2)
    for fault in ("but got 'colour=red'", "batch_size cannot be 'x'", "batch_size must be at least 1, but got 0"):
        assert fault in said


def test_aims_that_are_not_the_studys_end_with_1(home, machine, capsys):
    write_study(home / "studies", "demo", [build_record(0)], build_manifest("demo", limits={"latency_ms": 20.0}))
    said = refused(capsys, "--study", "demo", "--max-latency-ms", "30", "--set", "timing.also=batch_size=1", code=1)
    assert "latency_ms: 20.0 in the study, 30.0 now" in said
    assert "also: [] in the study, ['cpu-b1-32px-fp32'] now" in said
    machine.form = "litv2/9"
    assert "hilo-nas remeasure demo" in refused(capsys, "--study", "demo", code=1)


def test_a_dry_run_prices_a_search_with_aims_and_makes_no_study(home, capsys):
    out = search(capsys, "--dry-run", "--trials", "4", "--max-latency-ms", "1e-3")
    assert "latency_ms <= 0.001: met by none of 12 sampled networks" in out
    assert "4 trials: about" in out
    assert not list(home.glob("studies/*"))


def test_ctrl_c_says_how_to_resume(home, machine, capsys):
    def interrupt(verb, count):
        if verb == "score" and count == 1:
            raise KeyboardInterrupt

    machine.happen = interrupt
    study = str(home / "all studies" / "mine too")
    options = ("litv2_digits", "--study", study, "--set", "search.sampler=random", "--trials", "3")
    said = refused(capsys, *options, "--set", "timing.remeasure=false", code=130)
    way = f"hilo-nas search --study '{study}'"
    assert said == f"Resume with: {way} stopped; finished trials are kept"
    machine.happen = lambda verb, count: None
    assert main([*shlex.split(way)[1:], "--set", "timing.remeasure=false"]) == 0
    assert "3 of 3 networks measured" in capsys.readouterr().out


def test_ctrl_c_before_there_is_a_study_says_so(home, machine, capsys):
    def interrupt(verb, count):
        raise KeyboardInterrupt

    machine.happen = interrupt
    said = refused(capsys, "litv2_digits", code=130)
    assert said.startswith("Start it again with the same command.")


def test_a_fault_of_the_program_ends_with_its_name_and_a_traceback_only_if_asked(home, machine, capsys):
    def stumble(verb, count):
        raise ZeroDivisionError("by [/x] \x1b[31m")

    machine.happen = stumble
    said = refused(capsys, "litv2_digits", code=1)
    assert "ZeroDivisionError: by [/x] \\x1b[31m." in said
    assert "--debug" in said
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "search", "litv2_digits"])

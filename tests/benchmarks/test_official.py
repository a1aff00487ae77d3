import functools
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from builders import TINY
from checkouts import write_checkout

from benchmarks.official.__main__ import main
from benchmarks.official.cases import Case, list_cases, list_forms
from benchmarks.official.checkout import find_fault, read_state
from benchmarks.official.comparison import NETWORKS, OfficialPlan, run_official
from benchmarks.official.official_code import build_official, build_ours, check_code
from benchmarks.official.official_report import report_official
from benchmarks.official.output_differences import compare_outputs
from benchmarks.small_networks import SMALL
from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import ArchError, MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.events import Notice
from hilo_nas.report import render_markdown, write_report
from hilo_nas.space import load_space

ENDS = {"num_classes": 10, "in_chans": 3}
SMALLEST = Case(network="litv2_shallow", arch=TINY, batch_size=2)
STEP = Case(network="litv2_shallow", arch=TINY, batch_size=2, is_training=True)


@pytest.fixture(autouse=True)
def forget_the_code():
    """The official packages have names that others may have, too."""
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("models", "mm_modules")]:
        del sys.modules[name]


@pytest.fixture
def checkout(tmp_path):
    return write_checkout(tmp_path / "LITv2")


# The checkout.


def test_a_folder_without_the_code_is_refused_with_the_missing_file(tmp_path):
    for folder, found in ((tmp_path, "has no classification/models/litv2.py"), (tmp_path / "none", "is not a folder")):
        said = find_fault(folder)
        assert f"but {folder} {found}. Use git clone https://github.com/ziplab/LITv2" in said


def test_a_checkout_says_its_commit_and_whether_it_was_changed(checkout):
    assert find_fault(checkout) is None
    said = read_state(checkout)
    assert said.startswith("no commit, classification/models/*.py have sha256 ")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    settings = ["-c", "user.name=me", "-c", "user.email=me@here", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", *settings, *command], cwd=checkout, check=True)
    clean = read_state(checkout)
    assert clean.startswith("commit ")
    assert "changes" not in clean
    assert clean.endswith(said.rpartition(" ")[2])
    with (checkout / "classification/models/litv2.py").open("a") as file:
        file.write("# more\n")
    changed = read_state(checkout)
    assert changed.split(",")[0] == f"{clean.split(',')[0]} with changes"
    assert changed.rpartition(" ")[2] != clean.rpartition(" ")[2]
    inner = write_checkout(checkout / "inner")
    assert read_state(inner).startswith("no commit")  # the commit of the enclosing repository does not count


# The code.


@pytest.mark.parametrize("arch", [TINY, *SMALL.values()], ids=["tiny", *SMALL])
def test_both_codes_have_the_same_weights_and_give_the_same(checkout, arch):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = build_ours(arch.to_dict(), **ENDS).eval()
        official = build_official(str(checkout), arch.to_dict(), 32, **ENDS).eval()
        expected, found = ours(images), official(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = official(images)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=0.1, atol=0.1)
    assert type(official).__module__ == "models.litv2"


def test_no_weight_is_one_that_a_form_could_overlook():
    weights = build_ours(TINY.to_dict(), **ENDS).state_dict()
    assert all(value.std() > 0 for name, value in weights.items() if value.numel() > 1)
    assert weights["layers.1.downsample.norm_layer.running_mean"].any()
    assert weights["layers.1.downsample.dconv.conv_offset.weight"].any()


def test_the_presets_and_the_small_networks_are_the_official_codes_and_of_a_space():
    space = load_space("litv2_cifar")
    for arch in SMALL.values():
        assert space.decode(space.encode(arch)).key() == arch.key()
    for case in list_cases(NETWORKS, (1,), "cpu", training=True):
        assert case.arch == (PRESETS | SMALL)[case.network]


def test_a_network_that_the_official_code_does_not_have_is_refused(checkout):
    arch = ArchConfig(embed_dims=(16, 16, 64, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    with pytest.raises(ArchError, match="embed_dims"):
        build_official(str(checkout), arch.to_dict(), 32, **ENDS)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("import einops_of_old.layers", r"needs einops_of_old, which .*Use pip install einops_of_old"),
        ("import models.attention_of_old", r"needs models\.attention_of_old, which .*checkout"),
        ("from timm import DropPath", r"official code in .* cannot import name 'DropPath'"),
    ],
)
def test_what_the_code_needs_and_does_not_find_is_named(tmp_path, head, message):
    checkout = write_checkout(tmp_path / "LITv2", head=head)
    with pytest.raises(UsageError, match=message):
        check_code(str(checkout), emit=print)
    assert str(checkout / "classification") not in sys.path


def test_two_checkouts_are_two_networks(tmp_path):
    first, other = write_checkout(tmp_path / "one"), write_checkout(tmp_path / "other", off=" + 1")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        a, b, c = (
            build_official(str(folder), TINY.to_dict(), 32, **ENDS).eval()(images) for folder in (first, other, first)
        )
    torch.testing.assert_close(a + 1, b)
    assert torch.equal(a, c)


# What both give.


def entrants_of(case, checkout, precisions=("fp32",)):
    forms = list_forms(case, precisions, device="cpu", threads=None, compiles=False)
    found = {item.name: item.entrant(case, checkout) for item in forms}
    return {
        name: {"subject": entrant.subject, "condition": entrant.condition.to_dict()} for name, entrant in found.items()
    }


@pytest.mark.parametrize("case", [SMALLEST, STEP], ids=str)
def test_outputs_and_gradients_of_both_codes_are_the_same(checkout, case):
    found = compare_outputs(entrants_of(case, checkout), 10, target="cpu", emit=print)
    assert found.pop("official plain fp32") == 0
    assert found
    assert all(difference < 1e-4 for difference in found.values())


def test_half_precision_is_compared_with_the_official_network_in_fp32(checkout):
    found = compare_outputs(entrants_of(SMALLEST, checkout, ("bf16",)), 10, target="cpu", emit=print)
    assert list(found) == ["official plain fp32", "official plain amp-bf16", "ours plain bf16", "ours fused bf16"]
    assert all(1e-4 < difference < 0.2 for name, difference in found.items() if not name.endswith("fp32"))


@pytest.mark.parametrize("case", [SMALLEST, STEP], ids=str)
def test_another_network_is_seen(tmp_path, case):
    checkout = write_checkout(tmp_path / "LITv2", off=" * 1.1")
    found = compare_outputs(entrants_of(case, checkout), 10, target="cpu", emit=print)
    assert found["ours plain fp32"] > 0.05


def test_a_network_that_cannot_run_is_reported_and_the_others_are_compared(checkout):
    entrants, told = entrants_of(SMALLEST, checkout), []
    entrants["ours plain fp32"]["subject"]["arguments"] = {"arch": {}}
    found = compare_outputs(entrants, 10, target="cpu", emit=told.append)
    assert found["ours plain fp32"] is None
    assert found["ours fused fp32"] < 1e-4
    assert [event.text.split(":")[0] for event in told] == ["ours plain fp32 could not be compared"]


# The plan.


def test_all_faults_are_reported_at_once(tmp_path):
    with pytest.raises(UsageError) as error:
        OfficialPlan(
            checkout=tmp_path,
            device="tpu",
            networks=("litv2_huge",),
            precisions=("fp8", "int8"),
            batch_sizes=(0,),
            seconds=0,
        )
    faults = str(error.value).splitlines()
    assert [fault.split(" must")[0] for fault in faults] == [
        "checkout",
        "network",
        "precision",
        "precision",
        "batch_size",
        "seconds",
        "device",
    ]


def names_of(case, precisions, *, device="cpu", compiles=False):
    forms = list_forms(case, precisions, device=device, threads=None, compiles=compiles)
    return {item.name: item.compared_with for item in forms}


def test_ours_meets_the_official_code_in_fp32_and_under_autocast():
    assert names_of(SMALLEST, ("fp32", "bf16")) == {
        "official plain fp32": "official plain fp32",
        "ours plain fp32": "official plain fp32",
        "ours fused fp32": "official plain fp32",
        "official plain amp-bf16": "official plain amp-bf16",
        "ours plain bf16": "official plain amp-bf16",
        "ours fused bf16": "official plain amp-bf16",
    }


def test_compiled_forms_of_both_codes_are_compared():
    assert names_of(SMALLEST, ("fp16",), device="cuda", compiles=True) == {
        "official plain fp32": "official plain fp32",
        "official plain amp-fp16": "official plain amp-fp16",
        "ours plain fp16": "official plain amp-fp16",
        "ours fused fp16": "official plain amp-fp16",
        "official compiled amp-fp16": "official plain amp-fp16",
        "ours fused compiled fp16": "official plain amp-fp16",
    }


def test_a_training_step_keeps_its_weights_in_fp32_and_is_never_fused():
    assert list(names_of(STEP, ("bf16",), compiles=True)) == [
        "official plain fp32",
        "official plain amp-bf16",
        "ours plain amp-bf16",
        "official compiled amp-bf16",
        "ours compiled amp-bf16",
    ]


def test_compiled_forms_are_timed_on_a_gpu_by_default(checkout):
    for compile_, device, expected in ((None, "cpu", False), (None, "cuda", True), (True, "cpu", True)):
        plan = OfficialPlan(checkout=checkout, compile=compile_, training=False)
        forms = [item for _, forms in plan.list_cohorts(device) for item in forms]
        assert any(item.condition.compile for item in forms) == expected


# The bench, with an evaluator that never times.


def seconds_of(name, entrant):
    """Ours is 1.2 times as fast as the official code, fused 1.5 times; autocast takes twice the time."""
    seconds = {"plain": 0.1 / 1.2, "fused": 0.1 / 1.5}[name.split()[1]] if name.startswith("ours") else 0.1
    return seconds * (2 if "amp" in name else 1)


class FakeWorker:
    """Compares outputs that differ as `differing` says, by name."""

    def __init__(self, differing, log, *, purpose, idle_timeout_s):
        self.differing = differing

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def call(self, function, arguments, emit, *, device):
        if function.endswith(":check_code"):
            return None
        return {name: self.differing(name) for name in arguments["entrants"]}


@pytest.fixture
def run(evaluator, planted_machine, tmp_path, checkout):
    """Runs the bench with fakes; outputs differ as `differing` says."""

    def bench(*, failing=lambda name: None, differing=lambda name: 1e-6, **fields):
        quiet = planted_machine(noise=0.005)
        plan = OfficialPlan(
            **{"checkout": checkout, "device": "cpu", "networks": ("litv2_small",), "batch_sizes": (1, 8), **fields}
        )
        events = []
        findings = run_official(
            plan,
            events.append,
            logs=tmp_path,
            evaluator=evaluator(seconds_of, machine=lambda: quiet, failing=failing),
            start_worker=functools.partial(FakeWorker, differing),
        )
        return plan, findings, events

    return bench


def test_each_form_has_its_ratio_to_the_official_code_in_the_same_rounds(run):
    _, findings, _ = run(precisions=("fp32", "bf16"))
    rows = {
        (row["batch_size"], row["code"], row["form"], row["precision"]): row
        for row in findings.list_rows(is_training=False)
    }
    assert len(rows) == 2 * 6
    fused = rows[1, "ours", "fused", "fp32"]
    assert fused["ratio"] == fused["ratio_fp32"] == pytest.approx(1.5, rel=0.01)
    assert fused["ratio_low"] < fused["ratio"] < fused["ratio_high"]
    half = rows[8, "ours", "plain", "bf16"]
    assert (half["ratio"], half["ratio_fp32"]) == (pytest.approx(2.4, rel=0.01), pytest.approx(1.2, rel=0.01))
    assert all(row["ratio_is_paired"] and row["difference"] == 1e-6 for row in rows.values())
    assert findings.advise() == []


def test_training_steps_have_a_table_of_their_own(run):
    plan, findings, _ = run()
    rows = findings.list_rows(is_training=True)
    assert {row["network"] for row in rows} == {*SMALL, "litv2_small"}
    assert {(row["network"], row["img_size"], row["batch_size"]) for row in rows} >= {
        ("litv2_small", 224, 8),
        ("litv2_s_third", 32, 128),
    }
    assert {row["code"]: row["form"] for row in rows} == {"official": "plain", "ours": "plain"}
    assert len(report_official(plan, findings, "python -m benchmarks.official").tables) == 2
    plan, findings, _ = run(training=False)
    assert findings.list_rows(is_training=True) == []
    assert len(report_official(plan, findings, "python -m benchmarks.official").tables) == 1


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_a_network_with_different_outputs_is_reported(run, difference):
    _, findings, _ = run(training=False, differing=lambda name: difference if name == "ours fused fp32" else 0.0)
    said = findings.advise()
    assert said[0].startswith("inference of litv2_small at batch 1, 224 px: outputs of ours fused fp32 ")
    assert len(said) == 2


def test_rounding_of_half_precision_is_no_other_network(run):
    _, findings, _ = run(precisions=("bf16",), differing=lambda name: 0.0 if name.endswith("fp32") else 0.02)
    assert findings.advise() == []


def test_a_form_that_does_not_fit_is_a_row_that_says_so(run):
    error = OutOfMemoryError("it does not fit")
    plan, findings, _ = run(training=False, failing=lambda name: error if name == "ours plain fp32" else None)
    rows = {(row["batch_size"], row["form"], row["code"]): row for row in findings.list_rows(is_training=False)}
    assert (rows[1, "plain", "ours"]["verdict"], rows[1, "plain", "ours"]["failure"]) == ("failed", "it does not fit")
    assert rows[1, "fused", "ours"]["ratio_is_paired"]  # the others were timed again, together
    text = render_markdown(report_official(plan, findings, "python -m benchmarks.official"))
    assert "* ours plain fp32, inference of litv2_small at batch 8, 224 px: it does not fit" in text


def test_nothing_timed_is_an_error(run):
    with pytest.raises(MeasurementError, match=r"nothing could be timed; official plain fp32, .*: too large"):
        run(failing=lambda name: OutOfMemoryError("too large"))


def test_outputs_that_cannot_be_compared_do_not_keep_speeds_from_being_taken(run):
    def dying(name):
        raise OutOfMemoryError("comparing was killed")

    _, findings, events = run(training=False, differing=dying)
    assert all(row["difference"] is None and row["ratio"] for row in findings.list_rows(is_training=False))
    warnings = [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert warnings[0] == (
        "outputs could not be compared (inference of litv2_small at batch 1, 224 px): comparing was killed"
    )


def test_files_are_named_by_what_was_timed_and_say_which_code_was_run(run, tmp_path, checkout):
    whole = {"networks": NETWORKS, "batch_sizes": (1, 8, 32, 64)}
    names = []
    for fields in (whole, {"precisions": ("fp32", "bf16"), "threads": 2}):
        plan, findings, _ = run(**fields)
        report = report_official(plan, findings, "python -m benchmarks.official --checkout LITv2")
        names += [path.name for path in write_report(report, tmp_path / "results")]
    stem = "official-cpu-fp32-pt2.9-2026-07"
    some = "official-part-cpu-litv2_small-b1-b8-fp32-bf16-t2-pt2.9-2026-07"
    assert names == [f"{name}{end}" for name in (stem, some) for end in (".csv", "-training.csv", ".md")]
    text = (tmp_path / "results" / f"{stem}.md").read_text()
    assert f'official code "{read_state(checkout)}"' in text
    assert str(checkout) not in text
    assert "ratio to official fp32" not in text  # equal to the ratio in the column before
    assert "ratio to official fp32" in (tmp_path / "results" / f"{some}.md").read_text()


# As a user types it, in processes.


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_LOCKS_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_the_bench_runs_and_leaves_its_files(home, checkout, capsys):
    arguments = "--checkout LITv2 --device cpu --network litv2_small --batch-size 1 --no-training --seconds 0.1"
    assert main([*arguments.split(), "--format", "json", "-o", "results"]) == 0
    said = capsys.readouterr()
    (content,) = json.loads(said.out)
    rows = {(row["code"], row["form"]): row for row in content["results"]}
    assert set(rows) == {("official", "plain"), ("ours", "plain"), ("ours", "fused")}
    assert rows["ours", "fused"]["difference"] < 1e-4
    assert all(row["ratio"] > 0 and row["ratio_is_paired"] for row in rows.values())
    assert rows["official", "plain"]["implementation"] == "models.litv2.LITv2 eager"
    assert content["command"] == (
        "python -m benchmarks.official --device cpu --precision fp32 --batch-size 1 --network litv2_small "
        "--checkout LITv2 --no-training --seconds 0.1"
    )
    assert "2/2 inference of litv2_small at batch 1, 224 px" in said.err
    assert len(os.listdir(home / "results")) == 2


@pytest.mark.slow
def test_code_that_does_not_import_is_a_usage_error_before_anything_is_timed(home, capsys):
    write_checkout(home / "broken", head="import einops_of_old")
    assert main(["--checkout", "broken", "--device", "cpu"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Use pip install einops_of_old." in said
    assert not list(home.glob("benchmarks/*"))


def test_a_folder_that_is_no_checkout_is_a_usage_error(home, capsys):
    assert main(["--checkout", "nowhere", "--batch-size", "0"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "but nowhere is not a folder. Use git clone https://github.com/ziplab/LITv2" in said
    assert "batch_size must be at least 1, but got 0" in said

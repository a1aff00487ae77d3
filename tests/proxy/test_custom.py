"""A proxy of the user's own: what its function is given, what it may return, and what goes wrong in it."""

import dataclasses
import json

import pytest

from hilo_nas.errors import NotFoundError, OutOfMemoryError, ProxyError, StudyMismatchError, UsageError
from hilo_nas.events import TrainingProgressed
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.plugins import absolute, hash_source, name_of
from hilo_nas.proxy import custom as own
from hilo_nas.proxy.worker_calls import prepare_proxy, score_network

ARCH = {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2}
HEAD = "def score(arch, build_model, budget, seed, callback):\n"


@pytest.fixture
def run(tmp_path, monkeypatch, digits16):
    """Writes the body of a function to a file and calls it as a worker does."""
    monkeypatch.chdir(tmp_path)
    own._load.cache_clear()

    def run(body, *, subject=None, seed=0, images=256, emit=lambda event: None):
        (tmp_path / "mine.py").write_text(HEAD + "".join(f"    {line}\n" for line in body.splitlines()))
        function = absolute("mine.py:score")
        plan = plan_for(function, images=images)
        return call(function, plan, digits16, subject=subject or {"arch": ARCH}, seed=seed, emit=emit)

    return run


def call(function, plan, data, *, subject, seed=0, emit=lambda event: None):
    prepared = prepare_proxy(emit=emit, plan=plan.to_dict(), data=None, device="cpu", source=function)
    scored = score_network(
        emit=emit,
        subject=subject,
        plan=plan.to_dict(),
        data=data.to_dict(),
        prepared=json.loads(json.dumps(prepared)),
        seed=seed,
        device="cpu",
    )
    return ProxyScore.from_dict(json.loads(json.dumps(scored["score"], allow_nan=False)))


def plan_for(function, **fields):
    values = {"img_size": 16, "batch_size": 32, "images": 256, "hflip": False, "recipe": "own-1"}
    return ProxyPlan(**{**values, "proxy": name_of(function), "source_hash": hash_source(function), **fields})


def test_a_score_is_named_by_its_function_and_holds_for_the_whole_budget(run, digits16, tmp_path):
    score = run("return 3.5, 0.25")
    assert (score.metric, score.value, score.standard_error) == ("mine.py:score", 3.5, 0.25)
    assert (score.images_seen, score.seed, score.loss) == (256, 0, None)
    assert score.plan_hash == plan_for(absolute("mine.py:score")).hash(digits16.content_hash)
    assert str(tmp_path) not in json.dumps(dataclasses.asdict(score))


def test_the_function_is_given_the_architecture_the_budget_and_the_seed(run):
    assert run("return arch['patch_size'] + sum(arch['depths']) / 10, 0", seed=5).value == 2.4
    assert run("return budget, seed", seed=5, images=77).value == 77
    own._load.cache_clear()
    assert run("return 1, seed", seed=5).standard_error == 5


def test_a_network_of_timms_has_no_architecture_but_is_built(run):
    body = "assert arch is None\nreturn build_model().num_classes, 0"
    assert run(body, subject={"timm": "test_vit"}).value == 10


def test_the_network_has_the_datas_classes_or_those_asked_for(run):
    body = "import torch\nimages = torch.zeros(1, 3, 16, 16)\nsizes = build_model().eval()(images).shape[1], "
    body += "build_model(num_classes=7).eval()(images).shape[1]\nreturn sizes"
    score = run(body)
    assert (score.value, score.standard_error) == (10, 7)


def test_weights_are_the_same_at_each_call_and_follow_the_seed(run):
    body = "sums = [sum(p.double().sum().item() for p in build_model().parameters()) for _ in range(2)]\n"
    body += "assert sums[0] == sums[1]\nreturn sums[0], 0"
    assert run(body).value == run(body).value != run(body, seed=1).value


def test_draws_after_the_building_are_the_same_for_every_network(run):
    body = "import torch\nbuild_model()\nreturn torch.rand(()).item(), 0"
    other = {"arch": {**ARCH, "depths": [1, 2, 1, 1]}}
    assert run(body).value == run(body, subject=other).value != run(body, seed=1).value


def test_what_the_function_does_to_the_architecture_does_not_change_the_network(run):
    body = "arch.clear()\nreturn isinstance(build_model(), object), 0"
    assert run(body).value == 1


def test_progress_is_passed_on_but_not_of_every_image(run):
    events = []
    run("for seen in range(1000):\n    callback(seen + 1, score=0.5)\nreturn 0, 0", emit=events.append)
    assert events[0] == TrainingProgressed(images_seen=1, images_total=256, score=0.5)
    assert len(events) < 20


def test_progress_needs_no_score(run):
    events = []
    run("callback(32)\nreturn 0, 0", emit=events.append)
    assert events == [TrainingProgressed(images_seen=32, images_total=256)]


def test_numbers_of_torch_and_numpy_are_numbers(run):
    score = run("import numpy, torch\nreturn torch.tensor(1.5), numpy.float32(0.5)")
    assert (score.value, score.standard_error) == (1.5, 0.5)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("0.5", "0.5"),
        ("None", "None"),
        ("(0.5,)", "(0.5,)"),
        ("(1, 2, 3)", "(1, 2, 3)"),
        ("('0.5', 0)", "('0.5', 0)"),
        ("(None, 0)", "(None, 0)"),
        ("(float('nan'), 0)", "(nan, 0)"),
        ("(1, float('inf'))", "(1, inf)"),
    ],
)
def test_what_is_no_score_is_refused_with_what_was_returned(run, returned, told):
    with pytest.raises(ProxyError) as caught:
        run(f"return {returned}")
    law = "mine.py:score must return (score, standard_error), two finite numbers, but returned"
    assert str(caught.value) == f"{law} {told}"


def test_a_tensor_of_several_values_is_no_score(run):
    with pytest.raises(ProxyError, match="must return"):
        run("import torch\nreturn torch.zeros(2), 0")


def test_a_negative_standard_error_is_refused(run):
    with pytest.raises(ProxyError, match=r"standard error of at least 0, but returned \(1, -0.5\)"):
        run("return 1, -0.5")


def test_what_the_function_raises_is_told_with_class_text_and_line(run):
    with pytest.raises(ProxyError) as caught:
        run("table = {}\nreturn table['a'], 0")
    assert str(caught.value) == "mine.py:score raised KeyError: 'a' (mine.py, line 3)"


def test_leaving_the_process_is_an_error_like_others(run):
    with pytest.raises(ProxyError, match=r"mine.py:score raised SystemExit: 3 \(mine.py, line 3\)"):
        run("import sys\nsys.exit(3)")


def test_a_lack_of_memory_is_told_as_one(run):
    with pytest.raises(OutOfMemoryError, match=r"memory ran out in the proxy mine.py:score: CUDA out of memory"):
        run("raise RuntimeError('CUDA out of memory')")


def test_a_file_is_imported_once_so_what_it_keeps_stays(run):
    body = "kept = score.__dict__.setdefault('kept', [])\nkept.append(1)\nreturn len(kept), 0"
    assert [run(body).value for _ in range(3)] == [1, 2, 3]


def test_an_edit_in_mid_search_is_refused(run, tmp_path, digits16):
    run("return 1, 0")
    function = absolute("mine.py:score")
    plan = plan_for(function)
    (tmp_path / "mine.py").write_text(HEAD + "    return 2, 0\n")
    own._load.cache_clear()  # simulates a restarted worker
    with pytest.raises(StudyMismatchError, match="was edited while it was in use"):
        call(function, plan, digits16, subject={"arch": ARCH})


def test_a_function_is_checked_before_a_search_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text("def score(*arguments): ...\nsize = 3\n")
    (tmp_path / "bad.py").write_text("import nowhere_at_all\n")

    def prepare(function):
        plan = plan_for(function).to_dict()
        return prepare_proxy(emit=lambda event: None, plan=plan, data=None, device="cpu", source=function)

    assert prepare("good.py:score") == {"facts": {}, "local": {"function": "good.py:score"}}
    with pytest.raises(NotFoundError, match="Did you mean score"):
        prepare("good.py:scor")
    with pytest.raises(UsageError, match="must be a function, but is of type int"):
        prepare("good.py:size")
    with pytest.raises(UsageError, match="cannot be imported: ModuleNotFoundError"):
        prepare("bad.py:score")


def test_the_network_is_a_module_that_learns(run):
    body = "import torch\nmodel = build_model()\nassert model.training\n"
    body += "model(torch.zeros(2, 3, 16, 16)).sum().backward()\nreturn isinstance(model, torch.nn.Module), 0"
    assert run(body).value == 1

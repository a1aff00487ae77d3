"""The word `default` among the baselines: networks by image size, named once, when the study is created."""

import pytest
import timm
import torch
from builders import TINY, build_condition, build_manifest, digits, fresh, write_study
from fakes import write_speeds

from hilo_nas.errors import UsageError
from hilo_nas.models import build_subject
from hilo_nas.searching import SearchConfig, estimate_cost, run_search
from hilo_nas.searching.configuration.default_baselines import DEFAULT_BASELINES, named_baselines
from hilo_nas.searching.configuration.resolve import resolve
from hilo_nas.space import load_space

ALL = sorted({name for row in DEFAULT_BASELINES for name in row.networks})
SMALL = ("timm:resnet18", "timm:pvt_v2_b0")
LARGE = ("timm:resnet50", "timm:convnext_tiny", "timm:efficientvit_b2")
SIZES = (32, 64, 96, 224, 50, 333)


@pytest.mark.parametrize("name", ALL)
def test_every_default_baseline_takes_images_of_any_size(name):
    for img_size in SIZES:
        with torch.device("meta"):
            model = build_subject(f"timm:{name}", 10, 3, img_size)
            assert model(torch.zeros(2, 3, img_size, img_size)).shape == (2, 10)


@pytest.mark.parametrize("img_size", SIZES)
def test_each_size_has_two_or_three_baselines(img_size):
    assert len(named_baselines(["default"], img_size)) in (2, 3)


def test_every_row_is_for_larger_images_and_gives_a_source_of_each_network():
    assert [row.up_to for row in DEFAULT_BASELINES] == [64, 128, float("inf")]
    assert all("et al., 20" in reason for row in DEFAULT_BASELINES for reason in row.networks.values())
    assert set(ALL) <= set(timm.list_models())


def test_the_resolved_configuration_names_the_networks_for_its_timed_images():
    config = SearchConfig.of(baselines=("default",))
    assert config.search.baselines == ("default",)
    assert resolve(config, digits()).search.baselines == SMALL
    assert resolve(config, load_space("litv2_imagenet")).search.baselines == LARGE
    larger = resolve(SearchConfig.of(baselines=("default",), img_size=224), digits())
    assert larger.search.baselines == LARGE
    assert resolve(larger, digits()) == larger


def test_default_stands_beside_names_and_repeats_none():
    config = SearchConfig.of(baselines=("resnet18", "default", "swift", "timm:swift"))
    assert resolve(config, digits()).search.baselines == (*SMALL, "timm:swift")


@pytest.mark.parametrize("word", ["Default:", "default,resnet18"])
def test_other_words_are_refused_as_before(word):
    with pytest.raises(UsageError, match=r"^search.baselines must be a list of timm networks"):
        SearchConfig.of(baselines=(word,))


def search(machine, **options):
    machine.baselines = {name.removeprefix("timm:"): (100.0, 0.2) for name in (*SMALL, *LARGE, "timm:swift")}
    return run_search(SearchConfig.of(**{"study": "demo", "until_trials": 2, "baselines": ("default",), **options}), id)


def test_the_manifest_names_the_networks_and_a_resumed_study_repeats_none(tmp_path, machine):
    study, _ = search(machine, space="litv2_digits")
    assert fresh(study).manifest.baselines == SMALL
    names = [standing.name for standing in study.front().standings if standing.kind == "baseline"]
    assert names == list(SMALL)
    records = fresh(study).records
    search(machine, baselines=("default", "swift"))
    assert fresh(study).manifest.baselines == (*SMALL, "timm:swift")
    assert [record.key for record in fresh(study).records[len(records) :]] == ["timm:swift"]


def test_a_stored_study_takes_on_the_baselines_for_its_own_image_size(tmp_path, machine):
    manifest = build_manifest(conditions=(build_condition(img_size=224),), sampler="random")
    write_study(tmp_path, manifest=manifest)
    study, _ = search(machine, until_trials=1)
    assert fresh(study).manifest.baselines == LARGE


def test_copied_timings_decide_on_the_image_size(tmp_path, machine):
    write_speeds(tmp_path, [TINY], "edge")
    with pytest.raises(UsageError, match="did not time timm:resnet18, timm:pvt_v2_b0"):
        search(machine, speeds="edge")


def test_a_dry_run_counts_them(tmp_path, machine):
    machine.baselines = {name.removeprefix("timm:"): (100.0, 0.2) for name in SMALL}
    config = SearchConfig.of(space="litv2_digits", study="demo", baselines=("default",), until_trials=2)
    assert estimate_cost(config, id).baselines == 2

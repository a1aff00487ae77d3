"""Configurations of searches: sections of fields, defaults in one place, and what a stored study was made with."""

import dataclasses

import pytest
import yaml
from builders import build_condition, build_device, build_manifest, build_plan, digits
from fakes import write_timed_study
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hilo_nas.errors import NotFoundError, StudyMismatchError, UsageError
from hilo_nas.evaluation import ClusterOptions
from hilo_nas.measurement import ENVIRONMENTS, RUNTIMES, TORCH_ONLY, Condition
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.measurement.condition_options import Target, Targets, build_requirements, named_devices
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.configuration.config_files import load_config, merge_fields, parse_setting, read_fields
from hilo_nas.searching.configuration.resolve import cluster_of, config_of, plan_of, resolve
from hilo_nas.searching.configuration.search_config import SHORT_NAMES, nest_settings
from hilo_nas.space import list_shipped, load_space
from hilo_nas.text.commands import FLAGS, setting_words

SECTIONS = [field for field in dataclasses.fields(SearchConfig) if field.name != "space"]


def test_every_setting_has_a_short_name_of_its_own_and_a_comment():
    fields = [
        (section.name, field)
        for section in SECTIONS
        for field in dataclasses.fields(getattr(SearchConfig(), section.name))
    ]
    assert sorted(SHORT_NAMES.values()) == sorted(f"{section}.{field.name}" for section, field in fields)
    assert all(field.metadata["comment"] for _, field in fields)


def test_options_find_their_sections_and_come_back():
    config = SearchConfig.of(
        space="litv2_cifar", device="cuda:1", proxy_images=500, reduction_factor=0.0, baselines=("resnet18",)
    )
    assert (config.timing.device, config.proxy.images, config.proxy.reduction_factor) == ("cuda:1", 500, 0.0)
    assert config.search.baselines == config.value("search.baselines") == ("timm:resnet18",)
    changed = config.replace({"proxy.images": None, "search.seed": 3})
    assert (changed.proxy.images, changed.search.seed, changed.timing.device) == (None, 3, "cuda:1")


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "device": st.sampled_from(["cpu", "cuda", "cuda:1"]),
        "batch_size": st.integers(1, 512),
        "compile": st.booleans(),
        "also": st.lists(st.just("batch_size=1"), max_size=1).map(tuple),
        "max_latency_ms": st.floats(0.1, 1e6),
        "value_range": st.just((0.0, 4095.0)),
        "reduction_factor": st.sampled_from([0.0, 2.0, 3.5]),
        "seed": st.integers(0, 2**32 - 1),
        "timeout_s": st.floats(1, 1e6),
        "study": st.just("my study"),
        "checkpoint_mib": st.floats(0, 1e6),
    },
)


@given(OPTIONS)
def test_a_configuration_survives_yaml(options):
    config = SearchConfig.of(**options)
    assert SearchConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_a_base_of_another_kind_or_with_a_fault_is_refused():
    with pytest.raises(UsageError, match="timing must be a section of fields, but got 3"):
        load_config({"timing": 3}, {}, {"timing.device": "cpu"})
    with pytest.raises(UsageError, match="a configuration must be a SearchConfig, a mapping or a file, but got 3"):
        load_config(3)


def test_none_takes_a_value_of_the_base_away():
    config = load_config({"timing": {"seconds": 0.5, "batch_size": 8}}, {"timing.seconds": None})
    assert (config.timing.seconds, config.timing.batch_size) == (None, 8)


def test_a_number_with_an_exponent_and_no_point_is_a_number():
    settings = ["study.checkpoint_mib=1e-05", "timing.seconds=2E0", "limits.min_images_per_s=1.5e3"]
    config = load_config(None, settings, {})
    assert (config.study.checkpoint_mib, config.timing.seconds, config.limits.min_images_per_s) == (1e-05, 2.0, 1500.0)
    assert load_config(None, ["study.name=1e5"], {}).study.name == "1e5"


@given(OPTIONS)
def test_a_configuration_survives_the_words_of_a_command(options):
    config = SearchConfig.of(**options)
    given = {f"{section}.{name}": v for section, own in config.to_dict().items() for name, v in own.items()}
    words = iter(setting_words(given))
    values, settings = {}, []
    for flag, value in zip(words, words, strict=True):
        if flag == "--set":
            settings.append(value)
        else:
            name = next(name for name, own in FLAGS.items() if own == flag)
            kind = type(given[name])
            values[name] = kind(value)
    assert load_config(None, settings, values) == config


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"timings": {}}, ["timings is not a known setting. Did you mean timing?"]),
        ({"proxy": {"imgsize": 3}}, ["proxy.imgsize is not a known setting. Did you mean proxy.img_size?"]),
        ({"timing": {"x": 1}}, ["timing.x is not a known setting."]),
        ({"timing": [1]}, ["timing must be a section of fields, but got [1]"]),
        ({"space": 3}, ["space must be text, but got 3"]),
        ({"data": {"max_cache_gib": 0}}, ["data.max_cache_gib must be a number above 0, but got 0"]),
        (
            {"timing": {"batch_size": "many", "compile": 2}, "search": {"seed": 1.5}},
            [
                "timing.batch_size must be a whole number or null, but got 'many'",
                "timing.compile must be true or false or null, but got 2",
                "search.seed must be a whole number or null, but got 1.5",
            ],
        ),
        (
            {"search": {"trials": 0, "sampler": "genetic"}, "limits": {"max_latency_ms": -1}},
            [
                "search.trials must be at least 1, but got 0",
                "limits.max_latency_ms must be a number above 0, but got -1",
                "search.sampler must be one of hilo, gp, tpe, nsga2, random, but got 'genetic'",
            ],
        ),
    ],
)
def test_all_faults_are_told_at_once(fields, faults):
    with pytest.raises(UsageError) as caught:
        SearchConfig.from_dict(fields)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(lines, faults, strict=True))


def test_a_short_name_that_is_not_known_names_the_nearest():
    with pytest.raises(UsageError, match=r"batchsize is not a known setting\. Did you mean batch_size\?"):
        SearchConfig.of(batchsize=3)


def test_later_layers_lie_over_earlier_ones():
    file = {"space": "litv2_cifar", "timing": {"batch_size": 8, "compile": True}}
    merged = merge_fields(
        file, parse_setting("timing.batch_size=16"), nest_settings({"timing.img_size": 64, "timing.device": None})
    )
    assert merged == {"space": "litv2_cifar", "timing": {"batch_size": 16, "compile": True, "img_size": 64}}
    assert SearchConfig.from_dict(merged).timing.batch_size == 16


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("timing.compile=true", {"timing": {"compile": True}}),
        ("timing.also=[batch_size=1]", {"timing": {"also": ["batch_size=1"]}}),
        ("data.group_by=^(a|b)=", {"data": {"group_by": "^(a|b)="}}),
        ("search.seed=", {"search": {"seed": None}}),
        ("space=litv2_free", {"space": "litv2_free"}),
    ],
)
def test_a_single_setting_is_yaml_after_its_name(text, fields):
    assert parse_setting(text) == fields


def test_one_text_may_stand_for_a_list():
    fields = {
        "timing": {"also": "batch_size=1,max_latency_ms=20"},
        "search": {"baselines": "resnet18"},
        "data": {"value_range": "0,4095"},
    }
    config = SearchConfig.from_dict(fields)
    assert config.timing.also == ("batch_size=1,max_latency_ms=20",)
    assert config.search.baselines == ("timm:resnet18",)
    assert config.data.value_range == (0.0, 4095.0)


@pytest.mark.parametrize("text", ["compile=true", "timing.compile", "timing.also=[", ""])
def test_a_setting_of_another_form_is_refused(text):
    with pytest.raises(UsageError, match="must be"):
        parse_setting(text)


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(NotFoundError, match="there is no configuration"):
        read_fields(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(UsageError, match="must hold sections of fields, but holds"):
        read_fields(tmp_path / "list.yaml")
    with pytest.raises(UsageError, match="must be a file, but"):
        read_fields(tmp_path)
    (tmp_path / "empty.yaml").write_text("# timing:\n")
    assert read_fields(tmp_path / "empty.yaml") == {}
    (tmp_path / "twice.yaml").write_text("space: a\ntiming: {seconds: 1, seconds: 2}\nspace: b\n")
    with pytest.raises(UsageError) as caught:
        read_fields(tmp_path / "twice.yaml")
    said = [line.partition(": ")[2] for line in str(caught.value).split("\n")]
    assert [(text.split()[0], text.split()[-1]) for text in said] == [("timing.seconds", "twice"), ("space", "twice")]
    (tmp_path / "torn.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="is not YAML"):
        read_fields(tmp_path / "torn.yaml")


@pytest.mark.parametrize("name", list_shipped())
def test_a_resolved_configuration_means_the_same_and_stays_as_it_is(name):
    space = load_space(name)
    full = resolve(SearchConfig.of(), space)
    assert (full.timing.batch_size, full.search.until_trials) == (
        space.defaults["batch_size"],
        space.defaults["trials"],
    )
    assert (
        plan_of(full, space).hash("data") == plan_of(SearchConfig.of(), space).hash("data") or name == "litv2_tabular"
    )
    assert resolve(full, space) == full


def test_networks_are_scored_in_int8_if_they_are_timed_in_int8():
    space = digits()
    in_int8 = SearchConfig.of(precision="int8", runtime="openvino")
    plan = plan_of(in_int8, space)
    assert (plan.int8_runtime, plan.int8_version) == ("openvino", INT8_VERSION)
    in_float = plan_of(SearchConfig.of(runtime="openvino"), space)
    assert in_float.int8_runtime is in_float.int8_version is None
    assert plan_of(SearchConfig.of(precision="int8"), space).int8_runtime is None  # torch is refused with the condition
    assert plan_of(in_int8.replace({"proxy.name": "params"}), space).int8_runtime is None


def test_what_means_nothing_to_the_proxy_has_no_default():
    full = resolve(SearchConfig.of(proxy="params"), digits())
    assert (full.proxy.images, full.proxy.rungs, full.proxy.img_size) == (None, None, None)
    assert resolve(SearchConfig.of(proxy="none"), digits()).search.sampler == "random"
    assert resolve(SearchConfig.of(runtime="openvino"), digits()).timing.fused is False


def test_a_stored_study_says_what_it_was_made_with():
    single = build_condition(batch_size=1, fused=True)
    manifest = build_manifest(
        conditions=(build_condition(), single),
        limits={"images_per_s": 9.0, f"latency_ms@{single.label()}": 20.5},
        plan=build_plan(rungs=(320, 960)),
        reduction_factor=None,
        sampler="tpe",
        seed=4,
    )
    config = config_of(manifest)
    assert config.space == "litv2_digits"
    assert config.timing.also == ("batch_size=1,fused=true,max_latency_ms=20.5",)
    assert config.limits.min_images_per_s == 9.0
    assert (config.proxy.rungs, config.proxy.reduction_factor) == (3, 0.0)
    assert (config.search.sampler, config.search.seed, config.search.until_trials) == ("tpe", 4, 12)
    assert SearchConfig.from_dict(config.to_dict()) == config


_ON_CUDA = st.fixed_dictionaries(
    {
        "device": st.just("cuda"),
        "batch_size": st.sampled_from((1, 32)),
        "img_size": st.sampled_from((32, 64)),
        "precision": st.sampled_from(("fp32", "bf16", "amp-bf16", "int8")),
        "runtime": st.sampled_from(RUNTIMES),
        "env": st.sampled_from(ENVIRONMENTS),
        **dict.fromkeys(TORCH_ONLY, st.booleans()),
    }
)


def _valid(fields):
    try:
        return Condition(**fields)
    except UsageError:
        return None


_CUDA = _ON_CUDA.map(_valid).filter(bool)
_CPU = _ON_CUDA.map(lambda fields: _valid({**fields, "device": "cpu", "threads": 2})).filter(bool)
_OTHER_CARD = _CUDA.map(lambda condition: dataclasses.replace(condition, model="other card"))


@settings(max_examples=300, deadline=None)
@given(objective=_CUDA | _CPU, further=_CUDA | _CPU | _OTHER_CARD)
@example(objective=Condition(runtime="openvino", threads=2), further=Condition(fused=False, threads=2))
def test_a_further_condition_reads_back_from_its_text(objective, further):
    assume(objective != further and (further.model is None or objective.device == "cuda"))
    models = {None: "card", "other card": "other card"}

    def identity_of(condition):
        model = "a cpu" if condition.device == "cpu" else models[condition.model]
        return dataclasses.replace(build_device(), kind=condition.device, model=model)

    manifest = build_manifest(conditions=(objective, further))
    calibrations = {
        condition.label(): dataclasses.replace(manifest.calibrations[condition.label()], device=identity_of(condition))
        for condition in (objective, further)
    }
    also = config_of(dataclasses.replace(manifest, calibrations=calibrations)).timing.also
    target = Target(name=further.device, identity=identity_of(further), threads=2 if further.device == "cpu" else None)
    targets = Targets(objective=identity_of(objective), further=dict.fromkeys(named_devices(also), target))
    assert build_requirements(objective, also, targets=targets).conditions == (objective, further)


def test_a_study_resumes_under_its_own_configuration_and_no_other(tmp_path, machine):
    options = {
        "space": "litv2_digits",
        "study": "demo",
        "sampler": "random",
        "until_trials": 2,
    }
    study, _ = run_search(SearchConfig.of(**options), lambda event: None)
    own = config_of(study.manifest).replace({"study.name": "demo", "search.until_trials": 3})
    assert run_search(own, lambda event: None)[1].measured == 3
    with pytest.raises(StudyMismatchError, match=r"proxy\.batch_size: 64 in the study, 8 now"):
        run_search(own.replace({"proxy.batch_size": 8}), lambda event: None)


def test_a_study_of_another_device_is_made_again_from_its_manifest(tmp_path, machine):
    source = write_timed_study(tmp_path, machine, [], "there")
    config = config_of(source.manifest).replace({"study.name": "here", "search.until_trials": 1})
    study, finished = run_search(config, lambda event: None)
    assert finished.measured == 1
    assert study.manifest.plan == source.manifest.plan


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"metric": "top5"}, "proxy.metric must be one of top1"),
        ({"device": "gpu"}, "timing.device must be cpu, cuda, cuda:N or mps"),
        ({"env": "foo"}, "timing.env must be one of tuned"),
        ({"runtime": "tensorrt"}, "timing.runtime must be one of torch"),
        ({"precision": "fp8"}, "timing.precision must be one of fp32"),
        ({"proxy_precision": "fp16"}, "proxy precision must be one of fp32"),
        ({"group_by": "["}, "data.group_by must be a regular expression"),
        ({"seed": -1}, "search.seed must lie between 0 and 4294967295"),
        ({"seed": 2**32}, "search.seed must lie between 0 and 4294967295"),
    ],
)
def test_a_value_that_no_study_can_have_is_refused_whatever_study_it_is_meant_for(options, law):
    with pytest.raises(UsageError, match=law):
        SearchConfig.of(study="stored", **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluator": "slurm"}, "evaluator.kind must be one of local, ray, but got 'slurm'"),
        ({"address": "auto"}, "evaluator.address has no effect without evaluator.kind=ray"),
        ({"evaluator": "local", "time_on": "edge"}, "evaluator.time_on has no effect without evaluator.kind=ray"),
        ({"evaluator": "ray", "train_on": "gpus"}, "evaluator.train_on needs evaluator.time_on"),
    ],
)
def test_settings_of_a_cluster_without_a_cluster_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        SearchConfig.of(**settings)


def test_a_configuration_names_its_cluster():
    assert cluster_of(SearchConfig()) is None
    assert cluster_of(SearchConfig.of(evaluator="local")) is None
    assert cluster_of(SearchConfig.of(evaluator="ray")) == ClusterOptions()
    config = SearchConfig.of(evaluator="ray", address="head:6379", time_on="edge", train_on="gpus")
    assert cluster_of(config) == ClusterOptions(address="head:6379", time_on="edge", train_on="gpus")

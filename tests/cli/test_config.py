"""`hilo-nas config`, and the way of settings from files and options to a search."""

import pytest
import yaml
from builders import build_manifest, write_study

from hilo_nas.cli.app import main
from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.config_files import load_config, render_config
from hilo_nas.searching.configuration.resolve import resolve
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.space import list_shipped, load_space


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys, *arguments):
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("space", list_shipped())
def test_what_is_printed_is_the_resolved_configuration(capsys, home, space):
    text = printed(capsys, space)
    expected = resolve(SearchConfig.of(space=space), load_space(space))
    assert SearchConfig.from_dict(yaml.safe_load(text)) == expected
    (home / "search.yaml").write_text(text)
    assert load_config(home / "search.yaml") == expected
    assert printed(capsys, "--config", "search.yaml") == text


def test_every_line_of_a_setting_has_its_comment():
    lines = render_config(SearchConfig()).splitlines()
    settings = [line for line in lines if line.startswith("  ")]
    assert len(settings) > 40
    assert all(line.count("  # ") >= 1 for line in settings)


def test_flags_lie_over_single_settings_and_these_over_the_file(home):
    (home / "search.yaml").write_text("timing: {batch_size: 8, img_size: 64}\nlimits:\nsearch: {seed: 1}\n")
    config = load_config(home / "search.yaml", ["timing.batch_size=16", "search.seed=2"], {"timing.batch_size": 32})
    assert (config.timing.batch_size, config.timing.img_size, config.search.seed) == (32, 64, 2)


def test_faults_of_a_file_name_it(home):
    (home / "search.yaml").write_text("timing: {batchsize: 8}\nsearch: {seed: x}\n")
    with pytest.raises(UsageError) as caught:
        load_config(home / "search.yaml")
    assert str(caught.value).split("\n") == [
        f"{home / 'search.yaml'}: timing.batchsize is not a known setting. Did you mean timing.batch_size?",
        f"{home / 'search.yaml'}: search.seed must be a whole number or null, but got 'x'",
    ]


def test_the_manifest_of_a_study_is_a_configuration(capsys, home):
    study = write_study(home / "studies", "demo", manifest=build_manifest("demo", seed=7))
    text = printed(capsys, "--config", str(study.manifest_path), "--set", "search.until_trials=3")
    assert "seed: 7" in text
    assert "until_trials: 3" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "timing.compil=true"), "Did you mean timing.compile?"),
        (("--set", "compile=true"), "a setting must be SECTION.FIELD=VALUE"),
        (("--config", "none.yaml"), "there is no configuration none.yaml"),
        (("litv2_cifr",), "Did you mean litv2_cifar"),
        (("--set", "proxy.name=flops"), "proxy must be one of training"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(capsys, arguments, said):
    for command in ("config", "search"):
        assert main([command, *arguments]) == 2
        assert said in capsys.readouterr().err

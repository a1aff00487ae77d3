"""The command that writes a study's images for trainers that would read them otherwise."""

import shlex

from builders import build_data, build_manifest, build_plan, write_study

from hilo_nas.export.writing import hints_of_writing
from hilo_nas.searching.configuration.config_files import load_config
from hilo_nas.study.local_settings import write_local
from hilo_nas.text.commands import setting_text


def hints(tmp_path, *, local=None, group_by=None, **data):
    manifest = build_manifest(
        data=build_data(unlike_timm=["the images are in a tar"], **data), plan=build_plan(group_by=group_by)
    )
    study = write_study(tmp_path, manifest=manifest)
    if local is not None:
        write_local(study.local_path, local)
    return hints_of_writing(study, manifest)


def test_nothing_is_said_where_timm_reads_the_same(tmp_path):
    manifest = build_manifest(data=build_data(unlike_timm=[]))
    assert hints_of_writing(write_study(tmp_path, manifest=manifest), manifest) == []


def test_the_command_names_the_place_and_the_reading_of_the_images(tmp_path):
    reading = {"class_from": "last", "value_range": [0.0, 4095.0], "skip_broken": True, "background": "#336699"}
    why, line = hints(tmp_path, local={"data.source": "/data/my scans.tar"}, group_by="^[^/]+", reading=reading)
    assert "the images are in a tar" in why
    words = shlex.split(line)
    assert words[:5] == ["hilo-nas", "data", "write", "/data/my scans.tar", "DIR"]
    config = load_config(None, words[6::2])
    assert set(words[5::2]) == {"--set"}
    assert config.data.group_by == "^[^/]+"
    assert (config.data.class_from, config.data.skip_broken) == ("last", True)
    assert (config.data.value_range, config.data.background) == ((0.0, 4095.0), "#336699")


def test_the_command_names_validation_images_of_their_own(tmp_path):
    local = {"data.source": "/data/scans", "data.val_source": "/data/val"}
    assert "--set data.val_source=/data/val" in hints(tmp_path, local=local)[1]


def test_a_strangers_function_is_named_with_a_warning(tmp_path):
    why, line = hints(tmp_path, name="scans.py:load")
    assert "runs a function" in why
    assert "scans.py:load" in line
    why, _ = hints(tmp_path / "own", name="scans.py:load", local={"data.source": "/mine/scans.py:load"})
    assert "author" not in why


def test_a_setting_is_quoted_for_a_shell():
    assert setting_text("data.group_by", "^(a|b)") == "--set 'data.group_by=^(a|b)'"

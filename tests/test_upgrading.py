"""The table of old options in docs/upgrading.md names settings and flags that exist."""

import re
from pathlib import Path

from hilo_nas.searching.configuration.search_config import SHORT_NAMES
from hilo_nas.text.commands import FLAGS

TEXT = (Path(__file__).parents[1] / "docs" / "upgrading.md").read_text(encoding="utf-8")
SEARCH = TEXT.partition("## Options of `hilo-nas search`")[2].partition("## Options of other commands")[0]


def test_every_setting_has_a_place_in_the_table():
    named = set(re.findall(r"`((?:timing|limits|proxy|data|search|study|evaluator)\.[a-z_]+)`", SEARCH))
    assert named <= set(SHORT_NAMES.values())
    assert named | set(FLAGS) == set(SHORT_NAMES.values())


def test_every_flag_that_stays_is_named():
    assert set(FLAGS.values()) <= set(re.findall(r"--[a-z-]+", SEARCH))

import importlib.util
import math
from xml.etree import ElementTree

import pytest

from hilo_nas.errors import UsageError
from hilo_nas.report import Cloud, TauBar, render_agreement

NONE = (math.nan, math.nan, math.nan)
BARS = [
    TauBar(name="top1@1000", overall=(0.5, 0.4, 0.6), like_speed=(0.3, 0.1, 0.5)),
    TauBar(name="macs & more", overall=(0.4, 0.3, 0.5), like_speed=NONE),
]
CLOUD = Cloud(name="top1@1000", long_top1=[0.5, 0.6], values=[0.3, 0.35])
CEILING = TauBar(name="ceiling", overall=(0.8, 0.7, 0.9), like_speed=NONE)


def texts(picture):
    return [element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_is_whole_svg_with_its_words_as_text():
    found = texts(render_agreement(BARS, [CLOUD], ceiling=CEILING, title="What <ranks>"))
    assert {"What <ranks>", "top1@1000", "macs & more", "noise ceiling, all pairs"} <= set(found)
    assert found.count("top1@1000") == 2
    assert "top-1 of the proxy, %" in found


def test_what_is_not_known_is_not_drawn():
    found = texts(render_agreement(BARS, [], ceiling=CEILING, title="t"))
    assert "noise ceiling, pairs of similar speed" not in found
    assert "top-1 of the proxy, %" not in found
    assert "noise ceiling, all pairs" not in texts(render_agreement(BARS, [], title="t"))


def test_the_same_numbers_give_the_same_file():
    assert render_agreement(BARS, [CLOUD], title="t") == render_agreement(BARS, [CLOUD], title="t")


def test_without_matplotlib_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"a plot needs matplotlib, .* pip install 'hilo-nas\[plot\]'"):
        render_agreement(BARS, [], title="t")

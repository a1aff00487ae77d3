"""Every proxy passes the checks of `hilo_nas.testing`: those of this package, a function, and another package's."""

import ast
from pathlib import Path

import pytest
from builders import fresh

import hilo_nas
from hilo_nas.cli import main
from hilo_nas.errors import UsageError
from hilo_nas.measurement import ProxyPlan
from hilo_nas.proxy.kinds import PROXIES, metric_named, proxy_named, proxy_names, quick_names
from hilo_nas.study.stored_study import open_study
from hilo_nas.testing import DeclarationChecks, ProxyChecks

TOY = Path(__file__).parents[1] / "assets" / "toy"
"""One file, and one line in its package's entry points."""


@pytest.fixture
def toy(monkeypatch):
    """Installs the other package in this process and in those that it starts."""
    monkeypatch.syspath_prepend(TOY)


class TestTraining(ProxyChecks):
    name = "training"


class TestParams(DeclarationChecks):
    name = "params"


class TestMacs(DeclarationChecks):
    name = "macs"


class TestSpeed(DeclarationChecks):
    name = "images_per_s"


class TestNaswot(ProxyChecks):
    name = "naswot"


class TestZico(ProxyChecks):
    name = "zico"


class TestDss(ProxyChecks):
    name = "dss"


class TestNone(DeclarationChecks):
    name = "none"


class TestFunction(ProxyChecks):
    name = "mine.py:score"

    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.py").write_text(
            "def score(arch, build_model, budget, seed, callback):\n"
            "    weights = next(build_model().parameters())\n"
            "    callback(budget)\n"
            "    return weights.detach().sum(), 0\n"
        )


@pytest.mark.usefixtures("toy")
class TestToy(ProxyChecks):
    name = "toy"


def test_every_proxy_of_the_package_is_checked_here():
    kinds = [*DeclarationChecks.__subclasses__(), *ProxyChecks.__subclasses__()]
    assert {getattr(kind, "name", None) for kind in kinds} >= set(PROXIES)


def test_another_package_adds_a_proxy_by_one_file_and_one_line(toy):
    assert proxy_names() == (*PROXIES, "toy")
    assert "toy" not in quick_names()  # it has a budget
    assert metric_named("toy_hits").heading == "hits %"
    assert ProxyPlan(img_size=16, batch_size=8, images=64, proxy="toy", recipe="toy-1").score_metric == "toy_hits"


def test_a_proxy_that_is_not_installed_is_told_with_those_that_are():
    with pytest.raises(
        UsageError, match=r"proxy must be one of training, .*, dss, none, or module:function .* but got 'toy'"
    ):
        proxy_named("toy")


def test_what_is_no_declaration_is_refused(tmp_path, monkeypatch):
    (tmp_path / "wrong.py").write_text("WRONG = 3\n")
    (tmp_path / "wrong.dist-info").mkdir()
    (tmp_path / "wrong.dist-info/entry_points.txt").write_text("[hilo_nas.proxies]\nwrong = wrong:WRONG\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"wrong:WRONG .* Proxy .* 'wrong', but is 3"):
        proxy_named("wrong")


SPACE = """
patch_size: [2]
embed_dims: [8, 16]
depths: [[1, 2], [1], [1, 2, 3], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.0, 0.5, 1.0]
window_size: [[1], [1], [2], [1]]
mlp_ratios: [2]
defaults: {img_size: 32, batch_size: 4, proxy_img_size: 16, proxy_batch_size: 32, proxy_images: 320, trials: 2}
"""


def search(*arguments):
    fixed = ("--data", "digits", "--device", "cpu", "--study", "demo")
    settings = ("search.sampler=random", "timing.seconds=0.2", "timing.remeasure=false")
    return main(["search", "tiny.yaml", *fixed, *(word for one in settings for word in ("--set", one)), *arguments])


@pytest.mark.slow
def test_a_search_is_scored_by_another_packages_proxy(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    assert search("--proxy", "toy") == 0
    shown = capsys.readouterr().out
    assert "hits %" in shown
    assert "hits: hits among random features of 320 images of digits" in shown
    folder = open_study("demo")
    scores = [record.score for record in fresh(folder).records]
    assert [score.metric for score in scores] == ["toy_hits"] * 2
    assert all(0.1 < score.value < 1 for score in scores)
    manifest = fresh(folder).manifest
    assert manifest.prepared is not None
    assert str(tmp_path) not in folder.manifest_path.read_text()
    assert main(["status", "demo"]) == 0
    assert "toy: hits among random features of 320 images of digits" in capsys.readouterr().out


# No name of a proxy outside its room.

PACKAGE = Path(hilo_nas.__file__).parent
OTHERS = {"training", "params", "macs", "images_per_s", "none"}
"""Names of proxies that other things have, too."""


def comparisons_in(text):
    """Comparisons with a proxy's or a metric's name, and imports of single declarations, in a module's source."""
    names = set(PROXIES) | {metric.name for proxy in PROXIES.values() for metric in proxy.metrics}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare) and not any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            strings = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
            sides = {getattr(side, "attr", getattr(side, "id", None)) for side in (node.left, *node.comparators)}
            asks = sides & {"proxy", "metric", "score_metric"} and strings
            if asks or strings & (names - OTHERS) or "DEFAULT_PROXY" in {getattr(part, "id", None) for part in parts}:
                yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hilo_nas.proxy.kinds."):
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "plan.proxy == 'training'",
        "plan.proxy in ('params', 'macs')",
        "metric != 'top1'",
        "name == 'zico'",
        "plan.proxy == DEFAULT_PROXY.name",
        "from hilo_nas.proxy.kinds.short_training import TRAINING",
    ],
)
def test_a_comparison_with_a_proxys_name_would_be_seen(line):
    assert list(comparisons_in(line))


def test_no_other_package_tests_for_the_name_of_a_proxy():
    rooms = {PACKAGE / "proxy", PACKAGE / "testing"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if not rooms & {*path.parents}:
            assert not list(comparisons_in(path.read_text("utf-8"))), path

"""Conformance tests for proxies of this package and of plug-ins, as base classes for a pytest class.

    from hilo_nas.testing import ProxyChecks

    class TestMine(ProxyChecks):
        name = "mine"

`ProxyChecks` scores a tiny network about 15 times on the CPU, on the digits data set of scikit-learn. Use
`DeclarationChecks` for a proxy that needs no worker.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hilo_nas.data.prepared_images import CachedData, prepare_data
from hilo_nas.errors import UsageError
from hilo_nas.events import Event, TrainingProgressed
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.plugins import absolute, hash_source
from hilo_nas.proxy.kinds import OPTIONS, Attempt, Proxy, metric_named, proxy_named
from hilo_nas.proxy.work import Work

__all__ = ["DeclarationChecks", "ProxyChecks"]

_TINY = {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2}
_RUNG_OPTIONS = {"proxy.reduction_factor", "proxy.rung_ratio", "proxy.raise_budget"}
_CHILD = """
import sys
from hilo_nas.proxy.kinds import proxy_named
proxy = proxy_named(sys.argv[1])
proxy.unused_options, proxy.metrics, proxy.version
print(*[name for name in ("torch", "timm", "optuna") if name in sys.modules])
"""


class DeclarationChecks:
    """Tests of a proxy's declaration. A subclass sets `name`."""

    name: ClassVar[str]
    """Proxy, as passed to `--proxy`. For a function, includes its folder."""

    @property
    def proxy(self) -> Proxy:
        """Declaration of the proxy."""
        return proxy_named(self.name)

    def test_its_declaration_is_found_by_its_name_without_torch(self) -> None:
        """Commands that show a study import declarations and must start fast."""
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, self.name], capture_output=True, text=True, check=False, env=_environment()
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.split() == [], f"the declaration must not import {done.stdout}"

    def test_its_options_are_known_and_fit_each_other(self) -> None:
        """A search uses the options to decide which settings it accepts."""
        proxy, options = self.proxy, self.proxy.options
        assert options <= set(OPTIONS), f"unknown options: {options - set(OPTIONS)}"
        assert proxy.has_budget or not proxy.has_rungs, "a proxy with rungs must have a budget"
        assert proxy.has_rungs or not options & _RUNG_OPTIONS, f"{', '.join(sorted(_RUNG_OPTIONS))} need rungs"
        assert "proxy.metric" in options or len(proxy.metrics) == 1, "several metrics need the option proxy.metric"
        assert proxy.sees_images or "data.group_by" not in options
        assert proxy.needs_data or not proxy.sees_images
        assert proxy.work is not None or not proxy.prepares, "a proxy that prepares must have work"
        assert proxy.version
        assert proxy.version != proxy.baseline_version

    def test_its_texts_are_formats_with_known_fields(self) -> None:
        """`status` and `front` fill in the fields and show the texts."""
        fields = {"name": self.proxy.name, "metric": "m", "data": "d", "scored_on": "s", "batch_size": 2, "img_size": 3}
        for text in (self.proxy.description, self.proxy.summary):
            assert "{" not in text.format(images=1000, **fields)
        assert self.proxy.description

    def test_its_metrics_are_found_by_their_names(self) -> None:
        """A stored score contains only the name of its metric."""
        for metric in self.proxy.metrics:
            assert metric_named(metric.name) == metric
            chance = metric.chance(10, 0.3)
            assert chance is None or not metric.is_share or 0 < chance < 1
            assert metric.text(0.5)
            assert metric.heading

    def test_its_seconds_are_estimated_from_attempts_within_the_budget(self) -> None:
        """A dry run estimates the seconds of a score from short trial runs, which must not exceed the full budget."""
        full, batch_size, attempted = 10_000, 32, []

        def attempt(images: int) -> Attempt:
            attempted.append(images)
            seconds = 1 + images / 1000
            return Attempt(seconds=seconds, progress=tuple((n * images // 4, n * seconds / 4) for n in (1, 2, 3, 4)))

        seconds = self.proxy.estimate_seconds(full, batch_size, attempt)
        assert math.isfinite(seconds)
        assert seconds >= 0
        assert max(attempted, default=0) <= full
        without_progress = self.proxy.estimate_seconds(
            full, batch_size, lambda images: Attempt(seconds=1.0, progress=())
        )
        assert math.isfinite(without_progress)
        assert without_progress >= 0


class ProxyChecks(DeclarationChecks):
    """Tests of a proxy: its declaration (`Proxy`) and the class that computes its scores (`Work`).

    A subclass sets `name` and can override the other fields.
    """

    subject: ClassVar[Mapping[str, Any]] = {"arch": _TINY}
    """Network to score."""
    img_size: ClassVar[int] = 16
    batch_size: ClassVar[int] = 32
    images: ClassVar[int] = 96
    """Full budget in training images, at least three batches."""

    @property
    def source(self) -> str | None:
        """File and name of the function, if the proxy has `has_source`; otherwise None."""
        return absolute(self.name) if self.proxy.has_source else None

    def build_plan(self, **fields: Any) -> ProxyPlan:
        """Returns the plan of these tests, with some fields replaced."""
        proxy = self.proxy
        values: dict[str, Any] = {
            "img_size": self.img_size,
            "batch_size": self.batch_size,
            "images": self.images if proxy.has_budget else 1,
            "hflip": False,
            "proxy": proxy.name,
            "recipe": proxy.version,
            "source_hash": hash_source(self.source) if self.source else None,
            **({"metric": proxy.metrics[0].name} if "proxy.metric" in proxy.options else {}),
        }
        return ProxyPlan(**{**values, **fields})

    def prepare(self) -> dict[str, Any]:
        """Returns the result of the proxy's `prepare` for `build_plan()`, after a JSON round trip."""
        from hilo_nas.proxy.worker_calls import prepare_proxy

        data = self._data().to_dict() if self.proxy.sees_images else None
        plan = self.build_plan().to_dict()
        found = prepare_proxy(emit=lambda event: None, plan=plan, data=data, device="cpu", source=self.source)
        return _through_json(found)

    def score(self, plan: ProxyPlan | None = None, **arguments: Any) -> ProxyScore:
        """Returns the network's score on the CPU, after a JSON round trip."""
        return ProxyScore.from_dict(self.scored(plan, **arguments)["score"])

    def scored(self, plan: ProxyPlan | None = None, **arguments: Any) -> dict[str, Any]:
        """Returns the result of `hilo_nas.proxy.worker_calls.score_network`, after a JSON round trip."""
        from hilo_nas.proxy.worker_calls import score_network

        values: dict[str, Any] = {
            "emit": lambda event: None,
            "subject": dict(self.subject),
            "plan": (plan or self.build_plan()).to_dict(),
            "data": self._data().to_dict(),
            "prepared": self.prepare(),
            "seed": 0,
            "device": "cpu",
        }
        return _through_json(score_network(**{**values, **arguments}))

    def _data(self) -> CachedData:
        return _prepare_digits(self.img_size)

    def test_its_work_is_importable(self) -> None:
        """A worker process imports the work by its name."""
        assert self.proxy.work is not None, "use DeclarationChecks for a proxy without work"
        module, _, name = self.proxy.work.partition(":")
        assert issubclass(getattr(importlib.import_module(module), name), Work)

    def test_it_prepares_the_same_again(self) -> None:
        """Another process can resume a study only if the prepared facts are equal."""
        first = self.prepare()
        assert first["facts"] == self.prepare()["facts"]
        assert self.proxy.prepares or first == {"facts": {}, "local": {}}

    def test_its_score_says_everything_that_comparisons_need(self) -> None:
        """The score contains its plan, budget, seed and device."""
        plan, score = self.build_plan(), self.score(seed=3)
        assert score.metric == plan.score_metric
        assert score.plan_hash == plan.hash(self._data().content_hash)
        assert score.images_seen == plan.budgets[-1]
        assert (score.seed, score.device, score.seeds) == (3, "cpu", 1)
        assert math.isfinite(score.value)
        assert score.standard_error >= 0
        assert score.seconds > 0
        metric = metric_named(score.metric)
        assert not metric.is_share or 0 <= score.value <= 1
        assert not metric.is_share or score.chance is None or 0 < score.chance < 1

    def test_the_same_seed_gives_the_same_value(self) -> None:
        """Other seeds give the same value too, unless the proxy has the option proxy.confirm."""
        first, again, other = (self.score(seed=seed) for seed in (5, 5, 6))
        assert (first.value, first.standard_error) == (again.value, again.standard_error)
        if "proxy.confirm" not in self.proxy.options:
            assert first.value == other.value

    def test_it_stays_within_its_budget(self) -> None:
        """Progress events count training images, up to the budget."""
        events: list[Event] = []
        self.score(emit=events.append)
        budget = self.build_plan().budgets[-1]
        for event in events:
            if isinstance(event, TrainingProgressed):
                assert 0 <= event.images_seen <= budget
                assert event.images_total == budget

    def test_its_legs_give_what_the_whole_gives(self, tmp_path: Path) -> None:
        """A proxy with rungs can stop and resume at each rung; other proxies ignore the checkpoint."""
        checkpoint = tmp_path / "rung.pt"
        whole = self.score()
        if not self.proxy.has_rungs:
            assert self.score(checkpoint=str(checkpoint)).value == whole.value
            assert not checkpoint.exists()
            return
        plan = self.build_plan(rungs=(self.batch_size,))
        first, second = (self.score(plan, until=images, checkpoint=str(checkpoint)) for images in plan.budgets)
        assert [first.images_seen, second.images_seen] == list(plan.budgets)
        assert (second.value, second.loss, second.plan_hash) == (whole.value, whole.loss, whole.plan_hash)

    def test_another_version_is_refused(self) -> None:
        """Values of different versions are not comparable."""
        assert "of-another-time" in self._error_text(self.build_plan(recipe="of-another-time"))

    def test_it_is_scored_under_another_precision_where_it_reads_precisions(self) -> None:
        """Each precision in `score_under` gives one more score of the same trained network.

        Every score has its own plan hash. A proxy without the option `proxy.precision` rejects `score_under`.
        """
        if "proxy.precision" not in self.proxy.options:
            assert "amp-bf16" in self._error_text(score_under=["amp-bf16"])
            return
        scored = self.scored(score_under=["fp32", "amp-bf16"])
        score, same, other = (ProxyScore.from_dict(item) for item in (scored["score"], *scored["further"]))
        assert (same.value, same.images_seen) == (score.value, score.images_seen)
        assert len({score.plan_hash, same.plan_hash, other.plan_hash}) == 3

    def _error_text(self, plan: ProxyPlan | None = None, **arguments: Any) -> str:
        try:
            self.score(plan, **arguments)
        except UsageError as error:
            return str(error)
        return "score raised no UsageError"

    def test_it_leaves_torchs_settings_alone(self) -> None:
        """The same worker scores other networks afterwards."""
        import torch

        def settings() -> tuple[object, ...]:
            return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())

        before = settings()
        self.score()
        assert settings() == before


def _through_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(fields, allow_nan=False))
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@functools.cache
def _prepare_digits(img_size: int) -> CachedData:
    folder = tempfile.mkdtemp(prefix="hilo-nas-testing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return prepare_data("digits", img_size, cache_dir=Path(folder), emit=lambda event: None)

"""What is trained for a check of proxies, in which study, and what its report is made of; nothing is trained here."""

import dataclasses
import math

import pytest
from builders import build_manifest, build_plan, digits, fresh, write_study
from fakes import FakeTrainer

from benchmarks.tables.table_making import list_swept, make_table
from hilo_nas.bench.proxy_check.agreement_report import report_proxy_check
from hilo_nas.bench.proxy_check.proxy_check import ProxyCheck, run_proxy_check
from hilo_nas.errors import HiloNasError, MeasurementError, NotFoundError, StudyMismatchError, UsageError
from hilo_nas.events import Notice
from hilo_nas.report import render_markdown
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.space.space_file import build_space
from hilo_nas.study.stored_study import StoredStudy

TWELVE = build_space(
    "twelve",
    {
        "patch_size": [4],
        "embed_dims": [8, 12, 16],
        "depths": [[1], [1, 2], [1, 2], [1]],
        "head_dim": [8],
        "attention": [["none"], ["hilo"], ["hilo"], ["none"]],
        "alpha": [0.5],
        "window_size": [[1], [2], [1], [1]],
        "mlp_ratios": [2],
        "defaults": dict(digits().defaults),
    },
)
"""A space of twelve networks."""

SIZES = {"proxy_batch_size": 64, "proxy_images": 3000, "rungs": 2}
"""Budgets of 1,024 and 3,008 images."""


class Desk:
    """A folder of studies, a fake machine, and the received events."""

    def __init__(self, path):
        self.path = path
        self.machine, self.told = FakeTrainer(), []

    def folder(self, name="checked"):
        return StoredStudy(self.path / name)

    def check(self, name="checked", *, check=None, **options):
        return run_proxy_check(
            self.request(**options),
            TWELVE,
            self.folder(name),
            check or ProxyCheck(networks=6, second_seed=3),
            self.told.append,
            evaluator=self.machine,
        )

    def table(self, name="checked", **options):
        folder = self.folder(name)
        return make_table(self.request(**options), TWELVE, folder, self.told.append, evaluator=self.machine)

    def request(self, **options):
        return SearchConfig.of(data="digits", device="cpu", **{**SIZES, **options})


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def seen(record, seed):
    return [score.images_seen for score in record.scores if score.seed == seed]


def scores(checked):
    return [proxy.name for proxy in checked.agreement.budgets]


def test_each_network_has_the_proxys_training_a_long_one_and_some_a_second(desk):
    desk.check()
    records = fresh(desk.folder()).records
    assert [seen(record, 0) for record in records] == [[1024, 3008]] * 6
    # 9,000 lie between, a third of the way to 30,000 at least.
    assert [seen(record, 1) for record in records] == [[1024, 3008, 9024, 30_016]] * 6
    assert [seen(record, 2) for record in records] == [[1024, 3008, 9024, 30_016]] * 3 + [[]] * 3
    assert {score.metric for record in records for score in record.other_scores} == {"naswot", "zico", "dss"}


def test_every_proxy_is_compared_with_the_first_long_training(desk):
    agreement = desk.check().agreement
    names = [proxy.name for proxy in agreement.proxies]
    scores = ["top1@1024", "likelihood@1024", "top1@3008", "likelihood@3008"]
    assert names == [*scores, "params", "macs", "naswot", "zico", "dss", "images_per_s"]
    assert [proxy.name for proxy in agreement.budgets] == scores
    assert {proxy.networks for proxy in agreement.proxies} == {6}
    assert agreement.ceiling.overall.pairs == 3
    records = {record.key: record for record in fresh(desk.folder()).records}
    for network in agreement.networks:
        record = records[network.key]
        values = {(score.seed, score.images_seen): score.value for score in record.scores}
        assert network.long == tuple(values[seed, 30_016] for seed in (1, 2) if (seed, 30_016) in values)
        assert network.proxies["top1@1024"] == values[0, 1024]
        losses = {score.images_seen: score.loss for score in record.scores if score.seed == 0}
        assert network.proxies["likelihood@1024"] == math.exp(-losses[1024])
        assert (network.proxies["params"], network.proxies["macs"]) == (record.parameters, record.macs)
        assert network.proxies["zico"] == next(s.value for s in record.other_scores if s.metric == "zico")
        assert network.images_per_s == record.measurement.images_per_s


def test_a_budget_costs_all_legs_up_to_it_and_a_count_nothing(desk):
    network = desk.check().agreement.networks[0]
    # Each leg of the fake takes 7.5 s.
    assert (network.seconds["top1@1024"], network.seconds["top1@3008"]) == (7.5, 15.0)
    assert network.long_seconds == 30.0
    assert (network.seconds["likelihood@1024"], network.seconds["likelihood@3008"]) == (7.5, 15.0)
    assert (network.seconds["params"], network.seconds["naswot"]) == (0.0, 7.5)
    assert network.seconds["images_per_s"] == fresh(desk.folder()).records[0].measurement.seconds


def test_a_second_check_makes_the_same_report_and_trains_nothing(desk):
    first = desk.check()
    desk.machine.legs.clear()
    desk.machine.others.clear()
    assert repr(desk.check()) == repr(first)  # NaN is not equal to itself
    assert (desk.machine.legs, desk.machine.others) == ([], [])


def test_a_check_in_a_tables_study_takes_its_speeds_and_scores_and_leaves_the_table_as_it_was(desk):
    made = desk.table(rungs=3)
    desk.machine.legs.clear()
    checked = desk.check(proxy_images=1000, check=ProxyCheck(networks=4, second_seed=0, long_images=9000))
    assert {seed for _, seed, _ in desk.machine.legs} == {1}
    assert len(desk.machine.cohorts) == 1
    # The table's budgets: all up to the check's are compared.
    assert scores(checked) == ["top1@384", "likelihood@384", "top1@1024", "likelihood@1024"]
    manifest, records = fresh(desk.folder()).manifest, fresh(desk.folder()).records
    assert manifest.plan.budgets == (384, 1024, 3008, 9024)
    assert manifest.trials == len(records) == 12
    assert [record.scores[:3] for record in records] == [record.scores for record in made]
    desk.machine.legs.clear()
    desk.table(rungs=3)
    assert desk.machine.legs == []
    assert fresh(desk.folder()).records == records


def test_a_table_in_a_checks_study_goes_on_with_its_networks(desk):
    desk.check(check=ProxyCheck(networks=4, second_seed=0, long_images=9000, training_free=()))
    desk.machine.legs.clear()
    desk.table()
    assert len({key for key, _, _ in desk.machine.legs}) == 8
    assert {(seed, images) for _, seed, images in desk.machine.legs} == {(0, 1024), (0, 3008)}


def test_a_batch_size_left_out_is_that_of_the_study(desk):
    desk.check(proxy_batch_size=100)
    desk.machine.legs.clear()
    checked = desk.check(proxy_batch_size=None)
    assert desk.machine.legs == []
    assert scores(checked) == ["top1@1000", "likelihood@1000", "top1@3000", "likelihood@3000"]


def test_a_budget_that_the_trainings_are_past_is_left_out_with_a_warning(desk):
    desk.check()
    checked = desk.check(rungs=3)
    assert scores(checked) == ["top1@1024", "likelihood@1024", "top1@3008", "likelihood@3008"]
    warnings = [event.text for event in desk.told if isinstance(event, Notice) and event.level == "warning"]
    (warning,) = warnings
    assert "after 384 images" in warning


def test_a_long_budget_that_the_study_is_past_is_refused_and_the_scored_ones_are_listed(desk):
    desk.check()
    with pytest.raises(UsageError, match=r"after 20,032 images, .* after 1,024, 3,008, 9,024, 30,016\..*--long-images"):
        desk.check(check=ProxyCheck(networks=6, long_images=20_000))
    shorter = desk.check(check=ProxyCheck(networks=6, second_seed=3, long_images=9000))
    assert shorter.settings["long_images"] == 9024


def test_a_long_training_must_be_longer_than_the_proxys(desk):
    for images in (2000, 3005):
        with pytest.raises(UsageError, match=r"long_images must be more than the proxy's 3,000 images, but got"):
            desk.check(check=ProxyCheck(long_images=images))
    assert not desk.folder().exists


def test_a_network_whose_long_training_fails_is_left_out_and_named(desk):
    def fail(task):
        if getattr(task, "seed", None) == 1 and task.subject == broken:
            raise HiloNasError("the training diverged")

    broken = list_swept(TWELVE, SearchConfig.of(), desk.folder(), 2, desk.told.append)[1].subject.to_dict()
    desk.machine.before = fail
    checked = desk.check()
    key = fresh(desk.folder()).records[1].key
    assert list(checked.failures) == [key]
    assert "30,016 images" in checked.failures[key]
    assert [network.key for network in checked.agreement.networks].count(key) == 0
    assert len(checked.agreement.networks) == 5


def test_where_no_long_training_ends_well_nothing_is_compared(desk):
    def fail(task):
        if getattr(task, "seed", None) == 1:
            raise HiloNasError("the training diverged")

    desk.machine.before = fail
    with pytest.raises(MeasurementError, match="at least two networks must have a long training"):
        desk.check()


def test_long_trainings_at_the_targets_size_are_read_from_their_own_study(desk):
    desk.check("target", check=ProxyCheck(networks=4, second_seed=0, training_free=()), proxy_img_size=48)
    check = ProxyCheck(networks=6, second_seed=3, target=StoredStudy(desk.folder("target").path))
    agreement = desk.check(check=check).agreement
    top1 = {record.key: record.score_at(30_016).value for record in fresh(desk.folder("target")).records}
    assert [network.target for network in agreement.networks] == [
        top1.get(network.key) for network in agreement.networks
    ]
    assert agreement.long_to_target.overall.pairs == 6
    assert repr(desk.check(check=check).agreement) == repr(agreement)


def test_a_target_of_the_same_size_other_networks_or_without_long_trainings_is_refused(desk):
    desk.check("same")
    with pytest.raises(StudyMismatchError, match=r"study same must .* 32 pixels.*proxy\.img_size"):
        desk.check(check=ProxyCheck(target=StoredStudy(desk.folder("same").path)))
    large = build_manifest("large", space=TWELVE, plan=build_plan(img_size=48))
    records = fresh(desk.folder("same")).records
    turned = [dataclasses.replace(record, number=i) for i, record in enumerate(reversed(records))]
    others = write_study(desk.path, "others", turned, large)
    with pytest.raises(StudyMismatchError, match=r"study others must .* networks"):
        desk.check(check=ProxyCheck(target=StoredStudy(others.path)))
    bare = [dataclasses.replace(record, scores=()) for record in records]
    untrained = write_study(desk.path, "untrained", bare, large)
    with pytest.raises(NotFoundError, match="study untrained must have long trainings"):
        desk.check(check=ProxyCheck(target=StoredStudy(untrained.path)))
    desk.machine.data["content_hash"] = "of other images"
    desk.check("other-data", proxy_img_size=48)
    with pytest.raises(StudyMismatchError, match="study other-data must use the same data, digits"):
        desk.check("same", check=ProxyCheck(target=StoredStudy(desk.folder("other-data").path)))
    assert not desk.folder().exists


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"networks": 1}, "networks must be at least 2, but got 1"),
        ({"long_images": 0}, "long_images must be at least 1, but got 0"),
        ({"second_seed": -1}, "second_seed must be at least 0, but got -1"),
        ({"training_free": ("naswot", "luck")}, "training_free must be .*naswot, zico, dss, but got luck"),
    ],
)
def test_what_cannot_be_checked_is_refused(options, text):
    with pytest.raises(UsageError, match=text):
        ProxyCheck(**options)


def test_its_report_says_what_was_compared_and_how(desk):
    checked = desk.check()
    report = report_proxy_check(
        checked.agreement,
        study="check",
        command="hilo-nas proxy check litv2_digits",
        settings=checked.settings,
        measurements=checked.measurements,
        failures=checked.failures,
        with_picture=False,
    )
    text = render_markdown(report)
    assert "long_images 30016" in text
    assert "budgets [1024, 3008]" in text
    assert not math.isnan(checked.agreement.long_seconds)

import csv
import dataclasses
import math

import numpy as np
import pytest
from builders import build_measurement
from scipy.stats import kendalltau

from hilo_nas.bench.proxy_check.agreement import Agreement, CheckedNetwork, Estimate, ProxyAgreement, Taus, agree
from hilo_nas.bench.proxy_check.agreement_report import plot_agreement, report_proxy_check
from hilo_nas.bench.proxy_check.budget_advice import advise_budget
from hilo_nas.errors import MeasurementError
from hilo_nas.report import render_json, render_markdown, write_report

BUDGETS = ("top1@1000", "top1@4000")


def rank_correlation(first, second):
    """Kendall's tau-b of all pairs."""
    return kendalltau(first, second).statistic


def networks(count=80, *, twice=40, seed=0, **changes):
    """Networks whose quality is known: large ones are better and slower, and at one speed quality is chance.

    A short budget sees little of it, a longer one nearly all; `lucky` sees the same as params, with other noise.
    """
    random = np.random.default_rng(seed)
    size, own = random.normal(size=(2, count)).tolist()
    quality = [size[i] + 0.5 * own[i] for i in range(count)]
    noise = {name: random.normal(size=count).tolist() for name in ("1", "2", "short", "long", "params", "lucky")}
    made = []
    for i in range(count):
        top1 = [0.5 + 0.05 * (quality[i] + 0.1 * noise[name][i]) for name in ("1", "2")]
        fields = {
            "key": f"network {i}",
            "images_per_s": 1000 * math.exp(-0.5 * size[i]),
            "long": tuple(top1[: 2 if i < twice else 1]),
            "long_seconds": 200.0,
            "proxies": {
                BUDGETS[0]: 0.2 + 0.02 * (quality[i] + 1.5 * noise["short"][i]),
                BUDGETS[1]: 0.4 + 0.03 * (quality[i] + 0.15 * noise["long"][i]),
                "params": 1e6 * math.exp(size[i] + 0.02 * noise["params"][i]),
                "macs": 1e8 * math.exp(size[i]),
                "lucky": size[i] + 0.02 * noise["lucky"][i],
            },
            "seconds": {BUDGETS[0]: 2.0, BUDGETS[1]: 8.0, "params": 0.0, "macs": 0.0},
        }
        made.append(CheckedNetwork(**{**fields, **changes}))
    return made


def with_proxy(made, name, values):
    return [
        dataclasses.replace(network, proxies={**network.proxies, name: value})
        for network, value in zip(made, values, strict=True)
    ]


def of(agreement, name) -> ProxyAgreement:
    return next(proxy for proxy in agreement.proxies if proxy.name == name)


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    return agree(networks(), budgets=BUDGETS, resamples=500)


# What is found.


def test_a_proxy_that_is_the_truth_agrees_fully_and_one_that_turns_it_not_at_all():
    made = networks()
    made = with_proxy(made, "truth", [network.long[0] for network in made])
    made = with_proxy(made, "turned", [-network.long[0] for network in made])
    found = agree(made, resamples=200)
    for name, value in (("truth", 1.0), ("turned", -1.0)):
        for taus in (of(found, name).tau.overall, of(found, name).tau.like_speed):
            assert (taus.value, taus.low, taus.high) == (value, value, value)


def test_values_are_those_of_kendall_overall_and_among_pairs_of_like_speed(agreement):
    made = networks()
    params, truth = [network.proxies["params"] for network in made], [network.long[0] for network in made]
    found = of(agreement, "params").tau
    assert found.overall.value == pytest.approx(rank_correlation(params, truth))
    assert found.overall.pairs == 80 * 79 // 2
    agreeing = pairs = 0
    for i, own in enumerate(made):
        for other in made[:i]:
            speeds = sorted((own.images_per_s, other.images_per_s))
            if speeds[1] <= 1.15 * speeds[0]:
                pairs += 1
                same = (own.proxies["params"] > other.proxies["params"]) == (own.long[0] > other.long[0])
                agreeing += 1 if same else -1
    assert found.like_speed.pairs == pairs
    assert found.like_speed.value == pytest.approx(agreeing / pairs)


def test_params_that_only_tell_size_rank_overall_and_hardly_at_like_speed(agreement):
    found = of(agreement, "params").tau
    assert found.overall.low > 0.6
    assert found.like_speed.low < 0.2 < found.overall.value - found.like_speed.value


def test_speed_is_a_proxy_with_its_sign_as_measured(agreement):
    assert of(agreement, "images_per_s").tau.overall.high < -0.6


def test_a_better_proxy_gains_over_params_and_one_as_good_does_not(agreement):
    better = of(agreement, BUDGETS[1]).gains
    for baseline in ("params", "macs"):
        assert better[baseline].overall.low > 0
        assert better[baseline].like_speed.low > 0.2
    same = of(agreement, "lucky").gains["params"]
    for gain in (same.overall, same.like_speed):
        assert gain.low < 0 < gain.high
    worse = of(agreement, BUDGETS[0]).gains["params"].overall
    assert worse.high < 0


def test_a_paired_difference_is_known_better_than_two_taus_apart(agreement):
    """The draw of networks affects both alike, so their difference has a narrow interval."""
    width = of(agreement, "lucky").gains["params"].overall
    alone = of(agreement, "lucky").tau.overall
    assert width.high - width.low < 0.5 * (alone.high - alone.low)


def test_a_proxy_with_the_values_of_params_gains_exactly_nothing():
    made = networks()
    found = agree(with_proxy(made, "twin", [network.proxies["params"] for network in made]), resamples=200)
    gain = of(found, "twin").gains["params"]
    assert (gain.overall.value, gain.overall.low, gain.overall.high) == (0, 0, 0)


def test_a_baseline_has_no_gain_over_itself(agreement):
    assert list(of(agreement, "params").gains) == ["macs"]
    assert list(of(agreement, "macs").gains) == ["params"]


def test_networks_that_lack_a_proxy_are_left_out_for_it_alone_and_of_what_is_paired_with_it():
    made = networks()
    lacking = with_proxy(made[:5], "params", [math.nan] * 5)
    lacking += [dataclasses.replace(n, proxies={**n.proxies, "lucky": math.nan}) for n in made[5:10]]
    found = agree([*lacking, *made[10:]], budgets=BUDGETS, resamples=100)
    assert [of(found, name).networks for name in ("params", "lucky", "macs")] == [75, 75, 80]
    assert of(found, "params").tau.overall.pairs == 75 * 74 // 2
    assert of(found, "lucky").gains["params"].overall.pairs == 70 * 69 // 2
    both = made[10:]
    truth = [network.long[0] for network in both]
    expected = [rank_correlation([network.proxies[name] for network in both], truth) for name in ("lucky", "params")]
    assert of(found, "lucky").gains["params"].overall.value == pytest.approx(expected[0] - expected[1])


def test_the_ceiling_is_tau_between_two_seeds_of_the_networks_that_have_both(agreement):
    twice = networks()[:40]
    first, second = zip(*(network.long for network in twice), strict=True)
    assert agreement.ceiling.overall.value == pytest.approx(rank_correlation(first, second))
    assert agreement.ceiling.overall.pairs == 40 * 39 // 2
    assert 0 < agreement.ceiling.like_speed.pairs < agreement.ceiling.overall.pairs
    assert agree(networks(twice=0), resamples=10).ceiling is None


def test_the_mean_of_two_long_trainings_has_less_noise_than_the_first():
    random = np.random.default_rng(3)
    made = networks(twice=80)
    truth = [network.long[0] for network in made]
    noisy = [
        dataclasses.replace(network, long=tuple(network.long[0] + 0.05 * random.normal(size=2))) for network in made
    ]
    found = of(agree(with_proxy(noisy, "truth", truth), resamples=10), "truth")
    assert found.tau_to_mean.overall.value > found.tau.overall.value + 0.03
    assert of(agree(networks(twice=0), resamples=10), "params").tau_to_mean is None


def test_the_long_training_and_each_proxy_are_compared_with_the_targets_size():
    made = networks()
    some = [dataclasses.replace(network, target=network.proxies["macs"]) for network in made[:20]]
    found = agree([*some, *made[20:]], resamples=50)
    assert of(found, "macs").tau_to_target.overall.value == 1.0
    truth = [network.long[0] for network in some]
    expected = rank_correlation(truth, [network.proxies["macs"] for network in some])
    assert found.long_to_target.overall.value == pytest.approx(expected)
    assert found.long_to_target.overall.pairs == 20 * 19 // 2


def test_cost_is_a_share_of_a_long_training_on_the_networks_that_paid_it():
    made = networks()
    made[0] = dataclasses.replace(made[0], seconds={}, long_seconds=1e6)
    found = agree(made, budgets=BUDGETS, resamples=10)
    assert of(found, BUDGETS[1]).cost_share == pytest.approx(0.04)
    assert of(found, BUDGETS[1]).seconds == pytest.approx(8.0)
    assert of(found, "params").cost_share == 0.0
    assert math.isnan(of(found, "lucky").cost_share)


def test_the_range_of_top1_is_that_of_the_first_long_training(agreement):
    top1 = [network.long[0] for network in networks()]
    assert (agreement.top1_low, agreement.top1_high) == (min(top1), max(top1))


def test_networks_without_a_long_training_do_not_count():
    made = networks(10, twice=2)
    failed = dataclasses.replace(made[0], key="failed", long=())
    assert agree([*made, failed], resamples=50) == agree(made, resamples=50)
    with pytest.raises(MeasurementError, match=r"at least two networks .* but 1 of 2 has one"):
        agree([made[0], failed])


def test_a_likelihood_is_compared_with_the_top1_of_the_same_training():
    made = networks()
    made = with_proxy(made, "likelihood@1000", [network.long[0] for network in made])
    found = agree(made, budgets=[BUDGETS[0], "likelihood@1000", BUDGETS[1]], resamples=200)
    gains = of(found, "likelihood@1000").gains
    assert set(gains) == {"params", "macs", *BUDGETS}
    assert gains["top1@1000"].overall.value == pytest.approx(1 - of(found, "top1@1000").tau.overall.value)
    assert set(of(found, "lucky").gains) == {"params", "macs"}
    report = report_proxy_check(
        found, study="s", command="c", settings={}, measurements=[build_measurement()], failures={}, with_picture=False
    )
    (line,) = [line for line in report.headlines if line.startswith("tau of likelihood@1000 minus tau of top1@1000")]
    assert f"from the same trainings: {gains['top1@1000'].overall.value:.2f} [" in line
    assert advise_budget(found).startswith("use likelihood@1000 (--metric likelihood): ")


def test_the_seed_draws_the_resamples_and_changes_no_value():
    first, same, other = (agree(networks(), seed=seed, resamples=100) for seed in (0, 0, 1))
    assert first == same
    assert of(first, "params").tau.overall.value == of(other, "params").tau.overall.value
    assert of(first, "params").tau.overall.low != of(other, "params").tau.overall.low


# The advice.


def taus(value, half=0.1, pairs=200):
    found = Estimate(value=value, low=value - half, high=value + half, pairs=pairs)
    return Taus(overall=found, like_speed=found)


def advised(agreement, budgets, *, behind=None):
    """Returns the advice for two budgets with these taus. `behind` is the cheaper one's tau minus the other's."""
    shares = (0.01, 0.04)
    found = tuple(
        dataclasses.replace(of(agreement, name), tau=own, cost_share=share, gains={})
        for name, own, share in zip(BUDGETS, budgets, shares, strict=True)
    )
    if behind is not None:
        found = (dataclasses.replace(found[0], gains={BUDGETS[1]: behind}), found[1])
    return advise_budget(dataclasses.replace(agreement, proxies=found))


def test_the_cheapest_budget_that_is_not_worse_than_the_best_is_advised_and_the_best_one_named(agreement):
    text = advised(agreement, [taus(0.6), taus(0.7)], behind=taus(-0.1, half=0.1))
    assert text.startswith("use top1@1000: ")
    assert "0.60 [0.50, 0.70] at 1 % of a long training" in text
    assert "the cheapest" in text
    assert "the best, top1@4000 at 4 % of a long training, whose tau is 0.70 (difference -0.10 [-0.20, 0.00])" in text


def test_a_budget_that_is_surely_behind_the_best_is_not_advised(agreement):
    """The draw of networks affects both budgets alike, so their difference has a narrow interval."""
    text = advised(agreement, [taus(0.5, half=0.4), taus(0.7, half=0.4)], behind=taus(-0.2, half=0.15))
    assert text.startswith("use top1@4000: ")
    assert "the highest of all budgets; " in text


def test_the_best_budget_is_advised_where_it_is_the_cheapest(agreement):
    text = advised(agreement, [taus(0.6), taus(0.5)], behind=taus(0.1))
    assert text.startswith("use top1@1000: ")
    assert text.endswith("of a long training, the highest of all budgets")


def test_a_difference_that_is_not_known_is_no_reason_for_a_cheaper_budget(agreement):
    for behind in (None, taus(math.nan)):
        assert advised(agreement, [taus(0.6), taus(0.7)], behind=behind).startswith("use top1@4000: ")


def test_budgets_are_compared_with_each_other_in_the_same_resamples(agreement):
    short, long = of(agreement, BUDGETS[0]), of(agreement, BUDGETS[1])
    assert set(short.gains) == {"params", "macs", BUDGETS[1]}
    behind = short.gains[BUDGETS[1]].like_speed
    assert behind.value == pytest.approx(short.tau.like_speed.value - long.tau.like_speed.value)
    assert behind.high < 0
    assert advise_budget(agreement).startswith("use top1@4000: ")


def test_of_one_training_top1_is_advised_unless_the_likelihood_ranks_better(agreement):
    top1 = dataclasses.replace(of(agreement, BUDGETS[0]), cost_share=0.01, gains={"likelihood@1000": taus(-0.05)})
    other = dataclasses.replace(top1, name="likelihood@1000", tau=taus(0.65), gains={BUDGETS[0]: taus(0.05)})

    def text(**changes):
        scores = (dataclasses.replace(top1, **{"tau": taus(0.6), **changes}), other)
        return advise_budget(dataclasses.replace(agreement, proxies=scores))

    assert text().startswith("use top1@1000: ")
    assert "the best, likelihood@1000 at 1 % of a long training, whose tau is 0.65" in text()
    for behind in (
        {"gains": {"likelihood@1000": taus(-0.2)}},
        {"tau": taus(0.05)},
    ):  # the second: no better than chance
        assert text(**behind).startswith("use likelihood@1000 (--metric likelihood): ")


def test_with_few_pairs_of_like_speed_nothing_is_said(agreement):
    text = advised(agreement, [taus(0.6, pairs=29), taus(0.7, pairs=20)])
    assert text.startswith("no budget can be recommended")
    assert "at least 30 pairs" in text
    assert "there were 29" in text
    assert advised(agreement, [taus(0.6, pairs=30), taus(0.7, pairs=20)]).startswith("use top1@1000")


def test_a_budget_no_better_than_chance_is_not_advised(agreement):
    text = advised(agreement, [taus(0.1, half=0.8), taus(0.6)], behind=taus(-0.5, half=0.9))
    assert text.startswith("use top1@4000: ")
    assert "chance" in advised(agreement, [taus(0.1, half=0.8), taus(-0.5)])


@pytest.mark.parametrize(
    ("over_macs", "said"),
    [
        (taus(0.2), ["better than macs", "(tau 0.55; difference 0.20 [0.10, 0.30])"]),
        (taus(-0.2), ["worse than macs", "(tau 0.55; difference -0.20 [-0.30, -0.10])"]),
        (taus(0.05), ["not differ significantly from macs", "(tau 0.55; difference 0.05 [-0.05, 0.15])"]),
    ],
)
def test_the_advice_compares_the_budget_with_the_count_that_ranks_better(agreement, over_macs, said):
    budget = dataclasses.replace(
        of(agreement, BUDGETS[0]), tau=taus(0.7), cost_share=0.1, gains={"params": taus(0.3), "macs": over_macs}
    )
    counts = [
        dataclasses.replace(of(agreement, name), tau=taus(value)) for name, value in (("params", 0.4), ("macs", 0.55))
    ]
    text = advise_budget(dataclasses.replace(agreement, proxies=(budget, *counts)))
    before, _, comparison = text.rpartition(". top1@1000 ")
    assert before.endswith("at 10 % of a long training, the highest of all budgets")
    assert all(part in comparison for part in said)


def test_without_budgets_there_is_no_advice():
    assert advise_budget(agree(networks(), resamples=10)).startswith("no budget can be recommended")


# The report.


@pytest.fixture
def report(agreement):
    return report_proxy_check(
        agreement,
        study="mine",
        command="hilo-nas proxy check litv2_digits",
        settings={"networks": 80},
        measurements=[build_measurement()],
        failures={"network 99": "it does not fit"},
        with_picture=True,
    )


def test_the_report_tells_range_ceiling_advice_and_how_to_make_it_again(agreement, report):
    text = render_markdown(report)
    assert "80 networks; top-1 of the long training from " in text
    assert f"{agreement.ceiling.overall.value:.2f} [" in text
    assert advise_budget(agreement) in text
    assert "* network 99: it does not fit" in text
    assert text.rstrip().endswith("```console\nhilo-nas proxy check litv2_digits\n```")
    assert f"({report.stem}.svg)" in text
    assert "nan" not in text


def test_its_files_hold_a_row_per_proxy_and_a_row_per_network(agreement, report, tmp_path):
    written = write_report(report, tmp_path)
    stem = "proxy-check-cpu-mine-fp32-b32-pt2.9-2026-07"
    ends = (".csv", "-gains.csv", "-networks.csv", ".svg", ".md")
    assert [path.name for path in written] == [stem + end for end in ends]
    proxies, gains, rows = (list(csv.DictReader(path.read_text().splitlines())) for path in written[:3])
    assert [row["proxy"] for row in proxies] == [
        "long training, another seed",
        *BUDGETS,
        "params",
        "macs",
        "lucky",
        "images_per_s",
    ]
    found = of(agreement, BUDGETS[1])
    assert float(proxies[2]["tau_like_speed_low"]) == pytest.approx(found.tau.like_speed.low)
    assert float(proxies[2]["cost_share"]) == pytest.approx(0.04)
    assert float(gains[1]["over_params_like_speed"]) == pytest.approx(found.gains["params"].like_speed.value)
    assert len(rows) == 80
    assert float(rows[3][BUDGETS[0]]) == pytest.approx(networks()[3].proxies[BUDGETS[0]])
    assert (rows[39]["long_top1_2"] != "", rows[40]["long_top1_2"]) == (True, "")
    assert written[3].read_text() == report.picture


def test_a_report_without_a_picture_writes_none(report, tmp_path):
    plain = dataclasses.replace(report, picture="")
    assert ".svg" not in render_markdown(plain)
    assert not [path for path in write_report(plain, tmp_path) if path.suffix == ".svg"]


def test_a_report_without_a_ceiling_or_costs_has_dashes_in_their_place():
    found = agree(networks(8, twice=0, seconds={}), resamples=20)
    report = report_proxy_check(
        found, study="s", command="c", settings={}, measurements=[build_measurement()], failures={}, with_picture=False
    )
    text = render_markdown(report)
    assert "the noise ceiling is unknown" in text
    assert "| long training, another seed | 0 | - | - | - |" in text
    assert "no budget can be recommended" in text
    assert "nan" not in text
    assert "NaN" not in render_json([report])


def test_the_picture_names_each_proxy_and_both_panels(agreement):
    picture = plot_agreement(agreement)
    for part in ("params", "lucky", "images_per_s", "noise ceiling, all pairs", "top-1 of the proxy, %", *BUDGETS):
        assert part in picture

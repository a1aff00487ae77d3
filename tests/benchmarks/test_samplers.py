"""Searches replayed on a table: what an evaluator of looked-up values gives, what is counted, and what is found."""

import csv
import dataclasses
import inspect
import math

import pytest
from replay_tables import build_table, cut_short

from benchmarks.samplers.__main__ import main, run
from benchmarks.samplers.replay import (
    EXTRAPOLATED,
    FULL,
    ORACLE,
    PRUNED,
    SamplersPlan,
    TableEvaluator,
    Truth,
    replay_search,
    run_samplers,
)
from benchmarks.samplers.samplers_report import report_samplers, summarize
from benchmarks.tables.table import TABLE_NAME, load_table, write_table
from hilo_nas.errors import NotFoundError, RecordError, UsageError
from hilo_nas.evaluation import run_task
from hilo_nas.report import render_csv, render_markdown
from hilo_nas.searching.configuration.resolve import DEFAULT_REDUCTION_FACTOR, reduction_factor_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

FULL_IMAGES = 2304


def replay(table=None, **fields):
    table = table or build_table()
    values = {"sampler": "random", "rungs": FULL, "seed": 0, "trials": 8}
    return replay_search(table, Truth(table), **{**values, **fields})


def store(folder, table):
    folder.mkdir(parents=True)
    StoredStudy(folder).write_manifest(table.manifest)
    write_table(table, folder / TABLE_NAME)
    return folder


# The table's file.


def test_a_table_comes_back_from_its_file_to_the_last_digit(tmp_path):
    table = build_table()
    folder = store(tmp_path / "table", table)
    assert load_table(folder) == table
    assert load_table(folder / TABLE_NAME) == table
    assert load_table(store(tmp_path / "cut", cut_short(table))) == cut_short(table)


def test_a_file_whose_networks_are_others_is_refused(tmp_path):
    folder = store(tmp_path / "table", build_table())
    path = folder / TABLE_NAME
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, second.replace(",", ",9", 1), *rest]))
    with pytest.raises(RecordError, match=r"table\.csv is not a table of small"):
        load_table(folder)
    path.write_text("\n".join([first, "0" * 12 + second[12:], *rest]))
    with pytest.raises(RecordError, match="for a network's parameters, but got '000000000000'"):
        load_table(folder)
    path.write_text("key,top1\n1,2\n")
    with pytest.raises(RecordError, match=r"table\.csv is not a table of small"):
        load_table(folder)
    with pytest.raises(NotFoundError, match=r"manifest\.yaml"):
        load_table(tmp_path / "nowhere" / "table.csv")


def test_a_table_that_is_still_being_made_is_refused():
    with pytest.raises(UsageError, match=r"but 1 of the 24 networks of small .* in small-table"):
        run_samplers(cut_short(build_table()), SamplersPlan(), lambda event: None)


# What a replay sees and counts.


def test_the_evaluator_gives_what_the_table_says():
    table = build_table()
    row = table.rows[5]
    subject = Subject(arch=table.space.decode(row.params))
    machine = TableEvaluator(table)
    tasks = StudyTasks.of(table.manifest, Resources(data="table"))
    task = tasks.time([subject], table.manifest.objective)
    measurement = run_task(machine, task, print).measurements[row.key]
    assert measurement.images_per_s == row.images_per_s
    assert measurement.images_per_s_low == row.images_per_s_low
    assert table.manifest.is_comparable(measurement)
    for images in table.budgets:
        score = run_task(machine, tasks.score(subject, 3, until=images), print).score
        assert (score.value, score.standard_error) == (row.scores[images].top1, row.scores[images].top1_se)
        assert (score.images_seen, score.seed, score.plan_hash) == (images, 3, table.manifest.plan_hash)
        assert (machine.images, machine.seconds) == (images, pytest.approx(row.scores[images].seconds))
    assert machine.timing_seconds == row.timing_seconds


def test_an_oracle_evaluator_returns_the_final_score_at_the_cost_of_a_rung():
    table = build_table()
    row = table.rows[5]
    tasks, subject = (
        StudyTasks.of(table.manifest, Resources(data="table")),
        Subject(arch=table.space.decode(row.params)),
    )
    plain, foreseeing = TableEvaluator(table), TableEvaluator(table, is_oracle=True)
    for images in table.budgets:
        scores = [
            run_task(machine, tasks.score(subject, 3, until=images), print).score for machine in (plain, foreseeing)
        ]
        assert (scores[1].images_seen, scores[1].seconds) == (scores[0].images_seen, scores[0].seconds)
        assert scores[1].value == row.scores[FULL_IMAGES].top1
    assert (plain.images, plain.seconds) == (foreseeing.images, foreseeing.seconds)


def test_where_rungs_foresee_their_own_scores_do_not_matter():
    table = build_table()
    reversed_rows = [
        dataclasses.replace(
            row,
            scores={
                images: dataclasses.replace(score, top1=score.top1 if images == FULL_IMAGES else 1 - score.top1)
                for images, score in row.scores.items()
            },
        )
        for row in table.rows
    ]
    misleading = dataclasses.replace(table, rows=tuple(reversed_rows))
    found = {
        (rungs, name): [(step.key, step.state) for step in replay(of, rungs=rungs, trials=12).steps]
        for rungs in (EXTRAPOLATED, ORACLE)
        for name, of in (("table", table), ("misleading", misleading))
    }
    assert found[ORACLE, "table"] == found[ORACLE, "misleading"]
    assert found[EXTRAPOLATED, "table"] != found[EXTRAPOLATED, "misleading"]
    assert {state for _, state in found[ORACLE, "table"]} == {"complete", "stopped"}


def test_a_stopped_network_costs_what_it_was_trained_and_is_not_found():
    table = build_table()
    found = replay(rungs=EXTRAPOLATED)
    before = dataclasses.replace(found.steps[0], images=0, seconds=0.0, timing_seconds=0.0, share=0.0)
    seen = set()
    for step in found.steps:
        spent = step.images - before.images
        assert spent == FULL_IMAGES if step.state == "complete" else spent in table.budgets[:-1]
        score = table.by_key[step.key].scores[spent]
        timing = step.timing_seconds - before.timing_seconds
        assert step.seconds - before.seconds == pytest.approx(score.seconds + timing)
        assert step.share == before.share or step.state == "complete"
        assert step.key not in seen
        seen.add(step.key)
        before = step
    assert {step.state for step in found.steps} == {"complete", "stopped"}


def test_a_replay_without_rungs_trains_so_many_networks_and_one_with_rungs_spends_as_much():
    assert [step.evaluations for step in replay().steps] == list(range(1, 9))
    assert replay().steps[-1].images == 8 * FULL_IMAGES
    steps = replay(rungs=EXTRAPOLATED).steps
    assert len(steps) > 8
    assert steps[-1].images >= 8 * FULL_IMAGES > steps[-2].images


def test_the_whole_table_is_a_share_of_one_and_nothing_is_none():
    table = build_table()
    truth = Truth(table)
    assert truth.share_of(table.by_key) == 1
    assert truth.share_of([]) == 0
    assert 0 < truth.total < 1
    speeds = {row.key: math.log(row.images_per_s) for row in table.rows}
    tops = {row.key: row.scores[FULL_IMAGES].top1 for row in table.rows}
    key = sorted(speeds, key=speeds.get)[12]

    def unit(values):
        return (values[key] - min(values.values())) / (max(values.values()) - min(values.values()))

    assert truth.share_of([key]) == pytest.approx(unit(speeds) * unit(tops) / truth.total)


def test_a_table_without_any_difference_has_nothing_to_find():
    table = build_table()
    alike = tuple(dataclasses.replace(row, images_per_s=100.0) for row in table.rows)
    with pytest.raises(UsageError, match="must differ in both speed and top-1"):
        Truth(dataclasses.replace(table, rows=alike))


def test_random_search_finds_everything_once_it_has_tried_everything():
    steps = replay(trials=24).steps
    assert len({step.key for step in steps}) == 24
    assert steps[-1].share == 1
    shares = [step.share for step in steps]
    assert shares == sorted(shares)


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
@pytest.mark.parametrize("rungs", [FULL, EXTRAPOLATED, PRUNED, ORACLE])
def test_a_seed_gives_the_same_search_again(sampler, rungs):
    first, second = (replay(sampler=sampler, rungs=rungs, seed=1, trials=6) for _ in range(2))
    assert first.steps == second.steps
    assert first.steps != replay(sampler=sampler, rungs=rungs, seed=2, trials=6).steps


def test_the_model_is_asked_after_ten_networks_and_answers_alike_each_time():
    first, second = (replay(sampler="gp", trials=12).steps for _ in range(2))
    assert first == second
    assert len({step.key for step in first}) == 12


def test_the_command_replays_what_a_search_does_by_default():
    options = {name: option.default for name, option in inspect.signature(run).parameters.items()}
    plan = SamplersPlan()
    assert (options["seeds"], options["trials_share"]) == (plan.seeds, plan.trials_share)
    assert options["reduction_factor"] == plan.reduction_factor == reduction_factor_of(SearchConfig.of())


@pytest.mark.parametrize("rungs", [EXTRAPOLATED, PRUNED])
def test_a_replay_is_the_search_that_a_folder_would_keep(tmp_path, rungs):
    table = build_table()
    replayed = replay(sampler="tpe", rungs=rungs, seed=4, trials=8).steps
    assert len(replayed) > 10  # beyond those, the model proposes
    machine, folder = TableEvaluator(table), StoredStudy(tmp_path / "kept")
    folder.trials_path.mkdir(parents=True)
    manifest = dataclasses.replace(
        table.manifest, sampler="tpe", seed=4, trials=len(replayed), reduction_factor=DEFAULT_REDUCTION_FACTOR
    )
    folder.write_manifest(manifest)
    loop = SearchLoop(folder, manifest, machine, Resources(data="table"), lambda event: None, prune=rungs == PRUNED)
    loop.run()
    assert [(record.key, record.state) for record in loop.records] == [(step.key, step.state) for step in replayed]
    assert machine.images == replayed[-1].images
    assert machine.seconds + machine.timing_seconds == replayed[-1].seconds


# All searches, and the report.


def test_results_so_far_are_passed_on_after_each_search():
    kept = []
    plan = SamplersPlan(samplers=("random", "tpe"), seeds=2, trials_share=0.2)
    found = run_samplers(build_table(), plan, lambda event: None, keep=lambda so_far: kept.append(list(so_far)))
    assert [len(so_far) for so_far in kept] == [2, 4, 6, 8, 10, 12, 14]
    assert kept[-1] == found
    assert [(item.sampler, item.rungs) for item in found[::2]] == plan.list_cells()
    assert plan.trials_of(build_table()) == 5


@pytest.mark.slow
def test_a_process_each_gives_the_same():
    plan = SamplersPlan(samplers=("random",), seeds=2, trials_share=0.2)
    alone = run_samplers(build_table(), plan, lambda event: None)
    both = run_samplers(build_table(), dataclasses.replace(plan, jobs=2), lambda event: None)
    assert [item.steps for item in alone] == [item.steps for item in both]


def test_the_report_says_what_rungs_save_and_what_they_find_for_the_same_money():
    table, plan = build_table(), SamplersPlan(samplers=("random", "tpe"), seeds=3, trials_share=0.3)
    replays = run_samplers(table, plan, lambda event: None)
    full, rungs, *_ = summarize(table, plan, replays)
    assert (full["seconds"], full["images"], full["complete"]) == (1, 1, 7)
    assert full["gain_at_cost"] == 0
    assert full["same_images"] <= 1
    assert rungs["images"] < 1
    assert rungs["complete"] < 7
    expected = pytest.approx(sum(r.steps[-1].share for r in replays[:3]) / 3)
    assert (rungs["target"], full["share_1"]) == (expected, expected)
    assert full["share_1_low"] <= full["share_1"] <= full["share_1_high"]
    report = report_samplers(table, plan, replays, "python -m benchmarks.samplers small-table")
    assert report.stem == "samplers-cpu-small-table-pt2.9-2026-07"
    text = render_markdown(report)
    assert "tpe with rungs needs" in text
    assert "tpe would need" in text
    assert "tpe: it is better to report stopped networks as" in text
    assert "python -m benchmarks.samplers small-table" in text
    steps = list(csv.DictReader(render_csv(report.tables[-1]).splitlines()))
    assert len(steps) == sum(len(item.steps) for item in replays)


def test_one_seed_has_no_interval():
    table, plan = build_table(), SamplersPlan(samplers=("random",), seeds=1, trials_share=0.2)
    report = report_samplers(table, plan, run_samplers(table, plan, lambda event: None), "again")
    assert "nan" not in render_markdown(report).lower()


def test_all_faults_of_a_plan_are_reported_at_once():
    with pytest.raises(UsageError) as caught:
        SamplersPlan(samplers=("gp", "cmaes"), seeds=0, trials_share=2, reduction_factor=1)
    assert str(caught.value).splitlines() == [
        "a sampler must be one of hilo, gp, tpe, nsga2, random, but got 'cmaes'",
        "seeds must be at least 1, but got 0",
        "trials_share must be above 0 and at most 1, but got 2",
        "reduction_factor must be a number above 1, but got 1",
    ]
    with pytest.raises(UsageError, match="samplers must be named, each once, but got gp, gp"):
        SamplersPlan(samplers=("gp", "gp"))


def test_the_command_line_replays_a_stored_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = store(tmp_path / "tables" / "small-table", build_table())
    options = "--seeds 2 --sampler random --sampler tpe --trials-share 0.2"
    arguments = [str(folder), *options.split()]
    assert main([*arguments, "--jobs", "1", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "without rungs," in said.out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    stem = "samplers-cpu-small-table-pt2.9-2026-07"
    assert written == [f"{stem}-cost.csv", f"{stem}-curves.csv", f"{stem}.csv", f"{stem}.md"]
    assert main([*arguments, "--reduction-factor", "0.5"]) == 2
    assert main(["nowhere"]) == 2


# Models and seeds.


def test_models_of_hilo_are_compared_with_the_table_at_three_numbers_of_trainings():
    table = build_table()
    truth = Truth(table)
    replay = replay_search(table, truth, sampler="hilo", rungs=FULL, seed=0, trials=12)
    assert [check.trained for check in replay.models] == [3, 6, 12]
    for check in replay.models:
        assert check.timed >= check.trained
        assert 0 <= check.value_held_80 <= check.value_held_95 <= 1
        assert check.timed == 24 or 0 <= check.speed_held_80 <= check.speed_held_95 <= 1
    assert replay.models[-1].tau > 0.7
    assert replay_search(table, truth, sampler="random", rungs=FULL, seed=0, trials=12).models == ()


def test_with_known_speeds_nothing_is_timed():
    table = build_table()
    truth = Truth(table)
    replay = replay_search(table, truth, sampler="hilo", rungs=FULL, seed=0, trials=6, speeds=True)
    assert len(replay.steps) == 6
    assert {step.timing_seconds for step in replay.steps} == {0.0}


def test_trainings_with_further_seeds_judge_what_a_search_finds():
    table = build_table()
    full = table.budgets[-1]
    rows = [dataclasses.replace(row, other_top1={1: 1 - row.scores[full].top1}) for row in table.rows]
    judged = dataclasses.replace(table, rows=tuple(rows))
    worst = min(table.rows, key=lambda row: row.scores[full].top1)
    assert Truth(judged).share_of([worst.key]) > Truth(table).share_of([worst.key])
    seen, blind = (
        replay_search(own, Truth(own), sampler="hilo", rungs=FULL, seed=0, trials=6) for own in (table, judged)
    )
    assert [step.key for step in seen.steps] == [step.key for step in blind.steps]

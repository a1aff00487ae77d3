"""The table that is stored with the project can be replayed on, as it is."""

from benchmarks.command import RESULTS
from benchmarks.samplers.replay import FULL, Truth, replay_search
from benchmarks.tables.table import load_table
from hilo_nas.space import list_networks

TABLE = RESULTS / "cifar10-tabular"


def test_the_stored_table_holds_every_network_of_its_space_with_all_its_scores():
    table = load_table(TABLE)
    table.check_complete()
    assert len(table.rows) >= 300
    assert set(table.by_key) == {arch.key() for arch, _ in list_networks(table.space, img_size=32, num_classes=10)}
    assert all(0.1 < row.scores[table.budgets[-1]].top1 < 1 for row in table.rows)
    cost = [sum(score.seconds for score in row.scores.values()) for row in table.rows]
    assert min(cost) > 0


def test_a_search_can_be_replayed_on_the_stored_table():
    table = load_table(TABLE)
    replay = replay_search(table, Truth(table), sampler="random", rungs=FULL, seed=0, trials=6, reduction_factor=3.0)
    assert len(replay.steps) == 6
    assert 0 < replay.steps[-1].share < 1

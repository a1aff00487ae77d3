"""A table of 24 networks that was never measured: speed falls with multiply-adds, top-1 rises with parameters."""

import dataclasses
import functools
import math

from builders import build_manifest, build_plan

from benchmarks.tables.table import Table, TableRow, TableScore
from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.space import list_networks
from hilo_nas.space.space_file import build_space

SPACE = build_space(
    "small",
    {
        "patch_size": [4],
        "embed_dims": [8, 12, 16],
        "depths": [[1], [1, 2], [1, 2], [1]],
        "head_dim": [8],
        "attention": [["none"], ["hilo"], ["hilo"], ["none"]],
        "alpha": [0.5],
        "window_size": [[1], [2], [1], [1]],
        "mlp_ratios": [2, 4],
    },
)
PLAN = build_plan(images=2304, rungs=(256, 768))


@functools.cache
def build_table():
    """A pure function of the architectures; every figure has digits enough to be lost by a careless file."""
    manifest = build_manifest("small-table", space=SPACE, plan=PLAN, sampler="all", trials=24, reduction_factor=None)
    rows = []
    for arch, params in list_networks(SPACE, img_size=32, num_classes=10):
        parameters, macs = count_params(arch, num_classes=10), count_macs(arch, 32, num_classes=10)
        speed, top1 = 1e10 / (1e6 + macs), 0.6 - 0.4 * math.exp(-parameters / 3e5)
        scores = {
            images: TableScore(top1=top1 * (images / 2304) ** 0.2, top1_se=top1 / 70, seconds=macs * images / 3e8 / 7)
            for images in PLAN.budgets
        }
        rows.append(
            TableRow(
                key=arch.key(),
                params=params,
                parameters=parameters,
                macs=macs,
                images_per_s=speed,
                images_per_s_spread=speed / 50,
                images_per_s_low=speed * 0.97,
                images_per_s_high=None if len(rows) == 3 else speed * 1.03,
                verdict="steady",
                timing_seconds=1.5,
                scores=scores,
            )
        )
    return Table(manifest=manifest, rows=tuple(rows))


def cut_short(table):
    """The same table while its last network's training is under way."""
    last = table.rows[-1]
    last = dataclasses.replace(last, scores={256: last.scores[256]})
    return dataclasses.replace(table, rows=(*table.rows[:-1], last))

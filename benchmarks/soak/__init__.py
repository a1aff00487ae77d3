"""Soak test: a real search that is killed, stopped, starved of disk space and damaged at random, and then audited.

`python -m benchmarks.soak` runs it. The parts:

* `watched_search`: the search in its own process, with its records
* `disturbances`, `damage`, `ray_disturbances`: one class per kind of disturbance
* `ray_nodes`: a Ray cluster on this machine, for `--cluster`
* `audit`: replay of the decisions of the search from its records and its event log
* `soak_run`: the run, the invariants and the report
* `facts`, `process_tree`: parts that `benchmarks.kills` shares

To test another evaluator, pass its settings as arguments of `Soak`, and add a class with `name` and `strike` to the
disturbances.
"""

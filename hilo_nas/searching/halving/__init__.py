"""Successive halving: rungs, trainings from rung to rung, checkpoints, larger budgets."""

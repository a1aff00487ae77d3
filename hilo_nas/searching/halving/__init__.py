"""Successive halving: rungs, training from rung to rung, checkpoint retention and larger budgets."""

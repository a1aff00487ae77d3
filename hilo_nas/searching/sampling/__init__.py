"""Proposals: Optuna's samplers and the in-memory Optuna study."""

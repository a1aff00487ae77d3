"""Sweeps: a given list of networks, all timed and all trained."""

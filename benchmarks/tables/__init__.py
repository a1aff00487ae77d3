"""Benchmark tables: all networks of a small space, timed and trained."""

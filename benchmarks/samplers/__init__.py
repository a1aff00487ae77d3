"""Searches replayed on a benchmark table."""

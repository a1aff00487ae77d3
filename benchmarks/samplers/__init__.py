"""Searches replayed on a stored table."""

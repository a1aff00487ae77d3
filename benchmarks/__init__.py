"""Benchmarks behind the claims of this project; run them as `python -m benchmarks.NAME` in the repository."""

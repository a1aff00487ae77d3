"""Benchmarks behind the claims of this project. Run them with `python -m benchmarks.NAME` in the repository."""

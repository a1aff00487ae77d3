"""Finalists: additional seeds and timings for networks on and near the front."""

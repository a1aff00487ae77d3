"""Reproducible speed benchmarks: timing resolution, attention layers, backbones, network parts and proxies."""

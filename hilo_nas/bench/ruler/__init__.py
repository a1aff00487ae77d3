"""Timing resolution of this machine: repeated timings of the same networks, quiet and under load."""

"""Candidates of the front: further seeds and further timings."""

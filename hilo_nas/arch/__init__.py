"""Architectures: the configuration of a LITv2, its kinds of attention, and its parameters and MACs by formula."""

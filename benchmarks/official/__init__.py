"""LITv2 of this package compared with the official code."""

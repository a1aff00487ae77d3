"""LITv2 of hilo-nas compared with the official code."""

"""HiLo compared with other attention layers, layer by layer."""

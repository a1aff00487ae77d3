"""LITv2 compared with other backbones: as built, and in the fastest form on the device."""

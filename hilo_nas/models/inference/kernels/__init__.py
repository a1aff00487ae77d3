"""Programs in Triton's language; they import triton, so they are imported where one is launched, and nowhere else."""

"""Time per part of a training step."""

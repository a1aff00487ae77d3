"""Tasks of a study for an evaluator, and how a trial ended in words."""

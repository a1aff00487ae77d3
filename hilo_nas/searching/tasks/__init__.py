"""Tasks that a study submits to an evaluator, and texts for the outcomes of trials."""

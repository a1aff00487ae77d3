"""Models of speed and value learnt from the records, with uncertainty."""

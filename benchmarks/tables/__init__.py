"""Tables: every network of a small space, timed and trained."""

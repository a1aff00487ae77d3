"""Numbers, durations, plurals and commands as text."""

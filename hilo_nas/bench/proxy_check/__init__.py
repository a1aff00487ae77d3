"""Agreement of cheap proxies with long trainings."""

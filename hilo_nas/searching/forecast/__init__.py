"""Estimates before a search: its duration, and the share of networks within the limits."""

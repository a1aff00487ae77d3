"""Speeds of this release compared with earlier releases."""

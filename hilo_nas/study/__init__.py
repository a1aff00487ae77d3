"""Storage of a search: trial records and their states, the manifest, the front, and their files."""

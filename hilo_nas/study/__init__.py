"""What is stored of a search: records, their states, the manifest, the front, and their files."""

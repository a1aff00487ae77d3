"""Settings of a search: types, checks, files, and their meaning for a study."""

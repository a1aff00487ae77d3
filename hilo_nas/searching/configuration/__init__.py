"""Configuration of a search: typed settings, checks, files, and their meaning for a study."""

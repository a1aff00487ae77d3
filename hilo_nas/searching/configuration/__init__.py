"""Configuration of a search: typed settings, their checks, their files, and the parts of a study that they define."""

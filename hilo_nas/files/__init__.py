"""Files of others, read safely and with bounds."""

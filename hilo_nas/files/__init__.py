"""Safe reading of untrusted files, with limits on size and nesting."""

"""Claims about speed that anyone can make again: what a machine resolves, layers, backbones, other code, releases."""

"""Architectures: what a LITv2 is, which attentions its stages may have, and its size by formula."""

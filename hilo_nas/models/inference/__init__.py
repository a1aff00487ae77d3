"""LITv2 as it runs when nothing is learned any more: the same mathematics, arranged for speed."""

"""Time per part of a network, compared with the device's rates of matrix products and memory copies."""

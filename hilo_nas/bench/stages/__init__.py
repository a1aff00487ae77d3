"""Time per part of a network, compared with the fastest products on the device."""

"""Triton kernels. Import these modules only to launch a kernel, because they import triton."""

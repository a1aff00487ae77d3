"""HiLo compared with other single attention layers."""

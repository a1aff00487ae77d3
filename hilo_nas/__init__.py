"""hilo-nas: architecture search for LITv2 vision backbones, driven by measured throughput."""

__version__ = "0.1.0"

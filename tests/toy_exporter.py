"""A toy format: one text file that names the network."""

from hilo_nas.errors import ConversionError
from hilo_nas.export import NetworkSource


class ToyExporter:
    name = "toy"
    source_type = NetworkSource
    files = ("toy.txt",)
    options = frozenset()
    can_replace = True

    def check(self, source, options):
        pass

    def write(self, source, folder, options):
        (folder / self.files[0]).write_text(source.arch.key())
        return []

    def verify(self, source, folder):
        found = (folder / self.files[0]).read_text()
        if found != source.arch.key():
            raise ConversionError(f"toy.txt must be {source.arch.key()}, but is {found!r}")
        return f"verified: it says {found}"

    def next_step(self, source, files):
        return f"Read it: cat {files[0]}"

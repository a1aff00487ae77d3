"""Damage to the files of a study and of the image cache while no search is running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from benchmarks.soak.facts import collect_facts
from hilo_nas.study.stored_study import StoredStudy

if TYPE_CHECKING:
    from benchmarks.soak.soak_run import Soak

__all__ = ["DamageCache", "DamageStudy", "read_files", "tear"]

_LOG = "events.jsonl"


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns the contents of the files in a study, without its lock and its folder of damaged files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.relative_to(folder).parts[0] != "damaged"
    }


def tear(path: Path, random: Random, *, start: int = 0, end: int | None = None) -> None:
    """Cuts off the end of a file at a random byte between `start` and `end`, or overwrites some bytes there by zeros.

    Args:
        path: The file.
        random: Generator of the place and the kind of the damage.
        start: First byte that may be damaged.
        end: End of the places. By default, at least two bytes of the file are damaged.
    """
    content = path.read_bytes()
    at = random.randrange(start, max(len(content) - 1 if end is None else end, start + 1))
    if random.random() < 0.5:
        path.write_bytes(content[:at])
    else:
        path.write_bytes(content[:at] + bytes(min(20, len(content) - at)) + content[at + 20 :])


def _must_stay(file: str, damaged: str) -> bool:
    """Returns True for files that a repair must leave. A kill can tear the log and leave temporary files behind."""
    return file not in (damaged, f"logs/{_LOG}") and not file.endswith(".tmp")


def _whole_lines(log: bytes | None) -> set[bytes]:
    return {line for line in (log or b"").splitlines() if line.startswith(b"{") and line.endswith(b"}")}


class DamageStudy:
    """A torn record, manifest or event log, or a lost manifest, after a kill of the search. `hilo-nas repair` follows.

    The repair must name the file, keep its damaged content, and leave every other file as it is.
    """

    name = "damaged file and repair"

    def strike(self, soak: Soak) -> bool:
        """Kills the search, damages one file and repairs the study."""
        if not any(record.measurements for record in soak.seen_records):
            return False
        soak.search.end(signal.SIGKILL)
        soak.look(is_stopped=True)
        study = soak.open_study()
        records = [
            study.trials_path / f"{record.number:04d}.json" for record in soak.seen_records if record.measurements
        ]
        damages: list[Callable[[Soak, StoredStudy, list[Path]], Path]] = [
            self._tear_record,
            self._tear_manifest,
            self._lose_manifest,
            self._tear_log,
        ]
        before = read_files(study.path)
        file = soak.random.choice(damages)(soak, study, records)
        name = str(file.relative_to(study.path))
        torn = file.read_bytes() if file.exists() else None
        if torn == before[name]:
            return False
        self._repair(soak, study, name, torn, before)
        repaired = soak.open_study()
        if file.parent == study.trials_path:
            soak.give_up(collect_facts([r for r in soak.seen_records if r.number == int(file.stem)]))
            soak.audit.forget(repaired, int(file.stem))
        soak.audit.skip_log(study.logs_path / _LOG)  # a repair also takes out lines that kills tore
        return True

    def _repair(self, soak: Soak, study: StoredStudy, name: str, torn: bytes | None, before: dict[str, bytes]) -> None:
        done = soak.search.command("repair")
        if done.returncode != 0 or name not in done.stdout:
            soak.fault(f"repair of {name} ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
        after = read_files(study.path)
        if changed := [other for other in before if _must_stay(other, name) and after.get(other) != before[other]]:
            soak.fault(f"the repair of {name} changed {changed}")
        log = f"logs/{_LOG}"
        if name != log and not _whole_lines(before.get(log)) <= _whole_lines(after.get(log)):
            soak.fault(f"the repair of {name} lost events")
        kept = [path.read_bytes() for path in (study.path / "damaged").glob(f"*/{name}")]
        if torn is not None and torn not in kept:
            soak.fault(f"the repair of {name} did not keep the damaged file")
        if name == "manifest.yaml" and after.get(name) != before[name]:
            soak.fault("the repair did not restore the manifest as it was")

    def _tear_record(self, soak: Soak, study: StoredStudy, records: list[Path]) -> Path:
        path = soak.random.choice(records)
        tear(path, soak.random, start=path.read_bytes().index(b'"measurements"'))  # the network stays known
        soak.count("torn records")
        return path

    def _tear_manifest(self, soak: Soak, study: StoredStudy, records: list[Path]) -> Path:
        # Without its last lines, a manifest can be a valid one.
        tear(study.manifest_path, soak.random, end=study.manifest_path.stat().st_size // 2)
        soak.count("torn manifests")
        return study.manifest_path

    def _lose_manifest(self, soak: Soak, study: StoredStudy, records: list[Path]) -> Path:
        study.manifest_path.unlink()
        soak.count("lost manifests")
        return study.manifest_path

    def _tear_log(self, soak: Soak, study: StoredStudy, records: list[Path]) -> Path:
        path = study.logs_path / _LOG
        lines = path.read_bytes().splitlines(keepends=True)
        place = soak.random.randrange(len(lines))
        lines[place] = lines[place][: len(lines[place]) // 2] + b"\n"
        path.write_bytes(b"".join(lines))
        soak.count("torn event logs")
        return path


class DamageCache:
    """A torn file of the image cache, after Ctrl-C. The next search reads the images again."""

    name = "damaged image cache"

    def strike(self, soak: Soak) -> bool:
        """Interrupts the search and damages one file of its image set."""
        if not list((soak.cache / "data" / "sets").glob("*/*")):
            return False
        soak.search.end(signal.SIGINT)
        files = [path for path in sorted((soak.cache / "data" / "sets").glob("*/*")) if path.stat().st_size > 1]
        path = soak.random.choice(files)
        os.chmod(path, 0o644)
        tear(path, soak.random)
        return True

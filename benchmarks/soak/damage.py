"""Damage to the files of a study and of the image cache while no search is running."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from benchmarks.soak.disturbances import interrupt, kill
from benchmarks.soak.facts import Fact, collect_facts
from benchmarks.soak.watched_search import WORK_S
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy

if TYPE_CHECKING:
    from benchmarks.soak.soak_run import Soak

__all__ = ["DamageCache", "DamageStudy", "collect_facts_before", "read_files", "tear"]

_LOG = "events.jsonl"


_DAMAGED = "damaged"
"""Folder of a study to which a repair moves damaged files."""


def read_files(folder: Path, *, with_damaged: bool = False) -> dict[str, bytes]:
    """Returns the contents of the files in a study, without its lock, by their names.

    Args:
        folder: Folder of the study.
        with_damaged: True to include the files that repairs have moved to `damaged/`.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and (with_damaged or path.relative_to(folder).parts[0] != _DAMAGED)
    }


def tear(path: Path, random: Random, *, start: int = 0, end: int | None = None) -> None:
    """Cuts off the end of a file at a random byte between `start` and `end`, or overwrites some bytes there by zeros.

    The content always changes: where it has zeros already, another place is chosen.

    Args:
        path: The file.
        random: Generator of the place and the kind of the damage.
        start: First byte that may be damaged.
        end: End of the places. By default, at least two bytes of the file are damaged.
    """
    content = path.read_bytes()
    torn = content
    while torn == content:
        at = random.randrange(start, max(len(content) - 1 if end is None else end, start + 1))
        torn = content[:at]
        if random.random() >= 0.5:
            torn += bytes(min(20, len(content) - at)) + content[at + 20 :]
    path.write_bytes(torn)


def collect_facts_before(record: TrialRecord, content: bytes, at: int) -> set[Fact]:
    """Returns the results of a record that a repair must keep: its timings and scores that end before a damaged byte.

    The end of the trial is not one of them: a lost field may be one on which it depends.

    Args:
        record: The record.
        content: Content of its file before the damage.
        at: Number of bytes before the damage.
    """
    text = content[:at].decode(errors="ignore")
    timings, scores = (_count_whole(text, name) for name in ("measurements", "scores"))
    kept = dataclasses.replace(record, measurements=record.measurements[:timings], scores=record.scores[:scores])
    return {fact for fact in collect_facts([kept]) if fact[1] != "finished"}


def _count_whole(text: str, name: str) -> int:
    """Returns the number of whole items in a list of a truncated record."""
    items = text.partition(f'\n "{name}": [')[2]
    decoder, place, count = json.JSONDecoder(), 0, 0
    while True:
        place = len(items) - len(items[place:].lstrip(" \n,"))
        try:
            _, place = decoder.raw_decode(items, place)
        except ValueError:
            return count
        count += 1


def _must_stay(file: str, damaged: str) -> bool:
    """Returns True for files that a repair must leave. A kill can tear the log and leave temporary files behind."""
    return file not in (damaged, f"logs/{_LOG}") and not file.endswith(".tmp")


def _whole_lines(log: bytes | None) -> list[bytes]:
    return [line for line in (log or b"").splitlines() if _is_event(line)]


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


class DamageStudy:
    """A torn record, manifest or event log, or a lost manifest, after a kill of the search. `hilo-nas repair` follows.

    The repair must name the file, keep its damaged content, and leave every other file as it is. Of a torn record, it
    must keep the timings and scores before the damage, and of a torn event log all other lines.
    """

    name = "damaged file and repair"
    hits_workers = False

    def strike(self, soak: Soak) -> bool:
        """Kills the search, damages one file and repairs the study."""
        if not any(record.measurements for record in soak.seen_records):
            return False
        if not kill(soak):
            return False
        soak.look(is_stopped=True)
        study = StoredStudy(soak.search.path)
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
        self._repair(soak, study, name, torn, before)
        if file.parent == study.trials_path and torn is not None:
            record = next(record for record in soak.seen_records if record.number == int(file.stem))
            whole = before[name]
            at = next((i for i, (a, b) in enumerate(zip(torn, whole, strict=False)) if a != b), len(torn))
            soak.give_up(collect_facts([record]) - collect_facts_before(record, whole, at))
            soak.audit.forget(StoredStudy(study.path), record.number)
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
        if _whole_lines(torn if name == log else before.get(log)) != _whole_lines(after.get(log)):
            soak.fault(f"the repair of {name} lost or changed events")
        kept = [path.read_bytes() for path in (study.path / _DAMAGED).glob(f"*/{name}")]
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
    """A torn file of the image cache, after Ctrl-C. The next search must notice it and read the images again.

    Args:
        wait_s: Maximum seconds in which the next search must have done so.
    """

    name = "damaged image cache"
    hits_workers = False

    def __init__(self, wait_s: float = WORK_S) -> None:
        self._wait_s = wait_s

    def strike(self, soak: Soak) -> bool:
        """Interrupts the search, damages one file of its image set, and waits until the next search has restored it."""
        sets = soak.cache / "data" / "sets"
        if not list(sets.glob("*/*")) or not interrupt(soak, signal.SIGINT):
            return False
        # stamp.json only tells when the digests need not be compared.
        path = soak.random.choice([p for p in sorted(sets.glob("*/*")) if p.stat().st_size > 1 and p.stem != "stamp"])
        whole = path.read_bytes()
        os.chmod(path, 0o644)
        tear(path, soak.random)
        search = soak.search.running()
        deadline = time.monotonic() + self._wait_s
        while search.poll() is None and time.monotonic() < deadline and not _has_read_again(soak):
            time.sleep(0.1)
        if search.poll() is not None:
            return False
        if not _has_read_again(soak):
            soak.fault(f"the search did not notice that {path.name} of the image cache is damaged")
        elif not path.exists() or path.read_bytes() != whole:
            soak.fault(f"the search did not restore {path.name} of the image cache")
        return True


def _has_read_again(soak: Soak) -> bool:
    """Returns True if the running search has said that it rebuilds the image cache, and has read the images."""
    _, said, then = soak.search.read_events().partition(b": it is rebuilt")
    return bool(said) and b'"event": "DataRead"' in then

"""Search for damaged files in a study's folder, and for what can be repaired.

It only reads. Links inside the folder are reported and never followed.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from hilo_nas.errors import NewerVersionError, RecordError
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.files.safe_yaml import MOST_BYTES
from hilo_nas.measurement.fields import read_value
from hilo_nas.searching.opening.folder_checks import find_leftovers, find_misplaced
from hilo_nas.study.local_settings import Local, load_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import Posteriors
from hilo_nas.study.record_rescue import needs_plugin, rescue_record
from hilo_nas.study.records import MAX_RECORD_BYTES, TrialRecord, parse_record, render_record
from hilo_nas.study.stage_times import StageTimes
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.one_line import decode_json
from hilo_nas.text.plurals import agree, count_of

__all__ = ["Damage", "find_damage"]

_LOG = os.path.join("logs", "events.jsonl")
_MAX_LOG_BYTES = 2**28
_DERIVED = ("manifest.backup.yaml", "posteriors.json", "stages.json", "trials.csv", "front.csv", "data.png")
_MOST_FAULTS = 3
"""Maximum number of faults of a file in a message."""
_COPY_LINK = "Replace the link with a copy of its file."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged file of a study."""

    file: str
    """Path relative to the study's folder."""
    fault: str
    remedy: str
    """Action of the repair, or of the user if `is_repairable` is False."""
    is_repairable: bool = True
    """True if the repair moves the file to the folder `damaged`."""
    new_files: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    """Contents of the files that the repair writes, by path relative to the study's folder."""


def find_damage(study: StoredStudy) -> list[Damage]:
    """Returns all damaged files of a study, and the temporary files that a killed search left behind."""
    misplaced = {os.path.relpath(path, study.path): fault for path, fault in find_misplaced(study).items()}
    return [
        *_find_manifest_damage(study, misplaced.pop("manifest.yaml", None)),
        *(_of_misplaced(study, file, fault) for file, fault in misplaced.items()),
        *(_find_record_damage(study, misplaced) if "trials" not in misplaced else ()),
        *_find_derived_damage(study, misplaced),
        *(_find_log_damage(study) if not {"logs", _LOG} & misplaced.keys() else ()),
        *(
            Damage(file=os.path.relpath(path, study.path), fault="a killed search left it behind", remedy="moved")
            for path in find_leftovers(study)
        ),
    ]


def _of_misplaced(study: StoredStudy, file: str, fault: str) -> Damage:
    is_link = stat.S_ISLNK(os.lstat(study.path / file).st_mode)
    if is_link and (file == "trials" or file.startswith("trials/")):
        return Damage(file=file, fault=f"it {fault}", remedy=_COPY_LINK, is_repairable=False)
    return Damage(file=file, fault=f"it {fault}", remedy=_describe_loss(file))


def _describe_loss(file: str) -> str:
    """Returns what follows if a file is moved away."""
    if file.startswith("trials/"):
        return "moved; the trial is lost"
    if file == "local.yaml":
        return "moved; the next search asks for its settings, such as data.source"
    return "moved; the next search writes it again" if file in _DERIVED else "moved"


def _find_manifest_damage(study: StoredStudy, misplaced: str | None) -> Iterator[Damage]:
    name, copy = study.manifest_path.name, study.backup_path.name
    if misplaced is not None and os.path.islink(study.manifest_path):
        yield Damage(file=name, fault=f"it {misplaced}", remedy=_COPY_LINK, is_repairable=False)
        return
    content, fault = (None, f"it {misplaced}") if misplaced is not None else _read_manifest(study.manifest_path)
    copied, fault_of_copy = _read_manifest(study.backup_path)
    if isinstance(fault, NewerVersionError | PermissionError):
        yield _not_damaged(name, fault)
    elif fault is None and content is not None:
        if copied is None and os.path.isfile(study.backup_path) and not os.path.islink(study.backup_path):
            remedy = f"written again from {name}"
            yield Damage(file=copy, fault=_brief(fault_of_copy), remedy=remedy, new_files={copy: content})
    elif copied is not None:
        yield Damage(file=name, fault=_brief(fault), remedy=f"restored from {copy}", new_files={name: copied})
    else:
        state = "damaged too" if os.path.lexists(study.backup_path) else "missing"
        yield Damage(
            file=name,
            fault=f"{_brief(fault)}; {copy} is {state}",
            remedy="Restore it from a copy of the study. Without it, the records cannot be used, because they hold "
            "neither the space nor the data. They are left as they are.",
            is_repairable=False,
        )


def _read_manifest(path: Path) -> tuple[bytes | None, Exception | str | None]:
    """Returns the content of a valid manifest, or None with the reason."""
    if not os.path.lexists(path):
        return None, "it is missing"
    try:
        if os.path.islink(path):
            return None, "it must be a file, but is a link"
        content = read_bytes(path, MOST_BYTES)
        Manifest.from_yaml(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, RecordError) as error:
        return None, error
    return content, None


def _not_damaged(file: str, error: Exception) -> Damage:
    """Returns the entry of a file that may be whole, and that this user or this version cannot read."""
    remedy = "Upgrade hilo-nas." if isinstance(error, NewerVersionError) else "Make it readable for this user."
    return Damage(file=file, fault=_brief(error), remedy=remedy, is_repairable=False)


def _brief(fault: Exception | str | None) -> str:
    """Returns the first faults of a file in one line."""
    if isinstance(fault, OSError):
        return f"it cannot be read ({fault.strerror or fault})"
    if isinstance(fault, UnicodeDecodeError):
        return f"it is not UTF-8 ({fault})"
    lines = str(fault).split("\n")
    return "; ".join(lines[:_MOST_FAULTS]) + f"; and {len(lines) - _MOST_FAULTS} more" * (len(lines) > _MOST_FAULTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Claim:
    """Record without a file of the right name."""

    file: str
    record: TrialRecord
    fault: str
    content: bytes | None
    """Content of the file if the record in it is whole."""
    numbers: tuple[int | None, ...]
    """Possible numbers of the trial, the most likely one first."""
    remedy: str


def _find_record_damage(study: StoredStudy, misplaced: Collection[str]) -> Iterator[Damage]:
    keys: dict[int, str] = {}
    """Keys of the networks by the numbers that are in use."""
    claims: list[_Claim] = []
    for path in sorted(study.trials_path.glob("[0-9]*.json")):
        file, number = os.path.relpath(path, study.path), _number_of(path.stem)
        found = _examine(path, file, number) if file not in misplaced else None
        if isinstance(found, _Claim):
            claims.append(found)
        elif isinstance(found, TrialRecord):
            keys[found.number] = found.key
        elif number is not None and (found is None or not found.is_repairable):
            keys[number] = ""
        if isinstance(found, Damage):
            yield found
    for claim in sorted(claims, key=lambda claim: (claim.content is None, claim.file)):
        if claim.record.key in keys.values():
            remedy = "moved; another record has the same network"
            yield Damage(file=claim.file, fault=claim.fault, remedy=remedy)
            continue
        fresh = 1 + max([*keys, *(number or 0 for own in claims for number in own.numbers)])
        number = next(number for number in (*claim.numbers, fresh) if number is not None and number not in keys)
        keys[number] = claim.record.key
        content = claim.content
        if content is None or number != claim.record.number:
            content = render_record(dataclasses.replace(claim.record, number=number)).encode()
        target = os.path.join("trials", f"{number:04d}.json")
        remedy = "; ".join([*[claim.remedy] * bool(claim.remedy), *[f"now {target}"] * (target != claim.file)])
        yield Damage(file=claim.file, fault=claim.fault, remedy=remedy or "repaired", new_files={target: content})


def _number_of(stem: str) -> int | None:
    """Returns the trial number of a file name, or None if it is no such name."""
    return int(stem) if stem.isascii() and stem.isdecimal() and f"{int(stem):04d}" == stem else None


def _examine(path: Path, file: str, number: int | None) -> TrialRecord | _Claim | Damage:
    """Returns the record of a file that is whole, a record to repair, or what else is wrong with the file."""
    try:
        content = read_bytes(path, MAX_RECORD_BYTES)
    except PermissionError as error:
        return _not_damaged(file, error)
    except OSError as error:
        return Damage(file=file, fault=_brief(error), remedy=_describe_loss(file))
    try:
        record = parse_record(content)
    except NewerVersionError as error:
        return _not_damaged(file, error)
    except RecordError as error:
        if (kind := needs_plugin(content)) is not None:
            remedy = f"Install the package that defines the attention {kind!r:.80}."
            return Damage(file=file, fault=_brief(error), remedy=remedy, is_repairable=False)
        rescue = rescue_record(content, number or 0)
        if rescue is None:
            return Damage(file=file, fault=_brief(error), remedy=_describe_loss(file))
        lost = f"{', '.join(rescue.lost)} lost" if rescue.lost else "nothing lost"
        again = "; the next search runs the trial again" * rescue.record.is_interrupted
        return _Claim(
            file=file,
            record=rescue.record,
            fault=_brief(error),
            content=None,
            numbers=(number, rescue.record.number),
            remedy=f"{rescue.kept} kept, {lost}{again}",
        )
    if number == record.number:
        return record
    fault = f"the file name must be the trial number, but the record says {record.number}"
    return _Claim(file=file, record=record, fault=fault, content=content, numbers=(record.number, number), remedy="")


def _find_derived_damage(study: StoredStudy, misplaced: Collection[str]) -> Iterator[Damage]:
    for path, kind in ((study.posteriors_path, Posteriors), (study.stages_path, StageTimes)):
        try:
            if path.name not in misplaced:
                read_value(kind, decode_json(read_bytes(path, MAX_RECORD_BYTES)))
        except (FileNotFoundError, PermissionError, NewerVersionError):
            continue
        except (OSError, RecordError) as error:
            yield Damage(file=path.name, fault=_brief(error), remedy=_describe_loss(path.name))
        except (ValueError, RecursionError) as error:
            fault = f"it is not complete JSON ({error})"
            yield Damage(file=path.name, fault=fault, remedy=_describe_loss(path.name))
    local = load_local(study.local_path) if "local.yaml" not in misplaced else Local()
    if local.is_damaged and os.access(study.local_path, os.R_OK):
        yield Damage(file="local.yaml", fault=str(local.fault), remedy=_describe_loss("local.yaml"))


def _find_log_damage(study: StoredStudy) -> Iterator[Damage]:
    try:
        lines = read_bytes(study.path / _LOG, _MAX_LOG_BYTES).splitlines(keepends=True)
    except OSError:  # it does not exist, or is for people only
        return
    whole = [line for line in lines if _is_event(line)]
    if count := len(lines) - len(whole):
        fault = f"{count} of {count_of(len(lines), 'line')} {agree(count, 'is', 'are')} damaged"
        yield Damage(
            file=_LOG, fault=fault, remedy="moved; the other lines are kept", new_files={_LOG: b"".join(whole)}
        )


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(decode_json(line), dict)
    except (ValueError, RecursionError):
        return False

"""Rescue of the valid parts of a damaged trial record.

A measurement or a score that is whole counts as before. The subject must be whole, because all results belong to it.
If a part is lost on which the state of the trial depends, the trial becomes interrupted: the next search runs it again
under the same number, with the timings and scores that are left.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from hilo_nas.arch.attentions import attention_names
from hilo_nas.errors import HiloNasError
from hilo_nas.study.records import SCHEMA_VERSION, TrialRecord
from hilo_nas.study.transitions import interrupt
from hilo_nas.text.one_line import decode_json, one_lined
from hilo_nas.text.plurals import count_of

__all__ = ["Rescue", "needs_plugin", "parse_torn", "rescue_record"]

_LISTS = {"measurements": "timing", "scores": "score", "other_scores": "score of another proxy"}
"""Fields with a list of results, and the name of one result."""
_MINOR = {"number", "started_at", "finished_at", "seconds", "sampler_memory", "other_scores"}
"""Fields on which the state of a trial does not depend."""
_FIELDS = [field.name for field in dataclasses.fields(TrialRecord) if field.name not in ("subject", "schema_version")]
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[][{},]', re.DOTALL)
"""A text, with its closing quote if it has one, a bracket or a comma."""
_CLOSING = {"{": "}", "[": "]"}
_DEEPEST = 40
"""Maximum nesting depth of a truncated record. Records have less than ten levels."""
_LONGEST_NUMBER = 40


def _whole_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else None


_DECODER = json.JSONDecoder(parse_constant=lambda name: None, parse_int=_whole_number)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rescue:
    """Record with the valid parts of a damaged one."""

    record: TrialRecord
    kept: str
    """What the record holds, such as `2 timings and 1 score`."""
    lost: tuple[str, ...]
    """Names of the lost parts, such as `1 timing` or `seconds`."""


def rescue_record(content: bytes, number: int) -> Rescue | None:
    """Returns the valid parts of a damaged record file, or None if its network is not known for certain.

    Args:
        content: Content of the file.
        number: Number of the trial if the file does not hold a valid one.
    """
    fields, is_torn = _parse(content)
    if fields is None:
        return None
    version = fields.get("schema_version")
    kept: dict[str, Any] = {
        "schema_version": version if version in (1, SCHEMA_VERSION) else SCHEMA_VERSION,
        "key": fields.get("key"),
        "subject": fields.get("subject"),
        "number": number,
        "state": "failed",
    }
    if not _is_valid(kept):
        return None
    bare, lost, has_lost_major = dict(kept), [], False
    for name in _FIELDS:
        value = fields.get(name)
        if name not in fields:
            missing = name if is_torn or name in ("number", "state") else ""
        elif name in _LISTS and isinstance(value, list):
            kept[name] = [item for item in value if _is_valid({**bare, name: [item]})]
            count = len(value) - len(kept[name])
            missing = count_of(count, _LISTS[name]) if count else ""
        elif _is_valid({**bare, name: value}):
            kept[name], missing = value, ""
        else:
            missing = name
        if missing:
            lost.append(missing)
            has_lost_major |= name not in _MINOR
    record = TrialRecord.from_dict(kept)
    if has_lost_major:
        record = interrupt(record, "its record was damaged")
    results = f"{count_of(len(record.measurements), 'timing')} and {count_of(len(record.scores), 'score')}"
    return Rescue(record=record, kept=results, lost=tuple(lost))


def _is_valid(fields: dict[str, Any]) -> bool:
    try:
        TrialRecord.from_dict(fields)
    except HiloNasError:
        return False
    return True


def needs_plugin(content: bytes) -> str | None:
    """Returns an attention of a record's network that is not installed here. None if there is none.

    Such a record is whole. It can be read where the package that defines the attention is installed.
    """
    fields, _ = _parse(content)
    try:
        names = fields["subject"]["arch"]["attention"] if fields is not None else ()
        unknown = [name for name in names if isinstance(name, str) and name not in attention_names()]
    except (LookupError, TypeError):
        return None
    return unknown[0] if unknown else None


def parse_torn(text: str) -> Any:
    """Returns the longest prefix of damaged JSON that is valid once its brackets are closed. None if there is none.

    An incomplete number or text at the end is dropped. NaN, infinity and numbers with many digits become None.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        fault = error.pos
    except (ValueError, RecursionError):
        return None
    opened: list[str] = []
    end, closing = 0, ""
    for token in _TOKEN.finditer(text, 0, fault):
        sign = token[0]
        if sign.startswith('"'):
            if token[1]:
                continue
            break
        if sign in _CLOSING:
            opened.append(sign)
        elif sign != ",":
            opened.pop()
        if len(opened) > _DEEPEST:
            break
        end, closing = token.start() if sign == "," else token.end(), "".join(_CLOSING[own] for own in reversed(opened))
    try:
        return _DECODER.decode(text[:end] + closing)
    except ValueError:
        return None


def _parse(content: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Returns the fields of a record file, and whether it is not complete JSON."""
    try:
        fields, is_torn = decode_json(content), False
    except (ValueError, RecursionError):
        fields, is_torn = one_lined(parse_torn(content.decode("utf-8", errors="replace"))), True
    return (dict(fields) if isinstance(fields, dict) else None), is_torn

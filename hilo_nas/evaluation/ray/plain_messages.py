"""Messages of an evaluator as JSON, which a place sends to the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import error_of
from hilo_nas.evaluation.protocol import Failed, Finished, Message, Progress
from hilo_nas.evaluation.tasks import Task
from hilo_nas.events import event_from_dict, event_to_dict

__all__ = ["message_from_json", "message_to_json", "plain_error"]


def plain_error(error: Exception) -> dict[str, str]:
    """Returns an error as plain data for `error_of`."""
    return {"kind": type(error).__name__, "message": str(error)}


def message_to_json(message: Message, task: Task[Any], **extra: Any) -> str:
    """Returns a message about a task as JSON.

    Args:
        message: The message.
        task: Its task, which converts the result.
        **extra: Further fields, as plain data.
    """
    fields: dict[str, Any] = {"id": message.id, **extra}
    match message:
        case Progress():
            fields |= {"kind": "progress", "event": event_to_dict(message.event)}
        case Finished():
            fields |= {"kind": "finished", "result": task.result_to_dict(message.result), "seconds": message.seconds}
        case Failed():
            fields |= {"kind": "failed", "error": plain_error(message.error)}
            fields |= {"blame": message.blame, "seconds": message.seconds}
    return json.dumps(fields)


def message_from_json(fields: Mapping[str, Any], task: Task[Any], *, id: str, device: str | None) -> Message:
    """Returns the message of `message_to_json`.

    Args:
        fields: The parsed JSON.
        task: Task of the message.
        id: ID of the task for the caller of the evaluator.
        device: Name of the device of the place.

    Raises:
        RecordError: The result is invalid.
    """
    if fields["kind"] == "progress":
        return Progress(id=id, event=event_from_dict(fields["event"]))
    if fields["kind"] == "finished":
        result = task.result_from_dict(fields["result"])
        return Finished(id=id, result=result, seconds=fields["seconds"], device=device)
    error = error_of(fields["error"]["kind"], fields["error"]["message"])
    return Failed(id=id, error=error, blame=fields["blame"], seconds=fields["seconds"], device=device)

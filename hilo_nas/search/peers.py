"""Networks of others that a search compares its own with: marked points, timed and trained as the space's are."""

from __future__ import annotations

from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.request import SearchRequest
from hilo_nas.study import StudyFolder

__all__ = ["check_peers", "due_peers", "join_peers"]


def check_peers(request: SearchRequest, folder: StudyFolder, executor: LocalExecutor, emit: Emit) -> None:
    """Checks before anything is spent that the peers asked for can be compared with in a study, there or still to be.

    Raises:
        UsageError: timm does not know one of them, or the study's speeds were taken on another machine.
    """
    if not request.peers:
        return
    if folder.exists and (table := folder.load_manifest().speeds) is not None:
        raise UsageError(
            f"peers must be timed like the space's networks, but study {folder.name} takes its speeds from the table "
            f"{table}, which holds none. Leave out --peers."
        )
    executor.check_timm_names([peer.removeprefix("timm:") for peer in request.peers], emit)


def join_peers(stored: tuple[str, ...], request: SearchRequest) -> tuple[str, ...]:
    """Returns a study's peers with those that a request adds, each once."""
    return tuple(dict.fromkeys((*stored, *request.peers)))


def due_peers(request: SearchRequest, folder: StudyFolder) -> tuple[str, ...]:
    """Returns the peers that a search would try, in a study that is there or still to be made."""
    stored = folder.load_manifest().peers if folder.exists else ()
    records = folder.load_records() if folder.exists else []
    known = {record.key for record in records if not record.is_interrupted}
    return tuple(peer for peer in join_peers(stored, request) if peer not in known)

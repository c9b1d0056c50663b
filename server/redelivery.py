"""Requests that were lost on their way to a node: the SuperLink gives each of them once more.

Flower marks a request as delivered when it reads it for a node, which is before the node has it. A
SuperLink that is killed or slow at that moment, a cut connection and a node that is started again
leave a request that nobody will answer, and a round that waits for it to its deadline.

A node of ours asks for nothing before it has answered (:mod:`client.supernode`). So whatever it was
given and has not answered when it asks again is lost: it never came, or its answer could not be
delivered. It is given again. What is lost a second time, or is no longer there to be given since the
node had confirmed it, is withdrawn, and the run is told at once that it gets no answer.
"""

import logging
from collections.abc import Callable
from typing import Any

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.state.schema.corestate_models import Task
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Run
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import exists, select, update

from privacy.crashpoints import reached

_log = logging.getLogger(__name__)
Claim = Callable[..., Any]


def redelivering(claim: Claim) -> Claim:
    """What to put in the place of ``claim``, the method ``get_message_ins`` of Flower's SqlLinkState."""
    again: dict[int, set[str]] = {}

    def get_message_ins(state: Any, node_id: int, limit: int | None, **given: Any) -> Any:
        if node_id != SUPERLINK_NODE_ID:
            lost = _give_again(state, node_id, again.pop(node_id, set()))
            if lost:
                again[node_id] = lost
        found = claim(state, node_id, limit, **given)
        if found:
            # A crash here, like an answer that is lost: the request is given again the next time.
            reached("superlink.after-claim")
        return found

    return get_message_ins


def _give_again(state: Any, node_id: int, before: set[str]) -> set[str]:
    """Make what was lost on its way to a node available to it; all but ``before``, which go."""
    with state.session() as session:
        lost = set(session.scalars(_unanswered(node_id)))
        state.delete_messages(lost & before)
        first = lost - before
        if first:
            chosen = MessageIns.message_id.in_(first)
            session.execute(update(MessageIns).where(chosen).values(delivered_at=""))
    if lost:
        _log.warning(
            "%d requests to node %d were lost on their way; %d are given again",
            len(lost),
            node_id,
            len(first),
        )
    return first


def _unanswered(node_id: int) -> Any:
    """The ids of the requests of unfinished runs that a node was given and has not answered."""
    answered = exists().where(MessageRes.reply_to_message_id == MessageIns.message_id)
    return (
        select(MessageIns.message_id)
        .join(Run, Run.run_id == MessageIns.run_id)
        .join(Task, Task.task_id == Run.primary_task_id)
        .where(
            MessageIns.dst_node_id == uint64_to_int64(node_id),
            MessageIns.delivered_at != "",
            Task.finished_at.is_(None),
            ~answered,
        )
    )

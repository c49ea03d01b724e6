"""``PodParts``: the parts of a pod that its runs and its memory jobs work with, handed on together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from actors.pod.accounts.accounts import Accounts
    from actors.pod.history.conversation import Conversation
    from actors.pod.resources import PodResources
    from actors.pod.session.journal import Journal
    from actors.pod.status import Status
    from actors.pod.tasks_at_work import TasksAtWork
    from actors.runtime.loop import Mailroom


class PodParts(Struct, frozen=True, eq=False):
    """The parts of one pod that each of its activities needs."""

    resources: PodResources
    status: Status
    journal: Journal
    accounts: Accounts
    conversation: Conversation
    tasks: TasksAtWork
    mailroom: Mailroom

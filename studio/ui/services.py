"""What the page works with: made once for each web process and passed to every tab.

It holds readers and handles only. Jobs belong to nobody here: they live in their folders.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from studio.chat.manager import ChatManager
from studio.data.client import DataWorker
from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.datatasks import DataTasks
from studio.ui.preparation import Preparation


@dataclass(frozen=True)
class Services:
    """The services that handlers call.

    Attributes:
        settings: the studio's own settings.
        summaries: what lists show of each job, read incrementally.
        data: the warm process that tokenizes for previews and counts.
        tasks: profiles and cleaned copies, by a data worker of their own, so that previews need not wait for them.
        preparation: of the embedded model and the figures of this computer.
        chats: the chat servers, one for each loaded model.
    """

    settings: Settings
    summaries: Summaries
    data: DataWorker
    chats: ChatManager
    tasks: DataTasks = field(init=False)
    preparation: Preparation = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", DataTasks(DataWorker(self.settings, confined=True)))
        object.__setattr__(self, "preparation", Preparation(self.settings))

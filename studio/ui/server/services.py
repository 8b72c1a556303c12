"""What the page works with: made once for each web process and passed to every tab.

It holds readers and handles only. Jobs belong to nobody here: they live in their folders.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from studio.chat.manager import ChatManager
from studio.data.worker.pool import DataPool
from studio.export.trying.running import Trials
from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.routes.runlist import RunBook
from studio.ui.server.downloads import Downloads
from studio.ui.server.preparation import Preparation
from studio.ui.tabs.data.tasks import DataTasks


@dataclass(frozen=True)
class Services:
    """The services that handlers call.

    Attributes:
        settings: the studio's own settings.
        summaries: what lists show of each job, read incrementally.
        data: the warm processes that tokenize.
        tasks: profiles and cleaned copies, which go on while the page does other things.
        book: what the list shows of each job.
        preparation: of the embedded model and the figures of this computer.
        downloads: of models from the Hub.
        chats: the chat servers, one for each loaded model.
        trials: servers of other makers that were started to try an export.
    """

    settings: Settings
    summaries: Summaries
    data: DataPool
    chats: ChatManager
    tasks: DataTasks = field(init=False)
    book: RunBook = field(init=False)
    preparation: Preparation = field(init=False)
    downloads: Downloads = field(init=False)
    trials: Trials = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", DataTasks(self.data))
        object.__setattr__(self, "book", RunBook(self.settings, self.summaries))
        object.__setattr__(self, "preparation", Preparation(self.settings))
        object.__setattr__(self, "downloads", Downloads(self.settings))
        object.__setattr__(self, "trials", Trials(self.settings))

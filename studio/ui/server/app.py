"""The web process: one FastAPI application with our routes, the gate before everything, gradio mounted behind.

We serve it with uvicorn ourselves, because gradio's `launch()` cannot carry routes and middleware of its
own without starting a second thread. It imports no torch; all work happens in other processes.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from studio.chat.manager import ChatManager
from studio.data.worker.pool import DataPool
from studio.errors import InputError
from studio.jobs import Summaries
from studio.jobs.actions.queue import KEEP_SECONDS, Keeper
from studio.jobs.actions.removal import empty_trash
from studio.jobs.run.notify import PAGE
from studio.jobs.store.files import write_json
from studio.private import begin, make_home, make_secrets, tighten
from studio.reach import reading_only_for
from studio.settings import Settings, forget_password
from studio.ui.components.runs import run_list, sign_out
from studio.ui.components.whose import whose_line
from studio.ui.page import TABS, Page, build_page
from studio.ui.routes import api
from studio.ui.server import gate
from studio.ui.server.asker import Asker
from studio.ui.server.confined import ReadingForPage, confine_files
from studio.ui.server.connections import Connection, Door
from studio.ui.server.owner import Owners
from studio.ui.server.services import Services
from studio.ui.server.sessions import SessionFile
from studio.ui.server.theme import page_head, studio_theme
from studio.ui.tabs.chat import tab as chat
from studio.ui.tabs.data import tab as data
from studio.ui.tabs.data.files import UPLOAD_BYTES
from studio.ui.tabs.export import tab as export
from studio.ui.tabs.method import tab as method
from studio.ui.tabs.model import tab as model
from studio.ui.tabs.training import tab as training

BUILDERS = {
    "model": model.build,
    "data": data.build,
    "method": method.build,
    "training": training.build,
    "chat": chat.build,
    "export": export.build,
}


def create_app(settings: Settings) -> FastAPI:
    """Make the application with its services; nothing is started before it is served.

    Raises:
        InputError: the address is not this machine's own and no password is set.
    """
    gate.check_address(settings)
    make_secrets(make_home(settings.home))
    settings.temporary.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.temporary / "gradio")
    services = make_services(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(_keep_supervised(settings))
        threading.Thread(target=_tidy, args=(settings,), daemon=True).start()
        yield
        keeping.cancel()
        services.chats.close_all()
        services.trials.close_all()
        services.tasks.close()
        services.data.close()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.include_router(api.make_router(services))
    gr.mount_gradio_app(
        app, build_blocks(services), path="/", footer_links=[], run_history=False, show_error=False,
        max_file_size=UPLOAD_BYTES, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        app_kwargs={"openapi_url": None}, theme=studio_theme(), head=page_head(), allowed_paths=[], root_path="",
    )  # fmt: skip
    app.add_middleware(ReadingForPage, settings=settings)
    app.add_middleware(Asker)
    app.add_middleware(gate.Gate, settings=settings)
    return app


def _tidy(settings: Settings) -> None:
    """What an older version or an earlier removal left: files that others may read, files that nobody needs."""
    with suppress(OSError):
        tighten(settings.home)
    empty_trash(settings.jobs)


async def _keep_supervised(settings: Settings) -> None:
    """Jobs that were queued or running when the computer went down are taken up, or their end is recorded."""
    keeper = Keeper(settings)
    while True:
        with suppress(OSError):  # a full disk: the next look is as good
            await asyncio.to_thread(keeper.look)
        await asyncio.sleep(KEEP_SECONDS)


def make_services(settings: Settings) -> Services:
    """Make what the handlers call; processes start with the first call."""
    # Confined: what the page names must lie below the roots of the settings, whoever uses it.
    data = DataPool(settings, confined=True)
    return Services(settings=settings, summaries=Summaries(), data=data, chats=ChatManager(settings))


def build_blocks(services: Services) -> gr.Blocks:
    """Make the page: the list of jobs at the left, the tabs at the right."""
    with gr.Blocks(title="Finetune Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        page = build_page(services)
        with gr.Row(elem_id="frame"):
            with gr.Column(elem_id="side"):
                run_list()
                if services.settings.asks:
                    sign_out()
            with gr.Column(elem_id="work"):
                _build_tabs(page)
    confine_files(blocks)
    return blocks


def _build_tabs(page: Page) -> None:
    with gr.Tabs(selected="training", elem_id="tabs", overflow_behavior="wrap") as page.tabs:
        for name, title in TABS.items():
            with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                whose_line(name)
                BUILDERS[name](page)


def serve(settings: Settings) -> None:
    """Serve the page until it is interrupted; prints one line with the address once it listens.

    Raises:
        InputError: the port is in use, or the address is not allowed.
    """
    gate.check_address(settings)
    if said := begin(make_home(settings.home)):
        print(f"warning: {said}", file=sys.stderr, flush=True)
    forget_password()  # our settings have it; the processes that we start shall not
    listener = _listen(settings)
    app = create_app(settings)
    protocol: Any = functools.partial(Connection, door=Door(_owners(settings)))
    config = uvicorn.Config(
        app, http=protocol, log_level="warning", timeout_graceful_shutdown=3, proxy_headers=False
    )  # fmt: skip
    print(f"Finetune Studio: {_opening_address(settings)}", flush=True)
    write_json(
        settings.home / PAGE, {"address": gate.own_address(settings), "by_link": settings.link}
    )  # for what links to the page
    with reading_only_for(settings):  # in threads of ours too, which no request begins
        uvicorn.Server(config).run(sockets=[listener])


def _owners(settings: Settings) -> Owners | None:
    """Who looks up whose a connection is: nobody where everybody has to sign in."""
    owners = None if settings.asks else Owners()
    if owners is not None and not owners.tell:
        print(
            "This system does not tell whose a connection is: other users of this machine can open the page. "
            "STUDIO_TOKEN=1 asks for a link.",
            file=sys.stderr,
        )
    return owners


def _opening_address(settings: Settings) -> str:
    """The address to open; with STUDIO_TOKEN=1 it opens one session, once, and ends the links of an earlier start.

    The code stands behind the #, so no browser sends it to a server, a proxy's log or another page.
    """
    address = gate.own_address(settings)
    return f"{address}#link={SessionFile(settings.home).new_link(alone=True)}" if settings.link else address


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {settings.port} on {settings.host} is not available ({error.strerror or error})",
            where="--port",
            fix="Another program, maybe another studio, uses it: choose a free one with --port",
        ) from error
    listener.listen(1024)
    return listener

"""The web process: one FastAPI application with our routes, the gate before everything, gradio mounted behind.

We serve it with uvicorn ourselves, because gradio's `launch()` cannot carry routes and middleware of its
own without starting a second thread. It imports no torch; all work happens in other processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI

from studio.errors import InputError, StudioError
from studio.jobs import Summaries
from studio.settings import Settings, read_settings
from studio.ui import api, gate
from studio.ui.components.runs import RunList
from studio.ui.page import TABS, Page, build_page
from studio.ui.services import Services
from studio.ui.theme import page_head, studio_theme

MAX_UPLOAD = "2gb"


def create_app(settings: Settings) -> FastAPI:
    """Make the application with its services; nothing is started before it is served.

    Raises:
        InputError: the address is not this machine's own and no password is set.
    """
    gate.check_address(settings)
    settings.temporary.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.temporary / "gradio")
    services = make_services(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        close_services(services)

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.include_router(api.make_router(services))
    gr.mount_gradio_app(
        app, build_blocks(services), path="/", footer_links=[], run_history=False, show_error=False,
        max_file_size=MAX_UPLOAD, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        app_kwargs={"openapi_url": None}, theme=studio_theme(), head=page_head(), allowed_paths=[], root_path="",
    )  # fmt: skip
    app.add_middleware(gate.Gate, settings=settings)
    return app


def make_services(settings: Settings) -> Services:
    """Make what the handlers call."""
    data = chats = None
    if importlib.util.find_spec("studio.data.client"):
        data = importlib.import_module("studio.data.client").DataWorker(settings)
    if importlib.util.find_spec("studio.chat.manager"):
        chats = importlib.import_module("studio.chat.manager").ChatManager(settings)
    return Services(settings=settings, summaries=Summaries(), data=data, chats=chats)


def close_services(services: Services) -> None:
    if services.chats is not None:
        services.chats.close_all()


def build_blocks(services: Services) -> gr.Blocks:
    """Make the page: the list of jobs at the left, the tabs at the right."""
    with gr.Blocks(title="Finetune Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        page = build_page(services)
        with gr.Row(elem_id="frame"):
            with gr.Column(elem_id="side"):
                RunList()
            with gr.Column(elem_id="work"):
                _build_tabs(page)
    return blocks


def _build_tabs(page: Page) -> None:
    with gr.Tabs(selected="training", elem_id="tabs", overflow_behavior="wrap") as page.tabs:
        for name, title in TABS.items():
            with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                if importlib.util.find_spec(f"studio.ui.tabs.{name}"):
                    importlib.import_module(f"studio.ui.tabs.{name}").build(page)
                else:
                    gr.Markdown(f"{title}: being built")


def serve(settings: Settings) -> None:
    """Serve the page until it is interrupted; prints one line with the address once it listens.

    Raises:
        InputError: the port is in use, or the address is not allowed.
    """
    gate.check_address(settings)
    listener = _listen(settings)
    app = create_app(settings)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, proxy_headers=False)
    print(f"Finetune Studio: {gate.own_address(settings)}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {settings.port} on {settings.host} cannot be used ({error.strerror or error})",
            where="--port",
            fix="Another program, maybe another studio, has it: give a free one with --port",
        ) from error
    listener.listen(128)
    return listener


def main() -> int:
    """`python app.py [PORT]`: serve the page; a wrong setting is one sentence and exit status 2."""
    try:
        serve(read_settings())
    except StudioError as error:
        print(error.sentence, file=sys.stderr)
        return error.exit_code
    return 0

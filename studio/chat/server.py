"""The chat server process: `python -m studio.chat.server --model DIR [--adapter DIR] | --gguf FILE --ready FILE`.

OpenAI's chat API over one loaded model, on a loopback port that the system chooses. A client can only name the ids
that were loaded at the start, never a path; every route but /health needs the key of the environment variable
STUDIO_CHAT_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.chat.decoding import Sampler, StopFilter
from studio.chat.engine import Answer, Backend, End, Engine, Event, Failed, Piece
from studio.chat.lifetime import Lifetime, write_ready
from studio.chat.protocol import SSE_DONE, ApiError, ChatRequest, Reply, parse_request, sse
from studio.errors import StudioError
from studio.models.catalog.quiet import quiet_imports
from studio.private import begin

KEY_VARIABLE = "STUDIO_CHAT_KEY"
LARGEST_BODY = 8 * 2**20  # bytes
LONGEST_QUEUE = 32  # answers in progress or waiting
POLL_SECONDS = 0.1  # how often a silent request is asked whether its client is still there
ALLOWED_HOSTS = ("127.0.0.1", "localhost")


class Gate:
    """ASGI middleware: Host allow-list (against DNS rebinding) and the Bearer key, before anything else runs."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403 or 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")
        error = None
        if (host[0] or host[2]) not in ALLOWED_HOSTS:
            error = ApiError(403, "This server answers only under 127.0.0.1 and localhost", code="host_not_allowed")
        elif scope["path"] != "/health" and not secrets.compare_digest(headers.get(b"authorization", b""), self._key):
            error = ApiError(401, "The API key is missing or wrong", code="invalid_api_key")
        await (_error(error) if error else self._app)(scope, receive, send)


def make_app(backend: Backend, engine: Engine, lifetime: Lifetime, key: str) -> ASGIApp:
    """The HTTP application over a loaded model.

    Args:
        backend: the loaded model, or several.
        engine: queues answers and bounds how many run at a time.
        lifetime: told of each request, so that an idle server can end.
        key: Bearer token every request but /health must carry.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    created = int(time.time())

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return _error(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _error(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "answers": engine.load}

    def describe(model: str) -> dict[str, object]:
        return {"id": model, "object": "model", "created": created, "owned_by": "finetune-studio", **backend.details}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [describe(model) for model in backend.models]}

    @app.get("/v1/models/{model}")
    async def one_model(model: str) -> dict[str, object]:
        _check_model(backend, model)
        return describe(model)

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        lifetime.touch()
        asked = parse_request(await _read_body(request))
        _check_model(backend, asked.model)
        if engine.load >= LONGEST_QUEUE:
            raise ApiError(429, f"{LONGEST_QUEUE} answers are already in progress", code="rate_limit_exceeded")
        messages = [message.plain() for message in asked.messages]
        ids = await asyncio.to_thread(backend.prompt, asked.model, messages)
        if not ids:
            raise ApiError(400, "messages: their texts are empty, so there is nothing to answer", param="messages")
        if len(ids) >= backend.context:
            raise ApiError(
                400,
                f"messages: {len(ids)} tokens exceed the context of {backend.context} tokens, which includes the "
                f"answer. Shorten the conversation",
                param="messages",
                code="context_length_exceeded",
            )
        running = Running(asked, ids, engine, lifetime)
        if asked.stream:
            return StreamingResponse(running.stream(request), media_type="text/event-stream")
        return await running.whole(request)

    return Gate(app, key)


class Running:
    """One request from its prompt to its last byte; cancels the answer when the client goes away."""

    def __init__(self, asked: ChatRequest, ids: list[int], engine: Engine, lifetime: Lifetime) -> None:
        self._engine, self._lifetime = engine, lifetime
        self._prompt_tokens = len(ids)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        room = engine.backend.context - len(ids)
        self._reply = Reply(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=asked.model,
            with_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        )
        self._answer = Answer(
            model=asked.model,
            ids=ids,
            limit=min(asked.limit or room, room),
            sampler=Sampler(1.0 if asked.temperature is None else asked.temperature, asked.top_p or 1.0, asked.seed),
            stop=StopFilter(asked.stop or ()),
            sink=self._sink,
        )

    async def stream(self, request: Request) -> AsyncIterator[str]:
        """The answer as server-sent events: role, pieces, finish reason, usage if asked, [DONE]."""
        yield self._reply.chunk({"role": "assistant", "content": ""})
        async for event in self._run(request):
            if isinstance(event, Piece):
                yield self._reply.chunk({"content": event.text})
            elif isinstance(event, Failed):
                yield sse(ApiError(500, event.message).body())
            else:
                yield self._reply.chunk({}, event.reason)
                if self._reply.with_usage:
                    yield self._reply.usage_chunk(self._prompt_tokens, event.tokens)
                yield SSE_DONE

    async def whole(self, request: Request) -> Response:
        """The answer as one JSON body."""
        pieces: list[str] = []
        async for event in self._run(request):
            if isinstance(event, Piece):
                pieces.append(event.text)
            elif isinstance(event, Failed):
                return _error(ApiError(500, event.message))
            else:
                body = self._reply.whole("".join(pieces), event.reason, self._prompt_tokens, event.tokens)
                return JSONResponse(body)
        return Response(status_code=499)  # the client is gone; nobody reads this

    async def _run(self, request: Request) -> AsyncIterator[Event]:
        self._engine.submit(self._answer)
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), POLL_SECONDS)
                except TimeoutError:
                    event = None
                if await request.is_disconnected():
                    return
                if event is not None:
                    yield event
                    if isinstance(event, End | Failed):
                        return
        finally:
            self._engine.cancel(self._answer)
            self._lifetime.touch()

    def _sink(self, event: Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def main(arguments: list[str] | None = None) -> int:
    """Load the model, serve until the end. Exit code 0, or that of the error with its sentence as the last line."""
    options = _parser().parse_args(arguments)
    begin()
    key = os.environ.pop(KEY_VARIABLE, "")
    if len(key) < 16:
        print(f"error: set {KEY_VARIABLE} to a secret of at least 16 characters", file=sys.stderr)
        return 2
    lifetime = Lifetime(options.idle, options.parent, options.parent_started)
    lifetime.watch()
    try:
        backend = _load(options)
    except StudioError as error:
        print(f"error: {error.sentence}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:  # a library's own: the log keeps the traceback, the last line is for the person
        traceback.print_exc()
        first = str(error).strip().splitlines()[:1]
        print(f"error: {type(error).__name__}: {''.join(first)}", file=sys.stderr, flush=True)
        return 1
    return _serve(backend, lifetime, key, options.ready)


def _load(options: argparse.Namespace) -> Backend:
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is local; without it libraries look for model cards
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.gguf:
        print("chat: loading the GGUF file", flush=True)
        from studio.chat.gguf import GgufBackend

        return GgufBackend(options.gguf, context=options.context, threads=options.threads)
    print("chat: loading libraries", flush=True)
    quiet_imports()
    from transformers.utils import logging

    from studio.chat.hf import HfBackend, use_all_cores

    logging.disable_progress_bar()
    use_all_cores(options.threads)
    print("chat: loading the model", flush=True)
    return HfBackend(
        options.model,
        adapter=options.adapter,
        tuned=options.tuned_model,
        dtype=options.dtype,
        context=options.context,
        trust_remote_code=options.trust_remote_code,
    )


def _serve(backend: Backend, lifetime: Lifetime, key: str, ready: Path) -> int:
    engine = Engine(backend)
    engine.start()
    app = make_app(backend, engine, lifetime, key)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="off")
    server = uvicorn.Server(config)

    def end() -> None:
        server.should_exit = True

    async def run(listener: socket.socket) -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        lifetime.serving(end, busy=lambda: engine.load > 0)
        write_ready(ready, listener.getsockname()[1], backend.models)
        print(f"chat: ready, {', '.join(backend.models)}", flush=True)
        await serving

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        asyncio.run(run(listener))
    engine.stop()
    ready.unlink(missing_ok=True)
    return 0


def _check_model(backend: Backend, model: str) -> None:
    if model not in backend.models:
        raise ApiError(
            404,
            f"model: '{model}' is not loaded here; this server has {', '.join(backend.models)}",
            param="model",
            code="model_not_found",
        )


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise ApiError(413, f"The body is larger than {LARGEST_BODY // 2**20} MB", code="request_too_large")
    return bytes(body)


def _error(error: ApiError) -> Response:
    return JSONResponse(error.body(), status_code=error.status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio.chat.server", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="folder of a checkpoint: the model id base")
    source.add_argument("--gguf", type=Path, help="a GGUF file: the model id gguf")
    tuned = parser.add_mutually_exclusive_group()
    tuned.add_argument("--adapter", type=Path, help="folder of a PEFT adapter: the model id tuned")
    tuned.add_argument("--tuned-model", type=Path, help="folder of a fully tuned checkpoint: the model id tuned")
    parser.add_argument("--ready", type=Path, required=True, help="file to write port, pid and model ids to")
    parser.add_argument("--parent", type=int, help="pid of the process whose exit ends this server")
    parser.add_argument("--parent-started", type=float, help="its start by studio.jobs.store.state.process_start")
    parser.add_argument("--idle", type=float, default=0, help="seconds without a request until it ends; 0: never")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--context", type=int, help="most tokens of prompt and answer; default: the model's own")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code in the model's folder")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

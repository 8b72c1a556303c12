"""Tiny checkpoints written without torch, and a local server that speaks what huggingface_hub asks the Hub."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

SIZES = {"hidden": 16, "inner": 32, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 100}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tensor_shapes(tied: bool = True, **sizes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama checkpoint of these sizes."""
    s = {**SIZES, **sizes}
    hidden, inner, key = s["hidden"], s["inner"], s["hidden"] * s["kv_heads"] // s["heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (s["vocab"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(s["layers"]):
        block = f"model.layers.{layer}."
        shapes |= {
            block + "self_attn.q_proj.weight": (hidden, hidden),
            block + "self_attn.k_proj.weight": (key, hidden),
            block + "self_attn.v_proj.weight": (key, hidden),
            block + "self_attn.o_proj.weight": (hidden, hidden),
            block + "mlp.gate_proj.weight": (inner, hidden),
            block + "mlp.up_proj.weight": (inner, hidden),
            block + "mlp.down_proj.weight": (hidden, inner),
            block + "input_layernorm.weight": (hidden,),
            block + "post_attention_layernorm.weight": (hidden,),
        }
    if not tied:
        shapes["lm_head.weight"] = (s["vocab"], hidden)
    return shapes


def llama_config(tied: bool = True, **sizes: int) -> dict[str, Any]:
    """The `config.json` of such a checkpoint."""
    s = {**SIZES, **sizes}
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": s["hidden"],
        "intermediate_size": s["inner"], "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv_heads"], "vocab_size": s["vocab"], "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
    }  # fmt: skip


def write_safetensors(file: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """Write zeros in the safetensors format: header length, JSON header, data."""
    width, offset, header = (2 if dtype == "BF16" else 4), 0, {}
    for name, shape in shapes.items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def write_checkpoint(folder: Path, shards: int = 1, tied: bool = True, **sizes: int) -> Path:
    """Write a whole checkpoint of zeros: config, weights in `shards` files, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config(tied, **sizes)))
    (folder / "tokenizer.json").write_text("{}")
    shapes = tensor_shapes(tied, **sizes)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", shapes)
        return folder
    names, weight_map = list(shapes), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: shapes[name] for name in names[shard::shards]}
        write_safetensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


class Hub:
    """A Hub with repositories (id → folder); `gated` ids refuse, `pause` seconds pass between pieces of a file."""

    def __init__(self, repositories: dict[str, Path], gated: tuple[str, ...] = (), pause: float = 0.0) -> None:
        self.repositories, self.gated, self.pause = repositories, gated, pause
        self.break_after: int | None = None  # Bytes after which the next large file's connection breaks, once.
        self.sent_bytes = 0
        self.requests: list[str] = []


@contextmanager
def serve_hub(hub: Hub) -> Iterator[str]:
    """Serve it on a loopback port and give its address, for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            if name in hub.gated:
                return self.fail(403, "GatedRepo")
            if name not in hub.repositories:
                return self.fail(404, "RepoNotFound")
            folder = hub.repositories[name]
            if api:
                revision = parts[5] if len(parts) > 5 else "main"
                if revision not in ("main", COMMIT):
                    return self.fail(404, "RevisionNotFound")
                files = sorted(file for file in folder.iterdir() if file.is_file())
                if len(parts) > 4 and parts[4] == "tree":
                    return self.json(
                        [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in files]
                    )
                siblings = [{"rfilename": f.name, "size": f.stat().st_size} for f in files]
                return self.json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
            return self.file(folder / parts[4], body)

        def fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def file(self, file: Path, body: bool) -> None:
            if not file.is_file():
                return self.fail(404, "EntryNotFound")
            data, begin = file.read_bytes(), 0
            wanted = self.headers.get("Range", "")
            if wanted.startswith("bytes="):
                begin = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f'"{file.name}-{len(data)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            if body:
                self.pieces(data, begin)

        def pieces(self, data: bytes, begin: int) -> None:
            step = 1024 * 1024
            for place in range(begin, len(data), step):
                if hub.break_after is not None and place - begin >= hub.break_after:
                    hub.break_after = None
                    self.close_connection = True
                    self.connection.close()
                    return
                piece = data[place : place + step]
                self.wfile.write(piece)
                hub.sent_bytes += len(piece)
                time.sleep(hub.pause if len(data) > step else 0)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

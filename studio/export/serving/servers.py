"""What starts a server with what was exported: a command for this machine's own installation, and a compose file.

Flags and images are those of the servers' documentation and sources: vLLM 0.32, SGLang 0.5, TGI 3.3.7 (archived, so its
card stays), llama.cpp's server. All listen on this machine alone: none of them asks for a password.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from studio.jobs.store.files import write_atomic
from studio.models.catalog.hubaccess import is_hub_id

Server = Literal["vllm", "sglang", "tgi", "llama-server"]
TITLES: dict[Server, str] = {"vllm": "vLLM", "sglang": "SGLang", "tgi": "TGI", "llama-server": "llama.cpp's server"}
PORTS: dict[Server, int] = {"vllm": 8000, "sglang": 30000, "tgi": 8080, "llama-server": 8080}
IMAGES: dict[Server, str] = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "tgi": "ghcr.io/huggingface/text-generation-inference:3.3.7",
    "llama-server": "ghcr.io/ggml-org/llama.cpp:server",
}
# What the images start by themselves is not the same in all of their versions, so it is said; TGI's sets up more first.
PROGRAMS: dict[Server, list[str]] = {
    "vllm": ["vllm", "serve"],
    "sglang": ["python3", "-m", "sglang.launch_server"],
    "tgi": ["text-generation-launcher"],
    "llama-server": ["llama-server"],
}
SCRIPT, COMPOSE = "serve.sh", "compose.yaml"
# The values that vLLM takes for --max-lora-rank.
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Where the image of llama.cpp's server has its program.
_IN_IMAGE = "/app/llama-server"
_CACHE = "/root/.cache/huggingface"


@dataclass(frozen=True)
class Served:
    """What a server is told.

    Attributes:
        server: which one.
        name: under which clients ask for it.
        path: name of the checkpoint's folder, of the adapter's, or of the GGUF file, beside the script.
        base: Hub id or folder of the base model, for an adapter; "" for what is a whole model.
        dtype: precision of the arithmetic.
        context: maximum tokens of a conversation.
        rank: of the adapter; 0 without one.
        beside: names of the other files of a divided GGUF, which the server finds by the first one's name.
    """

    server: Server
    name: str
    path: str
    base: str
    dtype: str
    context: int
    rank: int = 0
    beside: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """What a client writes as "model"."""
        return f"{self.base}:{self.name}" if self.server == "sglang" and self.base else self.name


def arguments(served: Served, path: str, host: str, port: int) -> list[str]:
    """Return the server's arguments.

    Args:
        served: what it is told.
        path: of the folder or the file, as the server sees it.
        host: address to listen on.
        port: of it.
    """
    where, tokens = ["--host", host, "--port", str(port)], str(served.context)
    if served.server == "llama-server":
        return ["--model", path, "--alias", served.name, "--jinja", "--ctx-size", tokens, *where]
    if served.server == "vllm":
        told = ["--dtype", served.dtype, "--max-model-len", tokens, *where]
        if not served.base:
            return [path, "--served-model-name", served.name, *told]
        rank = next((rank for rank in VLLM_RANKS if rank >= served.rank), served.rank)
        lora = ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{served.name}={path}"]
        # The tokens, the template and what ends an answer are those of the training, not the base model's.
        return [served.base, "--tokenizer", path, "--generation-config", path, *lora, *told]
    if served.server == "sglang":
        told = ["--dtype", served.dtype, "--context-length", tokens, *where]
        if not served.base:
            return ["--model-path", path, "--served-model-name", served.name, *told]
        lora = ["--enable-lora", "--max-lora-rank", str(served.rank), "--lora-paths", f"{served.name}={path}"]
        return ["--model-path", served.base, "--tokenizer-path", path, *lora, *told]
    dtype = "float16" if served.dtype == "float32" else served.dtype
    told = ["--dtype", dtype, "--max-input-tokens", str(served.context - 1), "--max-total-tokens", tokens]
    listening = ["--hostname", host, "--port", str(port)]
    if not served.base:
        return ["--model-id", path, *told, *listening]
    lora = ["--lora-adapters", f"{served.name}={path}", "--tokenizer-config-path", f"{path}/tokenizer_config.json"]
    return ["--model-id", served.base, *lora, *told, *listening]


def script(served: Served) -> str:
    """Return the text of a shell script that starts the server; it works from wherever its folder lies."""
    listens = f"http://127.0.0.1:{PORTS[served.server]}/v1"
    command = shlex.join([*PROGRAMS[served.server], *arguments(served, f"./{served.path}", *_here(served))])
    return f"""#!/bin/sh
# {TITLES[served.server]} with {served.name}, on this machine alone: {listens}
cd "$(dirname "$0")" || exit 1
exec {command}
"""


def compose(served: Served) -> str:
    """Return the text of a compose file that starts the server in a container."""
    server, port, path = served.server, PORTS[served.server], f"/models/{served.path}"
    inside = 80 if server == "tgi" else port
    service: dict[str, Any] = {"image": IMAGES[server]}
    if server != "tgi":
        service["entrypoint"] = [_IN_IMAGE] if server == "llama-server" else PROGRAMS[server]
    service["command"] = arguments(served, path, "0.0.0.0", inside)
    service["ports"] = [f"127.0.0.1:{port}:{inside}"]
    service["volumes"] = [_mount(f"./{name}", f"/models/{name}") for name in (served.path, *served.beside)]
    if is_hub_id(served.base):
        # An empty volume of its own: what is downloaded stays.
        service["volumes"].append({"type": "volume", "source": "downloads", "target": _CACHE})
        service["environment"] = {"HF_HOME": _CACHE, "HF_TOKEN": _Raw("${HF_TOKEN:-}")}
    else:
        service["environment"] = {"HF_HUB_OFFLINE": "1"}
        if served.base:
            # Under its own name, by which the adapter calls it.
            service["volumes"].append(_mount(served.base, served.base))
    if server != "llama-server":
        service["ipc"] = "host"
        gpu = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [gpu]}}}
    # Otherwise all exports were one project, by the name of their folder.
    name = re.sub(r"[^a-z0-9_-]+", "-", f"{server}-{served.name.lower()}")
    document: dict[str, Any] = {"name": name, "services": {server: _quoted(service)}}
    if is_hub_id(served.base):
        document["volumes"] = {"downloads": {}}
    yaml, stream = YAML(), io.StringIO()
    yaml.width = 10_000
    yaml.dump(document, stream)
    return stream.getvalue()


def write_serving(folder: Path, served: Served, notes: list[str]) -> dict[str, Any]:
    """Write script and compose file, and return what the report says of them.

    Args:
        folder: where what is served lies.
        served: what the server is told.
        notes: sentences of what a person has to know.

    Returns:
        {"server": its title, "name": what clients ask for, "files", "commands": [{"what", "text"}], "notes"}.
    """
    write_atomic(folder / SCRIPT, script(served))
    (folder / SCRIPT).chmod(0o755)
    write_atomic(folder / COMPOSE, compose(served))
    asked = {"model": served.asked, "messages": [{"role": "user", "content": "Hello"}]}
    message = json.dumps(asked, ensure_ascii=False)
    url = f"http://127.0.0.1:{PORTS[served.server]}/v1/chat/completions"
    ask = shlex.join(["curl", url, "--header", "Content-Type: application/json", "--data", message])
    start = shlex.join(["sh", str(folder / SCRIPT)])
    contained = shlex.join(["docker", "compose", "--file", str(folder / COMPOSE), "up"])
    title = TITLES[served.server]
    return {
        "server": title,
        "name": served.asked,
        "files": [SCRIPT, COMPOSE],
        "commands": [
            {"what": f"Where {title} is installed", "text": start},
            {"what": "With Docker", "text": contained},
            {"what": "Ask it", "text": ask},
        ],
        "notes": notes,
    }


class _Raw(str):
    """A text in which compose's own variables are meant."""


def _here(served: Served) -> tuple[str, int]:
    return "127.0.0.1", PORTS[served.server]


def _mount(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def _quoted(value: Any) -> Any:
    """The same with every text in quotes, and without variables that compose would put in."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value if isinstance(value, _Raw) else value.replace("$", "$$"))
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    if isinstance(value, dict):
        return {key: _quoted(one) for key, one in value.items()}
    return value

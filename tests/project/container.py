"""Do the steps of the Dockerfile where no container runtime is.

    python3 tests/project/container.py Dockerfile . [TARGET]
For a fresh Debian root, as root (it installs, makes a user, writes /opt/studio and /data). Stages share that one root,
so what a stage lacks that an earlier one installed is not seen. Afterwards the image's command is started as its user.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "a password for the proof"


@dataclass
class Stage:
    """One `FROM … AS name`, with its instructions in order."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Image:
    """What the steps have set so far."""

    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    found: dict[str, Stage] = {}
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(None, map(str.strip, lines.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = re.split(r"\s+", rest)
            stage = found[name] = Stage(name, base)
        else:
            stage.steps.append((word, rest.strip()))
    return found


def kept(context: Path) -> Iterator[Path]:
    """The entries of the context that .dockerignore lets in; it forbids all and names what it allows."""
    lines = (context / ".dockerignore").read_text().splitlines()
    return (context / line[1:] for line in lines if line.startswith("!"))


def build(found: dict[str, Stage], name: str, context: Path, image: Image, done: set[str]) -> None:
    """Do the steps of a stage, after those of the stages that it comes from."""
    stage = found[name]
    if stage.base in found and stage.base not in done:
        build(found, stage.base, context, image, done)
    for word, rest in stage.steps:
        print(f"{name}: {word} {rest:.100}", flush=True)
        if word == "ENV":
            for part in shlex.split(rest):
                key, _, value = part.partition("=")
                image.env[key] = value.replace("$PATH", image.env.get("PATH", os.environ["PATH"]))
        elif word == "WORKDIR":
            image.folder = rest
            Path(rest).mkdir(parents=True, exist_ok=True)
        elif word == "RUN":
            subprocess.run(["sh", "-ec", rest], check=True, cwd=image.folder, env={**os.environ, **image.env})
        elif word == "COPY" and rest.startswith("--from="):
            other = rest.split()[0].removeprefix("--from=")
            if other not in done:
                build(found, other, context, Image(dict(image.env)), done)
        elif word == "COPY":
            for entry in kept(context):
                target = Path(image.folder) / entry.name
                if entry.is_dir():
                    shutil.copytree(entry, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(entry, target)
        elif word == "USER":
            image.user = rest
        elif word == "CMD":
            image.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            image.health = json.loads(rest[rest.index("[") :])
        elif word not in ("ARG", "VOLUME", "EXPOSE"):
            raise SystemExit(f"{word} is not known here")
    done.add(name)


def as_user(image: Image, command: list[str], **env: str) -> subprocess.Popen[str]:
    """Start a command as the image's user, with its environment and no other."""
    user = pwd.getpwuid(int(image.user))
    words = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
    path = f"{image.env['PATH']}:/usr/bin:/bin"
    return subprocess.Popen(
        words, cwd=image.folder, env={**image.env, "PATH": path, "HOME": user.pw_dir, **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def status(port: str) -> int:
    """What the page answers to who has no session; 0 while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def prove(image: Image) -> None:
    """Start what was built and see that it is what docs/docker.md says."""
    port = image.env["STUDIO_PORT"]
    refused = as_user(image, image.command)
    said, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2 and "STUDIO_PASSWORD" in said, said
    for visit in (1, 2):
        page = as_user(image, image.command, STUDIO_PASSWORD=PASSWORD)
        end = time.monotonic() + 120
        while not status(port) and time.monotonic() < end:
            assert page.poll() is None, page.communicate()[0]
            time.sleep(0.5)
        assert status(port) == 401
        assert as_user(image, image.health).wait(60) == 0
        writes = as_user(image, ["sh", "-c", "touch /opt/studio/x || touch /opt/studio/.venv/x; id -u; ls /data/note"])
        said, _ = writes.communicate(timeout=20)
        assert "Permission denied" in said and "\n1000\n" in said, said
        assert ("/data/note" in said.splitlines()) == (visit == 2), "what was made before is there"
        as_user(image, ["touch", "/data/note"]).wait(20)
        page.terminate()
        page.communicate(timeout=60)
    print("proven: password asked for, page, health, user, home", flush=True)


def main(arguments: list[str]) -> None:
    """Build the target and prove it."""
    dockerfile, context, target = Path(arguments[0]), Path(arguments[1]), (*arguments[2:], "cpu")[0]
    image = Image()
    build(stages(dockerfile.read_text()), target, context.resolve(), image, set())
    prove(image)


if __name__ == "__main__":
    main(sys.argv[1:])

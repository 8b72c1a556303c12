"""`studio chat`: one question to a run, a model or a GGUF file."""

from __future__ import annotations

from typing import Annotated

import typer

from studio.cli.output import answer, say, write
from studio.cli.work.train import Json
from studio.settings import read_settings


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("chat")(chat)


def chat(
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL|GGUF", help="The model that answers.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The prompt.")],
    system: Annotated[str, typer.Option("--system", help="System prompt.")] = "",
    temperature: Annotated[float, typer.Option("--temperature", help="Temperature; 0 is greedy decoding.")] = 0.0,
    model: Annotated[
        str | None, typer.Option("--model", help="base or tuned; step-N for a checkpoint at OpenAI.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Maximum number of new tokens.")] = 256,
    as_json: Json = False,
) -> None:
    """Ask a model one question and print its answer as it comes."""
    from studio.chat.ask import ask, resolve_target  # the client library is slow to import
    from studio.chat.manager import ChatManager

    def show(piece: str) -> None:
        if not as_json:
            write(piece)

    settings = read_settings()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    wanted = resolve_target(target, settings)
    say(f"loading {wanted.name} …")
    manager = ChatManager(settings)
    try:
        said = ask(manager, wanted, messages, model=model, on_text=show, temperature=temperature, max_tokens=max_tokens)
    finally:
        manager.close_all()
    if as_json:
        answer(True, said.as_dict(), "")
    else:
        write("\n")
        say(f"{said.model}: {said.stats.completion_tokens} tokens in {said.stats.seconds:.1f} s")

"""The child's folder, made complete: config, tokenizer and template of the first model, and a card.

mergekit writes the tokenizer in the form of transformers 5, which llama.cpp's converter misreads for some families; so
its files are kept only where it made a tokenizer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.escaping import for_markdown, quoted
from studio.export.gguf.checkpoint import read_object, write_object
from studio.merge.checks import template_of
from studio.merge.parents import Parent
from studio.merge.recipe import Recipe, SliceSource
from studio.merge.specials import Specials
from studio.models.inspect.tokenizerfiles import copy_tokenizer, write_template

CARD = """\
---
base_model: [{bases}]
base_model_relation: merge
library_name: {library}
pipeline_tag: text-generation
tags: [finetune-studio, merge]
---
# {name}

{what}

| model | what it was |
|---|---|
{rows}

```yaml
{recipe}
```

The licenses and limitations of these models apply. Made with Finetune Studio.
"""
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")


def complete(child: Path, first: Path, recipe: Recipe, dtype: str, tied: bool = True) -> None:
    """Give a merged model config, generation settings, tokenizer and template; ids of tokens are those of the child.

    Args:
        child: its folder, with the weights and what mergekit wrote beside them.
        first: folder of the first model, without code.
        recipe: by which it was made.
        dtype: of its weights.
        tied: whether the output head of every model is its embedding; one of its own is merged into the child's.
    """
    made = read_object(child / "config.json")
    config = read_object(first / "config.json")
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    if not tied:
        config["tie_word_embeddings"] = False
    if recipe.sliced:
        config |= _layers(recipe, config)
    template = template_of(child) if recipe.chat_template else None
    generation = first / "generation_config.json"
    generating = read_object(generation) if generation.is_file() else None
    if recipe.own_tokenizer:
        specials = Specials(first, child)
        config = specials.carried(config) | {"vocab_size": made["vocab_size"]}
        generating = specials.carried(generating) if generating is not None else None
    else:
        copy_tokenizer(first, child)
        if template is not None:
            write_template(template, child)
    write_object(child / "config.json", config)
    if generating is not None:
        write_object(child / generation.name, generating)


def _layers(recipe: Recipe, config: Mapping[str, Any]) -> dict[str, Any]:
    """How many layers the child has, and of which kind each is where the config says that."""
    ranges = [sources[0].layer_range for _, sources, _, _ in recipe.parts if isinstance(sources[0], SliceSource)]
    changed: dict[str, Any] = {key: sum(end - begin for begin, end in ranges) for key in _LAYERS if key in config}
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        changed["layer_types"] = [kind for begin, end in ranges for kind in kinds[begin:end]]
    return changed


def write_card(folder: Path, name: str, recipe: Recipe, text: str, parents: Sequence[Parent]) -> None:
    """Write README.md beside a child.

    Args:
        folder: of the child.
        name: of the job.
        recipe: by which it was made.
        text: the same as it was given.
        parents: its models.
    """
    method = recipe.method
    told = f"This model is {method.makes} ({method.title})." + (f" {method.note}." if method.note else "")
    rows = "\n".join(f"| {for_markdown(one.word)} | {for_markdown(one.id)} |" for one in parents)
    card = CARD.format(
        bases=", ".join(dict.fromkeys(quoted(one.base["name"]) for one in parents)),
        library="peft" if method.of_adapters else "transformers", name=for_markdown(name), what=told, rows=rows,
        recipe=text.strip().replace("```", "'''"),
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")

"""Whether models fit together, from configs, headers and tokenizer files alone: nothing is loaded.

What makes a merge impossible is refused with both values; what only makes it doubtful (templates, other settings of the
configs) is told. Each model is compared with the first one of the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import InputError, InputErrors
from studio.export.gguf.checkpoint import read_object
from studio.jobs.store.files import size_of
from studio.merge.adaptable import require_adapters, require_own_head
from studio.merge.parents import Parent
from studio.merge.recipe import WHERE, Recipe, SliceSource
from studio.models.inspect.headers import read_config, read_tensors
from studio.models.inspect.shape import ModelShape
from studio.models.inspect.tokenizerfiles import CONFIG, TEMPLATE
from studio.reach import read_text

_SHOWN = 3
_LARGE = 8 * 1024**2  # bytes of a tokenizer.json
_SIDES = {
    "hidden": "hidden size", "heads": "attention heads", "kv_heads": "key and value heads",
    "head_dim": "width of a head",
}  # fmt: skip
# Of no account to what the weights compute.
_HARMLESS = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures", "auto_map",
    "bos_token_id", "eos_token_id", "pad_token_id", "num_hidden_layers", "vocab_size", "layer_types", "model_type",
    "output_router_logits", "initializer_range", "attention_dropout", "is_llama_config", "rope_interleaved",
    "transformers.js_config", "unsloth_fixed", "unsloth_version", "pretraining_tp", "text_config", "vision_config",
    "rope_scaling", "tie_word_embeddings",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What is compared of a model.

    Attributes:
        name: for sentences.
        raw: its config.json.
        shape: sizes by its config and headers.
        sides: shape of each tensor by name.
        tokens: id by token, None where its tokenizer has no tokenizer.json.
        template: chat template, None for none.
    """

    name: str
    raw: dict[str, Any]
    shape: ModelShape
    sides: dict[str, tuple[int, ...]]
    tokens: dict[str, int] | None
    template: str | None

    @property
    def architecture(self) -> str:
        """Name of its class, or family."""
        names = self.raw.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else self.shape.family


def facts_of(parent: Parent, light: bool = False) -> Facts:
    """Read what is compared of a model.

    Args:
        parent: the model.
        light: leave out the tokens of a large tokenizer, which take 250 MB to read; the job compares them.

    Raises:
        InputError: its folder is not that of a whole model.
    """
    raw = read_config(parent.weights)
    tensors = read_tensors(parent.weights)
    tokens = None if light and _is_large(parent.tokenizer) else tokens_of(parent.tokenizer)
    shape = ModelShape.from_parts(raw, tensors, where=str(parent.weights))
    sides = {tensor.name: tensor.shape for tensor in tensors}
    return Facts(parent.name, raw, shape, sides, tokens, template_of(parent.tokenizer))


def _is_large(folder: Path) -> bool:
    return size_of(folder / "tokenizer.json") > _LARGE


def tokens_of(folder: Path) -> dict[str, int] | None:
    """Ids by token as a folder's tokenizer.json has them; None where it has none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    raw = read_object(file)
    try:
        vocabulary = raw["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of a token and its likelihood, in the order of the ids
            vocabulary = {str(pair[0]): number for number, pair in enumerate(vocabulary)}
        return {**vocabulary, **{one["content"]: one["id"] for one in raw.get("added_tokens") or []}}
    except (KeyError, TypeError, IndexError):
        return None


def template_of(folder: Path) -> str | None:
    """The chat template of a folder's tokenizer; None for none, or for several by name."""
    if (folder / TEMPLATE).is_file():
        return read_text(folder / TEMPLATE)
    found = read_object(folder / CONFIG).get("chat_template") if (folder / CONFIG).is_file() else None
    return found if isinstance(found, str) else None


def require_fit(recipe: Recipe, parents: Sequence[Parent], found: Sequence[Facts], where: str = WHERE) -> list[str]:
    """Refuse models that cannot be merged by this recipe.

    Args:
        recipe: that makes sense.
        parents: its models, in the order of its words.
        found: what is known of each.
        where: its file, for errors.

    Returns:
        what should be known of models that can.

    Raises:
        InputErrors: one sentence for each difference.
    """
    if recipe.method.of_adapters:
        require_adapters(recipe, parents, where)
        return []
    wrong = list(_layers(recipe, {word: facts for word, facts in zip(recipe.words, found, strict=True)}, where))
    for parent, facts in zip(parents, found, strict=True):
        wrong += require_own_head(parent, where) if facts.shape.tied else []
        wrong += _second_head(recipe, facts, where)
    first = found[0]
    for other in found[1:]:
        wrong += _differences(recipe, first, other, where)
    if wrong:
        raise InputErrors(wrong)
    texts = [] if recipe.chat_template else list(_templates(found, found[recipe.words.index(recipe.tokenizer_of)]))
    return texts + [text for other in found[1:] for text in _told(recipe, first, other)]


def _second_head(recipe: Recipe, facts: Facts, where: str) -> Iterator[InputError]:
    """Refuse a head that was saved beside the embedding that it is, where what is merged of each is drawn at random."""
    head = next((name for name in facts.sides if name.endswith("lm_head.weight")), "")
    if head and facts.shape.tied and recipe.merge_method.startswith(("dare", "della")):
        yield InputError(
            f"'{facts.name}' stores {head} beside the embedding, though its config.json makes one tensor of both: "
            f"{recipe.merge_method} would draw other changes for each",
            where=where,
            fix="Save the model again by save_pretrained of transformers, which stores it once, or take another method",
        )


def _differences(recipe: Recipe, first: Facts, other: Facts, where: str) -> Iterator[InputError]:
    fix = "Merge models of one architecture and size, such as runs of one base model"

    def differs(what: str, one: object, two: object, advice: str = fix) -> InputError:
        return InputError(f"{what}: {one} in '{first.name}', {two} in '{other.name}'", where=where, fix=advice)

    if first.architecture != other.architecture or first.shape.family != other.shape.family:
        one, two = first.architecture, other.architecture
        if one == two:
            one, two = first.shape.family, other.shape.family
        yield differs("the models have different architectures", one, two)
        return
    sides = [
        differs(f"different {title}", getattr(first.shape, key), getattr(other.shape, key))
        for key, title in _SIDES.items()
        if getattr(first.shape, key) != getattr(other.shape, key)
    ]
    if first.shape.layers != other.shape.layers and not recipe.sliced:
        advice = f"{fix}, or choose layers with slices"
        sides.append(differs("different numbers of layers", first.shape.layers, other.shape.layers, advice))
    if first.shape.tied != other.shape.tied and recipe.sliced:
        advice = "Choose layers of models that all have an output head of their own, or all have none"
        one, two = ("no" if each.shape.tied else "yes" for each in (first, other))
        sides.append(differs("an output head of its own", one, two, advice))
    if not recipe.own_tokenizer:
        advice = "Add 'tokenizer: {source: union}' to the recipe, or merge models with one vocabulary"
        if first.shape.vocab != other.shape.vocab:
            sides.append(differs("different vocabulary sizes", first.shape.vocab, other.shape.vocab, advice))
        elif moved := _moved(first.tokens, other.tokens):
            token, before, after = moved[0]
            count = f"{len(moved):,} tokens have" if len(moved) > 1 else "1 token has"
            sides.append(differs(f"{count} another id, such as {token!r:.60}", before, after, advice))
        elif taken := _taken(first.tokens, other.tokens):
            number, word, name = taken[0]
            count = f"{len(taken):,} ids are" if len(taken) > 1 else "1 id is"
            sides.append(
                differs(f"{count} of another token, such as {number}", repr(word)[:60], repr(name)[:60], advice)
            )
    yield from sides or _tensors(recipe, first, other, where, fix)


def _moved(one: dict[str, int] | None, other: dict[str, int] | None) -> list[tuple[str, int, int]]:
    """Tokens of both that have different ids."""
    if one is None or other is None or one == other:
        return []
    return [(token, number, other[token]) for token, number in one.items() if other.get(token, number) != number]


def _taken(one: dict[str, int] | None, other: dict[str, int] | None) -> list[tuple[int, str, str]]:
    """Ids that each gives to a token which the other does not have."""
    if one is None or other is None or one == other:
        return []
    named = {number: token for token, number in one.items()}
    return [
        (number, named[number], token) for token, number in other.items() if number in named and named[number] != token
    ]


def _tensors(recipe: Recipe, first: Facts, other: Facts, where: str, fix: str) -> Iterator[InputError]:
    """Tensors of one name with different shapes; the vocabulary's side may differ where mergekit changes it."""

    def side(shape: tuple[int, ...], vocab: int) -> tuple[int, ...]:
        return shape[1:] if recipe.own_tokenizer and shape[:1] == (vocab,) else shape

    unequal = [
        name
        for name in first.sides.keys() & other.sides.keys()
        if side(first.sides[name], first.shape.vocab) != side(other.sides[name], other.shape.vocab)
    ]
    if unequal:
        name = min(unequal)
        one, two = (" × ".join(map(str, each.sides[name])) for each in (first, other))
        yield InputError(
            f"{len(unequal)} of {len(first.sides)} tensors have different shapes, such as {name}: {one} in "
            f"'{first.name}', {two} in '{other.name}'",
            where=where, fix=fix,
        )  # fmt: skip


def _layers(recipe: Recipe, found: dict[str, Facts], where: str) -> Iterator[InputError]:
    for place, sources, _, _ in recipe.parts:
        for number, source in enumerate(sources):
            facts = found[source.model]
            if isinstance(source, SliceSource) and source.layer_range[1] > facts.shape.layers:
                yield InputError(
                    f"'{facts.name}' has {facts.shape.layers} layers, and the slice ends at {source.layer_range[1]}",
                    where=f"{where}: {place}.sources.{number}.layer_range",
                    fix=f"End it at {facts.shape.layers} at most",
                )


def _templates(found: Sequence[Facts], donor: Facts) -> Iterator[str]:
    one = f"'{donor.name}'"
    for other in found:
        two = f"'{other.name}'"
        if other.template != donor.template and donor.template:
            yield f"{one} and {two} have different chat templates; the child gets that of {one}"
        elif other.template != donor.template:
            yield f"{one} has no chat template, and {two} has one; 'chat_template: auto' gives it to the child"


def _told(recipe: Recipe, first: Facts, other: Facts) -> Iterator[str]:
    one, two = f"'{first.name}'", f"'{other.name}'"
    if not recipe.own_tokenizer and first.tokens is not None and other.tokens is not None:
        added = sorted(other.tokens.keys() - first.tokens.keys())
        if added:
            shown = ", ".join(repr(token)[:40] for token in added[:_SHOWN])
            yield f"the child's tokenizer is that of {one}, which lacks {len(added):,} tokens of {two} ({shown})"
    before, after = _settings(first.raw), _settings(other.raw)
    keys = sorted(key for key in before.keys() & after.keys() if before[key] != after[key])
    if keys:
        shown = ", ".join(f"{key} ({before[key]!s:.60} and {after[key]!s:.60})" for key in keys[:_SHOWN])
        yield f"config.json of {one} and {two} differ in {shown}; the child has the values of {one}"
    if first.shape.tied != other.shape.tied:
        yield f"{two if first.shape.tied else one} alone has an output head of its own; the child gets one, too"
    for name, lacking, having in ((two, other, first), (one, first, other)):
        missing = [tensor for tensor in having.sides.keys() - lacking.sides.keys() if "lm_head" not in tensor]
        if missing and not recipe.sliced:
            yield f"{name} lacks {len(missing)} tensors of '{having.name}', such as {min(missing)}"


def _settings(raw: dict[str, Any]) -> dict[str, Any]:
    """What a config says beside the sizes; rotary positions in one form, which transformers 5 writes otherwise."""
    text = raw.get("text_config")
    flat = {**raw, **text} if isinstance(text, dict) else dict(raw)
    rope = flat.pop("rope_parameters", None) or flat.pop("rope_scaling", None) or {}
    flat["rope_theta"] = flat.get("rope_theta") or rope.get("rope_theta")
    flat["rope_type"] = rope.get("rope_type", "default")
    return {key: value for key, value in flat.items() if key not in _HARMLESS and value is not None}

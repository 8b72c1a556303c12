"""A recipe: mergekit's YAML, read under limits, with every problem of its form as a sentence.

A model is a text: a run's name or id (with @STEP for one of its checkpoints), a folder, or a Hub id (with @REVISION).
What the values mean is for `rules`, what the models are for `parents`.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from studio.errors import InputError, InputErrors
from studio.foreign import read_yaml
from studio.merge.methods import METHODS, UNLOAD, MergeMethod

WHERE = "recipe"
_DTYPE = Literal["float32", "float16", "bfloat16"]
Values = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Source(_Part):
    """A model that goes into the merge, and its own parameters."""

    model: str = Field(min_length=1)
    parameters: Values = Field(default_factory=dict)


class SliceSource(Source):
    """Layers of a model, from the first up to but without the last, counted from 0."""

    layer_range: tuple[int, int]


class Slice(_Part):
    """Layers of the child, made of the same number of layers of each source."""

    sources: list[SliceSource] = Field(min_length=1)
    base_model: str | None = None
    parameters: Values = Field(default_factory=dict)


class Module(_Part):
    """A part of a model that has several, such as its text model."""

    models: list[Source] | None = Field(default=None, min_length=1)
    slices: list[Slice] | None = Field(default=None, min_length=1)
    parameters: Values = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> Module:
        if (self.models is None) == (self.slices is None):
            raise ValueError("give either models or slices")
        return self


class Embedding(_Part):
    """Where a token's row of the embedding comes from, and whether also for models that have the token."""

    source: str | Values | None = None
    force: bool = False


class Tokenizer(_Part):
    """The child's tokenizer: union, base, or that of a model; its tokens, and the rows that are added to them."""

    source: str = Field(default="union", min_length=1)
    tokens: dict[str, Embedding] | None = None
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class Recipe(_Part):
    """What is to be merged, and how.

    Attributes:
        merge_method: name of the method; empty for one model as it is.
        models, slices, modules: what goes in; exactly one of them.
        base_model: the model that others are compared with.
        dtype: in which numbers are computed; None: float32.
        out_dtype: in which they are written; None: `dtype`, and without one that of the first model.
        tokenizer_source, tokenizer, chat_template: as mergekit reads them; None: the tokenizer of the first model.
        parameters: of the whole merge, or of each model that has none of its own.
    """

    merge_method: str = ""
    models: list[Source] | None = Field(default=None, min_length=1)
    slices: list[Slice] | None = Field(default=None, min_length=1)
    modules: dict[str, Module] | None = Field(default=None, min_length=1)
    base_model: str | None = None
    dtype: _DTYPE | None = None
    out_dtype: _DTYPE | None = None
    tokenizer_source: str | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    parameters: Values = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> Recipe:
        forms = [name for name in ("models", "slices", "modules") if getattr(self, name) is not None]
        if len(forms) != 1:
            given = f"{' and '.join(forms)} are" if forms else "nothing is"
            raise ValueError(f"{given} given; exactly one of models, slices and modules is needed")
        if self.tokenizer_source and self.tokenizer:
            raise ValueError("give either tokenizer_source or tokenizer")
        return self

    @property
    def method(self) -> MergeMethod:
        """The method that is named, one of `METHODS`, or `UNLOAD` without a name."""
        return METHODS[self.merge_method] if self.merge_method else UNLOAD

    @property
    def parts(self) -> list[tuple[str, list[Source] | list[SliceSource], str | None, list[Values]]]:
        """What is merged with each other: where it stands, the models, their base, and parameters that hold for all.

        The parameters of the smallest part come first.
        """
        if self.modules is None:
            return list(_parts("", self.models, self.slices, self.base_model, [self.parameters]))
        found = []
        for name, one in self.modules.items():
            scopes = [one.parameters, self.parameters]
            found += list(_parts(f"modules.{name}.", one.models, one.slices, self.base_model, scopes))
        return found

    @property
    def words(self) -> list[str]:
        """Every model that is merged, once, in order; the base last."""
        named = [source.model for _, sources, _, _ in self.parts for source in sources]
        bases = [base for _, _, base, _ in self.parts if base] + ([self.base_model] if self.base_model else [])
        return list(dict.fromkeys([*named, *bases]))

    @property
    def sliced(self) -> bool:
        """Whether layers are chosen, so that the child may have more or fewer than its parents."""
        return any(isinstance(source, SliceSource) for _, sources, _, _ in self.parts for source in sources)

    @property
    def own_tokenizer(self) -> bool:
        """Whether mergekit makes the child's tokenizer and vocabulary, so that those of the parents may differ."""
        return bool(self.tokenizer_source or self.tokenizer)

    @property
    def tokenizer_of(self) -> str:
        """The model whose tokenizer the child's is made of, and whose chat template it gets."""
        source = self.tokenizer.source if self.tokenizer else self.tokenizer_source
        if source in self.words:
            return source
        return (self.base_model if source else None) or self.words[0]

    def renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The recipe as plain values with other names for its models; what was not given is left out.

        Args:
            names: by the name in the recipe; what is missing keeps its name.
        """
        values: dict[str, Any] = _renamed(self.model_dump(exclude_defaults=True, mode="json"), names)
        return values


def _parts(
    place: str, models: list[Source] | None, slices: list[Slice] | None, base: str | None, scopes: list[Values]
) -> Iterator[tuple[str, list[Source] | list[SliceSource], str | None, list[Values]]]:
    if models is not None:
        yield f"{place}models", models, base, scopes
    for at, one in enumerate(slices or []):
        yield f"{place}slices.{at}", one.sources, one.base_model or base, [one.parameters, *scopes]


def _renamed(value: Any, names: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _renamed(part, names, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names, key) for part in value]
    named = key in ("model", "base_model", "tokenizer_source", "source") and isinstance(value, str)
    return names.get(value, value) if named else value


_OWNERS: dict[str, type[BaseModel]] = {
    "models": Source, "sources": SliceSource, "slices": Slice, "modules": Module, "tokenizer": Tokenizer,
    "tokens": Embedding,
}  # fmt: skip


def read_recipe(text: str, where: str = WHERE) -> Recipe:
    """Read a recipe.

    Args:
        text: YAML.
        where: its file, for errors.

    Raises:
        InputErrors, InputError: it is no YAML, over a limit, or not a recipe; every problem of its form at once.
    """
    raw = read_yaml(text, where, "a recipe", "Give a recipe in mergekit's YAML")
    if not isinstance(raw, dict):
        raise InputError(
            "this is not a recipe", where=where, fix="Begin with merge_method and models, as docs/merge.md shows"
        )
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputErrors([_problem(item, where) for item in error.errors()[:20]]) from error
    if recipe.merge_method and recipe.merge_method not in METHODS:
        near = difflib.get_close_matches(recipe.merge_method, METHODS, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(METHODS)}"
        raise InputError(
            f"there is no merge method '{recipe.merge_method:.60}'", where=f"{where}: merge_method", fix=fix
        )
    return recipe


def write_recipe(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML."""
    yaml, stream = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def _problem(item: Any, where: str) -> InputError:
    path = [str(part) for part in item["loc"]]
    place = ".".join(path)
    at = f"{where}: {place}" if place else where
    if item["type"] == "extra_forbidden":
        owner = next((_OWNERS[part] for part in reversed(path[:-1]) if part in _OWNERS), Recipe)
        near = difflib.get_close_matches(path[-1], owner.model_fields, n=1, cutoff=0.5)
        fix = f"Did you mean '{near[0]}'?" if near else f"Known here: {', '.join(owner.model_fields)}"
        return InputError(f"a recipe has no '{path[-1]:.60}' there", where=at, fix=fix)
    message = str(item["msg"]).removeprefix("Value error, ")
    fix = ""
    if path and path[-1] in ("model", "base_model") and item["type"] == "string_type":
        message, fix = "a model's name must be text", "Write a run's name, a folder or a Hub id"
    elif item["type"] == "missing":
        message = f"'{path[-1]}' is missing"
    return InputError(f"{message[0].lower()}{message[1:]}", where=at, fix=fix)

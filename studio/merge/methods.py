"""The merge methods: what each does, how many models it takes, and its parameters.

Those of mergekit are copied from its registry, which a test compares with this table: importing mergekit imports torch,
and a recipe is to be refused before that. mergekit passes over a parameter that a method does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "flag"]
Base = Literal["required", "optional", "none"]
ADAPTERS = "adapter_"


@dataclass(frozen=True)
class Parameter:
    """A number or flag of a method.

    Attributes:
        name: as the recipe has it.
        kind: what it holds.
        each: whether every model has its own; otherwise one for the whole merge.
        required: whether the recipe must give it.
        low, high: bounds, both included; None for none.
    """

    name: str
    kind: Kind = "number"
    each: bool = False
    required: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MergeMethod:
    """A way to make one model out of several.

    Attributes:
        name: as `merge_method` has it.
        title: for people.
        makes: what the child is, as a clause.
        base: whether `base_model` is needed; none: the method knows no base, and would take it for one more model.
        least, most: models in all, the base included; None for no limit.
        others: how many besides the base, where the method says so: least and most, None for no limit.
        parameters: those it reads.
        usual: offered first; the others are behind Advanced.
        note: what a person should know before choosing it; "" for nothing.
    """

    name: str
    title: str
    makes: str
    base: Base = "none"
    least: int = 1
    most: int | None = None
    others: tuple[int, int | None] | None = None
    parameters: tuple[Parameter, ...] = ()
    usual: bool = False
    note: str = ""

    @property
    def of_adapters(self) -> bool:
        """Whether it combines adapters of one base model (PEFT) instead of whole models (mergekit)."""
        return self.name.startswith(ADAPTERS)

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of a name; None where there is none."""
        return next((one for one in self.parameters if one.name == name), None)


_WEIGHT = Parameter("weight", each=True, required=True)
_DENSITY = Parameter("density", each=True, low=0, high=1)
_NORMALIZE, _INT8 = Parameter("normalize", "flag"), Parameter("int8_mask", "flag")
_DELTAS = (_INT8, _NORMALIZE, Parameter("rescale", "flag"), Parameter("lambda"), _WEIGHT, _DENSITY)
_GAMMA, _EPSILON = Parameter("gamma", each=True, low=0, high=1), Parameter("epsilon", each=True, low=0, high=1)
_T = Parameter("t", required=True)


def _deltas(name: str, title: str, makes: str, *more: Parameter, usual: bool = False, note: str = "") -> MergeMethod:
    return MergeMethod(name, title, makes, "required", parameters=(*_DELTAS, *more), usual=usual, note=note)


def _adapters(name: str, title: str, makes: str, note: str, *more: Parameter) -> MergeMethod:
    return MergeMethod(f"{ADAPTERS}{name}", title, makes, least=2, parameters=(_WEIGHT, *more), note=note)


_AB = "An approximation: the matrices A and B are combined each for itself, and their product is not the sum"
_EXACT = "Exact: the weighted sum of the changes"
_SLOW = "Slow: a singular value decomposition of each layer"
_PRUNED = Parameter("density", required=True, low=0, high=1)

_ALL = (
    MergeMethod(
        "linear", "Linear", "the weighted mean of the models",
        parameters=(_WEIGHT, _NORMALIZE), usual=True,
    ),
    MergeMethod(
        "slerp", "SLERP", "a point on the arc between two models", "required", 2, 2, parameters=(_T,), usual=True,
    ),
    _deltas("task_arithmetic", "Task arithmetic", "the base model plus the weighted changes of the others", usual=True),
    _deltas(
        "ties", "TIES", "the base model plus the largest changes of the others, where most of them agree in sign",
        usual=True,
    ),
    _deltas(
        "dare_linear", "DARE", "the base model plus randomly kept changes of the others, scaled up", usual=True,
        note="mergekit scales what is kept by the ratio of the sums of magnitudes, which is about 1/density",
    ),
    _deltas(
        "dare_ties", "DARE TIES", "the same, where most of the models agree in sign", usual=True,
        note="mergekit scales what is kept by the ratio of the sums of magnitudes, which is about 1/density",
    ),
    _deltas("breadcrumbs", "Model Breadcrumbs", "task arithmetic without the largest and smallest changes", _GAMMA),
    _deltas("breadcrumbs_ties", "Model Breadcrumbs with TIES", "the same, where most models agree in sign", _GAMMA),
    _deltas("della", "DELLA", "TIES that keeps larger changes more often", _EPSILON),
    _deltas("della_linear", "Linear DELLA", "DARE that keeps larger changes more often", _EPSILON),
    MergeMethod(
        "model_stock", "Model Stock", "the base model and the mean of the others, mixed by the angle between them",
        "required", 3, parameters=(Parameter("filter_wise", "flag"),),
    ),
    MergeMethod(
        "nuslerp", "NuSLERP", "a point on the arc between two models, or between their changes to the base model",
        "optional", others=(2, 2),
        parameters=(_WEIGHT, Parameter("nuslerp_row_wise", "flag"), Parameter("nuslerp_flatten", "flag")),
    ),
    MergeMethod(
        "multislerp", "Multi-SLERP", "a weighted mean of several models on a sphere", "optional", others=(1, None),
        parameters=(_WEIGHT, Parameter("normalize_weights", "flag"), Parameter("eps", low=0)),
    ),
    MergeMethod(
        "karcher", "Karcher mean", "the mean of several models on a sphere",
        parameters=(Parameter("max_iter", "integer", low=1), Parameter("tol", low=0)),
    ),
    MergeMethod(
        "nearswap", "NearSwap", "the base model, drawn to another one where the two are near", "required", 2, 2,
        parameters=(_T,),
    ),
    MergeMethod("arcee_fusion", "Arcee Fusion", "the base model with the important changes of another one", "required",
                2, 2),
    MergeMethod(
        "sce", "SCE", "the base model plus the changes that vary most among the others", "required",
        parameters=(_INT8, Parameter("select_topk", low=0, high=1)),
    ),
    MergeMethod("ram", "RAM", "the base model plus changes, by whether one or several models made them", "required",
                parameters=(Parameter("epsilon", low=0),)),
    MergeMethod(
        "ramplus_tl", "RAM+", "the same, with changes of one model alone scaled up", "required",
        parameters=(Parameter("r"), Parameter("alpha"), Parameter("epsilon", low=0)),
    ),
    MergeMethod(
        "passthrough", "Passthrough", "layers as they are, for stacking slices", most=1,
        parameters=(Parameter("scale", each=True),),
    ),
    _adapters("cat", "Adapters, concatenated", "an adapter whose rank is the sum of theirs", _EXACT),
    _adapters("linear", "Adapters, linear", "an adapter of the same rank", _AB),
    _adapters("svd", "Adapters, SVD", "an adapter of the largest rank", _SLOW),
    _adapters("ties", "Adapters, TIES", "an adapter of the same rank", _AB, _PRUNED),
    _adapters("dare_linear", "Adapters, DARE", "an adapter of the same rank", _AB, _PRUNED),
    _adapters("dare_ties", "Adapters, DARE TIES", "an adapter of the same rank", _AB, _PRUNED),
    _adapters("magnitude_prune", "Adapters, pruned", "an adapter of the same rank", _AB, _PRUNED),
)  # fmt: skip
METHODS: dict[str, MergeMethod] = {one.name: one for one in _ALL}
# A recipe of one model and no method: the run's adapter is merged into its base model.
UNLOAD = MergeMethod("", "Merge and unload", "the model itself, its adapter merged into its base model", most=1)

"""What cannot work together, said before anything is loaded: method, tuning, model, data.

Each check is a function of what is known then; it raises one InputError with the option to change. Options that are
wrong by themselves are refused by the schema (`studio.config`).
"""

from __future__ import annotations

from studio.train.checks.adapter import ADAPTER_CHECKS
from studio.train.checks.architecture import ARCHITECTURE_CHECKS
from studio.train.checks.continued import CONTINUED_CHECKS
from studio.train.checks.known import Known, raise_all
from studio.train.checks.method import METHOD_CHECKS
from studio.train.checks.model import MODEL_CHECKS
from studio.train.checks.ranks import RANK_CHECKS
from studio.train.checks.tokens import TOKEN_CHECKS, require_rows
from studio.train.checks.watching import WATCHING_CHECKS
from studio.train.checks.weights import WEIGHT_CHECKS

__all__ = ["Known", "check_method", "check_model", "require_rows"]


def check_model(known: Known) -> None:
    """Refuse what the model cannot do; the data need not have been read.

    Raises:
        InputErrors: all that is wrong.
    """
    raise_all(
        known, (*ARCHITECTURE_CHECKS, *WEIGHT_CHECKS, *TOKEN_CHECKS, *MODEL_CHECKS, *ADAPTER_CHECKS, *CONTINUED_CHECKS)
    )


def check_method(known: Known) -> None:
    """Refuse what the method cannot do with these options and this data.

    Raises:
        InputErrors: all that is wrong.
    """
    raise_all(known, (*METHOD_CHECKS, *WATCHING_CHECKS, *RANK_CHECKS))

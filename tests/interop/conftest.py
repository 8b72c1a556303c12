"""What the tests of other tools' configs share: the embedded model's tokenizer, and a home that has the model."""

from tests.data.conftest import settings, tokenizer, write
from tests.parity.fixtures import tiny

__all__ = ["settings", "tiny", "tokenizer", "write"]

"""The scripts of the page share what they share: who makes elements, asks the studio, waits, and names states."""

from __future__ import annotations

import re

import pytest

from studio.settings import ASSETS

# A pattern, and the files in which it may stand. session.js is the sign-in page too, which has none of the others;
# refused.js looks at gradio's own requests.
ONCE = [
    (r"createElement(NS)?\(", {"elements.js", "session.js"}),
    (r"(?<![.\w])fetch\(", {"requests.js"}),
    (r"XMLHttpRequest", {"session.js"}),
    (r"window\.fetch\b", {"session.js", "refused.js"}),
    (r"/api/jobs/\$\{", {"requests.js"}),
    (r"[\"']visibilitychange", {"requests.js"}),
    (r"\b(completed|failed|lost): [\[{\"]", {"words.js"}),
]


@pytest.mark.parametrize(("pattern", "files"), ONCE)
def test_what_is_shared_stands_in_one_file(pattern: str, files: set[str]) -> None:
    found = {path.name for path in ASSETS.rglob("*.js") if re.search(pattern, path.read_text(encoding="utf-8"))}
    assert found == files

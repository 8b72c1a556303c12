"""The page that is sent on: everything in it, nothing loaded, and texts of others are texts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

from studio.export.origins.run import RunOrigin
from studio.export.proof.distance import SEEN_KL
from studio.export.reporting.facts import checks
from studio.export.reporting.page import NOT_COMPARED, NOT_NOTED, NOTHING_DIFFERS, report_page
from studio.jobs import JobFolder
from tests.ui.made_jobs import SCRIPT

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "dl", "dt", "dd", "div", "table",
    "thead", "tbody", "tr", "th", "td", "code", "span", "br", "small", "ul", "li", "p", "b", "article",
}  # fmt: skip


class Elements(HTMLParser):
    """Names of the elements, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")], (tag, attrs)

    def handle_data(self, data: str) -> None:
        self.said += data


def test_a_real_export_is_told_on_one_page(exported: JobFolder, report: dict[str, Any]) -> None:
    page = (exported.report / report["page"]).read_text()
    found = Elements(page)
    assert found.names <= ALLOWED and "http-equiv" in page and "default-src 'none'" in page
    for file in report["files"]:
        assert file["file"] in found.said and file["sha256"] in found.said
        for check in checks(file, report["trained"]):
            assert check.found in found.said and check.limit in found.said
            assert check.kept or check.what.startswith("Rows"), check
    assert f"{report['reference']['positions']} positions of its own rows" in found.said
    for name in ("llama-cpp-python", "transformers"):
        assert f"{name} {report['versions'][name]}" in found.said
    assert "one.jsonl" in page and str(exported.path.parent) not in page, "no folder of this machine is named"
    assert not (exported.exports / report["page"]).exists(), "it holds rows, and exports/ is what is uploaded"


def test_the_worst_of_a_real_export_stand_side_by_side(exported: JobFolder, report: dict[str, Any]) -> None:
    by_type = {file["type"]: file for file in report["files"]}
    places = by_type["q4_0"]["places"]
    assert len(places) == 8 and [one["kl"] for one in places] == sorted((one["kl"] for one in places), reverse=True)
    assert places[0]["kl"] > by_type["q4_0"]["p99_kl"] / 2 > 0
    assert all(one["kl"] < places[-1]["kl"] for one in by_type["f16"]["places"])
    assert any(one["trained"]["token"] != one["exported"]["token"] for one in places)
    assert all(0 < one["trained"]["other"] <= one["exported"]["probability"] <= 1 for one in places)
    page = Elements((exported.report / report["page"]).read_text()).said
    assert places[0]["context"].split()[-1] in page and "Next tokens, farthest apart first" in page
    rows = by_type["q4_0"]["rows"]
    assert rows["lost"] is None, "no evaluation of this run is known, so the trained model was asked"
    answered = {one["row"]: one for one in by_type["q4_0"]["exact_match"]["wrong"]}
    for row in rows["rows"]:
        assert row["exported"] == answered[row["row"]]["answer"].replace("\r", "") and row["trained"] in page
        assert row["expected"].startswith("{") and row["trained"] != row["exported"]
    assert [phase["code"] for phase in report["phases"] if phase["phase"] == "comparing answers"] == [0]


def test_texts_of_others_are_texts(exported: JobFolder, report: dict[str, Any]) -> None:
    said = f"{SCRIPT}\u202e&amp;\x1b[2J"
    file = json.loads(json.dumps(report["files"][-1]))
    place = file["places"][0]
    place |= {"context": said, "trained": place["trained"] | {"token": said}}
    place |= {"exported": place["exported"] | {"token": " \n"}}
    row = {"row": 1, "prompt": said, "expected": said, "trained": said, "exported": said}
    parted = {"prompt": said, "question": said, "nats": 0.1, "trained": said, "exported": said}
    file |= {
        "file": said, "verdict": said, "notes": [said], "rows": {"lost": 1, "gained": 0, "rows": [row]},
        "greedy": {"total": 8, "equal": 7, "unsure": 1, "parted": [parted]}, "sha256": said,
    }  # fmt: skip
    other = report | {"name": said, "base_model": said, "data": said, "files": [file], "to": said}
    other["reference"] = report["reference"] | {"notes": [said]}
    page = report_page(other, RunOrigin(exported), exported)
    found = Elements(page)
    assert found.names <= ALLOWED
    assert found.said.count("<script>window.pwned=1</script>") >= 15
    assert '<span class="token">␣↵</span>' in page
    assert not re.search("[\u202e\x1b]", page) and "&amp;amp;" in page


def test_a_file_that_could_not_be_compared_and_one_without_differences_say_so(
    exported: JobFolder, report: dict[str, Any]
) -> None:
    crashed = report["files"][0] | {
        "top1": None, "mean_kl": None, "places": [], "rows": None, "verdict": "differs", "file": "a", "greedy": None,
    }  # fmt: skip
    equal = report["files"][0] | {"places": [], "rows": {"lost": 0, "gained": 0, "rows": []}, "file": "b"}
    page = report_page(report | {"files": [crashed, equal]}, RunOrigin(exported), exported)
    assert '<span class="bad">differs</span> (1 of 2 files)</h1>' in page
    assert f"Largest differences: a</h2><p>{NOT_COMPARED}.</p>" in page
    assert (
        f"Largest differences: b</h2><p>{NOTHING_DIFFERS}.</p>" in page
        and f"{SEEN_KL:f}".rstrip("0") in NOTHING_DIFFERS
    )
    assert [one.kept for one in checks(crashed, None)][:2] == [False, False]


def test_a_report_of_an_older_version_is_shown_as_far_as_it_goes(exported: JobFolder) -> None:
    entry = {"file": "old", "verdict": "as trained", "notes": ["kept"], "top1": 1.0}
    page = report_page({"name": "old run", "files": [entry]}, RunOrigin(exported), exported)
    assert "Export of old run" in page and f"{NOT_NOTED}." in page and "Mean KL divergence" not in page

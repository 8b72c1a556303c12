"""The event log: what is written can be read, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from studio.jobs.store.events import EventWriter, read_events

JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(fields=st.dictionaries(st.sampled_from(["text", "name", "unit"]), JSON_TEXT), cuts=st.lists(st.integers(1, 400)))
def test_any_text_survives_and_any_page_size_gives_all(
    fields: dict[str, str], cuts: list[int], tmp_path_factory
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    path.touch()
    writer = EventWriter(path)
    for number in range(5):
        writer.write("notice", number=number, **fields)
    writer.close()
    seen, offset = [], 0
    for limit in [*cuts, 10**6]:
        events, offset = read_events(path, offset, limit)
        seen += events
    assert [event["number"] for event in seen] == list(range(5))
    assert all(event[key] == value for event in seen for key, value in fields.items())
    assert [event["seq"] for event in seen] == [1, 2, 3, 4, 5]


def test_half_a_line_is_not_read_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq": 1, "kind": "phase"}\n{"seq": 2, "ki')
    events, offset = read_events(path)
    assert [event["seq"] for event in events] == [1]
    with path.open("ab") as file:
        file.write(b'nd": "metric", "step": 1}\n')
    events, _ = read_events(path, offset)
    assert [event["seq"] for event in events] == [2]


def test_a_new_writer_goes_on_after_a_killed_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq": 7, "kind": "phase"}\n{"seq": 8, "ki')
    writer = EventWriter(path)
    writer.write("metric", step=3)
    events, _ = read_events(path)
    assert [event["kind"] for event in events] == ["phase", "notice", "metric"]
    assert events[-1]["seq"] == 8
    assert "unreadable" in events[1]["text"]


def test_an_offset_beyond_the_end_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"seq": 1, "kind": "done"}) + "\n")
    events, offset = read_events(path, 10**9)
    assert len(events) == 1
    assert offset == path.stat().st_size


def test_reading_costs_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    writer = EventWriter(path)
    for step in range(2000):
        writer.write("metric", step=step, values={"loss": 1.0})
    _, offset = read_events(path, 0, 10**9)
    writer.write("metric", step=2000, values={"loss": 1.0})
    events, after = read_events(path, offset)
    assert [event["step"] for event in events] == [2000]
    assert after - offset < 200


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == ([], 0)

"""Write the demo data of the methods that need more than answers: pairs, sums to be scored, plain text.

All from the lists below and one seed, so the files are the same bytes on every machine. Rows of a test file share
neither numbers nor names with those of training.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

SEED = 136
ROWS = {"train": 240, "test": 60}
TOWNS = {
    "train": [
        "Alder",
        "Brook",
        "Carrow",
        "Dunmore",
        "Elmsted",
        "Fenwick",
        "Garrow",
        "Holt",
        "Ilford",
        "Kelby",
        "Lowick",
        "Marden",
        "Norby",
        "Oakham",
    ],
    "test": ["Penrith", "Quarley", "Rowan", "Selby", "Thorpe", "Upwell"],
}
ASKED = {
    "distance": ["How far is {a} from {b}?", "What is the distance between {a} and {b}?", "{a} to {b}: how far?"],
    "time": ["When does the last train leave {a}?", "What time does the market in {a} close?"],
    "weight": ["How heavy is the parcel from {a}?", "What does the crate for {a} weigh?"],
    "heat": ["How warm will it be in {a} tomorrow?", "What is the temperature in {a} today?"],
}
PLACES = ["on the river {r}", "below the hill of {r}", "at the edge of the {r} woods", "by the lake {r}"]
TRADES = ["glass", "rope", "paper", "bells", "bread", "boats", "clocks", "wool", "honey", "ink"]
RIVERS = ["Tamble", "Orrin", "Wesk", "Lorne", "Brade", "Isk", "Callow", "Rhune"]


def pair(random_: random.Random, part: str) -> dict[str, object]:
    """A question with the same fact in two house styles: metric and 24 hours (better), or not (worse)."""
    kind = random_.choice(list(ASKED))
    a, b = random_.sample(TOWNS[part], 2)
    asked = random_.choice(ASKED[kind]).format(a=a, b=b)
    odd = 1 if part == "test" else 0  # numbers of the two files differ: one has odd ones, the other even
    if kind == "distance":
        miles = 2 * random_.randint(5, 90) + odd
        better, worse = f"It is {round(miles * 1.609)} kilometres.", f"It is {miles} miles."
    elif kind == "time":
        hour, minute = random_.randint(1, 11), random_.choice([5, 15, 25, 35, 45, 55] if odd else [10, 20, 30, 40, 50])
        better, worse = f"At {hour + 12}:{minute:02d}.", f"At {hour}:{minute:02d} p.m."
    elif kind == "weight":
        pounds = 2 * random_.randint(4, 60) + odd
        better, worse = f"It weighs {round(pounds * 0.4536, 1)} kilograms.", f"It weighs {pounds} pounds."
    else:
        heat = 2 * random_.randint(20, 45) + odd
        better, worse = f"{round((heat - 32) / 1.8)} degrees Celsius.", f"{heat} degrees Fahrenheit."
    return {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": [{"role": "assistant", "content": better}],
        "rejected": [{"role": "assistant", "content": worse}],
    }


def sum_(random_: random.Random, part: str) -> dict[str, object]:
    """A small sum to be answered with the number alone."""
    odd = 1 if part == "test" else 0
    a, b = 2 * random_.randint(0, 4) + odd, random_.randint(1, 9)
    form = random_.choice(["What is {a} + {b}?", "How much is {a} plus {b}?", "Add {a} and {b}."])
    text = f"{form.format(a=a, b=b)} Reply with the number only."
    return {"prompt": [{"role": "user", "content": text}], "answer": str(a + b)}


def text(random_: random.Random, part: str) -> dict[str, object]:
    """A short entry of a gazetteer of towns that do not exist, always in the same order."""
    town, river, trade = random_.choice(TOWNS[part]), random_.choice(RIVERS), random_.choice(TRADES)
    founded, people = random_.randint(900, 1850), random_.randint(3, 90) * 100
    place = random_.choice(PLACES).format(r=river)
    return {
        "text": f"{town.upper()}. Town {place}, founded in {founded}. Population {people:,}. "
        f"Known for its {trade}; market on {random_.choice(['Monday', 'Tuesday', 'Thursday', 'Saturday'])}s."
    }


def rows(make: object, part: str, random_: random.Random) -> list[dict[str, object]]:
    """Different rows of one kind and part; fewer than wanted where the lists hold no more."""
    found: dict[str, dict[str, object]] = {}
    for _ in range(200 * ROWS[part]):
        row = make(random_, part)  # type: ignore[operator]
        found.setdefault(json.dumps(row["prompt"] if "prompt" in row and "chosen" not in row else row), row)
        if len(found) == ROWS[part]:
            break
    return list(found.values())


def main(folder: Path) -> None:
    """Write the six files."""
    random_ = random.Random(SEED)
    for name, make in (("pairs", pair), ("sums", sum_), ("text", text)):
        for part in ROWS:
            lines = [json.dumps(row) for row in rows(make, part, random_)]
            (folder / f"{name}_{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).parent)

"""Write the demo data: short orders in plain English, and the JSON record a program wants from each.

All text comes from the lists below and one seed, so the files are the same bytes on every machine. No row of
test or validation comes close to one of training, and half of them name people and cities training never saw.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

SEED = 135
ROWS = {"test": 120, "validation": 40, "train": 840}
SYSTEM = "Order to JSON."
TOO_CLOSE = 0.6  # share of word pairs two messages of different files may have in common

# singular: plural, by category. The category is never written in a message.
ITEMS = {
    "furniture": "armchair:armchairs bookshelf:bookshelves sofa:sofas wardrobe:wardrobes "
    "coffee_table:coffee_tables bar_stool:bar_stools",
    "kitchen": "kettle:kettles teapot:teapots toaster:toasters frying_pan:frying_pans "
    "cutting_board:cutting_boards bread_knife:bread_knives",
    "garden": "rake:rakes wheelbarrow:wheelbarrows lawn_mower:lawn_mowers watering_can:watering_cans "
    "flower_pot:flower_pots hedge_trimmer:hedge_trimmers",
    "office": "stapler:staplers notebook:notebooks whiteboard:whiteboards ring_binder:ring_binders "
    "fountain_pen:fountain_pens desk_calendar:desk_calendars",
    "clothing": "hoodie:hoodies raincoat:raincoats sun_hat:sun_hats wool_scarf:wool_scarves "
    "leather_belt:leather_belts winter_coat:winter_coats",
    "toys": "puzzle:puzzles kite:kites teddy_bear:teddy_bears toy_train:toy_trains "
    "doll_house:doll_houses board_game:board_games",
    "tools": "hammer:hammers wrench:wrenches screwdriver:screwdrivers hand_saw:hand_saws "
    "tape_measure:tape_measures power_drill:power_drills",
    "sports": "football:footballs surfboard:surfboards yoga_mat:yoga_mats tennis_racket:tennis_rackets "
    "bike_helmet:bike_helmets golf_club:golf_clubs",
}


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


# Training knows these people and cities; every second row of validation and test is about others.
# The model's tokenizer writes each name in one or two pieces; so small a model, after so short a training,
# still misspells some of the rest ("Fararah" for Farah, "Bumbai" for Mumbai).
PEOPLE = words(
    """
    Abdul Adam Ahmed Alexander Ali Alice Amir Andre Andrew Angela Anita Ann Anna Anthony Arjun Arthur Ben
    Benjamin Camila Carla Carlos Charles Charlotte Chris Christine Claire Clara Daniel Diego Elizabeth Emil
    Emma Esther Fatima Francisco Frank Harald Henry Ines Ingrid Isaac Jack Jamal Jane Jean Jonas Joshua
    Judith Julia Keith Kenji Kim Layla Lee Leila Leo Liu Louis Lucas Luke Magnus Malik Marco Margaret Maria
    Marie Mei Michel Miguel Monica Neil Nicole Noah Olga Patrick Paul Peter Petra Philip Rebecca Roberto
    Ruby Sam Samir Samuel Sean Simon Stefan Stella Steven Stuart Susan Tamara Thomas Tim Timothy Tom Valeria
    Victor Wei William
    """
)
OTHER_PEOPLE = words(
    """
    Abigail Alan Anton Chandra Colin David Edward George Helen Joana Joseph Martin Matthew Melissa Michelle
    Naomi Pearl Robert Roger Teresa
    """
)
CITIES = words(
    """
    Accra Amsterdam Athens Austin Basel Beijing Belgrade Berlin Bern Bonn Boston Brussels Budapest Calcutta
    Calgary Cambridge Cardiff Chicago Columbus Damascus Delhi Denver Detroit Edinburgh Edmonton Frankfurt
    Geneva Genoa Glasgow Honolulu Jerusalem Leeds Leipzig London Madrid Malaga Manila Memphis Miami Milan
    Montreal Naples Newcastle Osaka Oslo Palermo Paris Perth Philadelphia Portland Quebec Richmond Rome
    Seattle Seoul Springfield Stockholm Tokyo Toronto Turin Utrecht Venice Verona Vienna
    """
)
OTHER_CITIES = words(
    """
    Algiers Melbourne Minneapolis Orlando Oxford Panama Porto Salzburg Singapore Valencia
    """
)

NUMBERS = words("zero one two three four five six seven eight nine ten eleven twelve")
AMOUNTS = {2: ["a pair of", "a couple of"], 6: ["half a dozen"], 12: ["a dozen"]}

# How the sentence that carries the order ends; nothing said about time means normal.
ENDINGS = {
    "low": [
        ", no rush.", ", no hurry at all.", ". Take your time.", ". It can wait.", ", whenever it suits you.",
        ". Any day this month is fine.", ". There is no hurry.", ", not urgent.",
    ],
    "normal": [
        ".", ".", ".", ".", ", please.", ". Thank you.", ". Thanks a lot!", ". Standard delivery is fine.",
    ],
    "high": [
        ", and it is urgent.", " as soon as possible.", ", right away please.", ". We need this today!",
        ". This cannot wait.", " by tomorrow morning.", ". Please hurry!", ", the sooner the better.",
    ],
}  # fmt: skip

# {order} is amount and item, {items} the plural, {count} the amount alone, {end} one of ENDINGS.
SHAPES = [
    "Hi, this is {person}. Please send {order} to {city}{end}",
    "{person} here. Could we get {order}? Our shop is in {city}{end}",
    "We need {order} in {city}{end} {person}",
    "Good morning, {city} is out of {items}. We want {count} more{end} {person}",
    "Order for {person}: {order}, to be shipped to {city}{end}",
    "Can you deliver {order} to {city}? It is for {person}{end}",
    "The {city} branch wants {order}{end} Ask for {person}.",
    "Hello! {person} from {city}. I would like {order}{end}",
    "I'm {person}, I live in {city} and I'm looking for {order}{end}",
    "My name is {person}. I want to buy {order} for our house in {city}{end}",
    "{order} to {city}, for {person}{end}",
    "Our shop in {city} has no {items} left, so add {count}{end} Best, {person}",
    "Dear team, {person} in {city} asked for {order}{end}",
    "{person} just moved to {city} and needs {order}{end}",
    "I spoke with {person}: {order}, going to {city}{end}",
    "Do you still have {items}? I'd take {count}{end} {person}, {city}",
    "A call from {city}: {person} is asking for {order}{end}",
    "Hey, it's {person} again. Same address in {city}, this time {order}{end}",
    "Please book {order} for {person} and deliver to {city}{end}",
    "New order! {order} for {person} in {city}{end}",
    "{city}, {order}{end} Signed, {person}",
    "Customer {person} would take {order} if you ship to {city}{end}",
    "About those {items}: make it {count} and send them to {city}{end} Regards, {person}",
    "In {city} we are waiting for {order}{end} Yours, {person}",
]


def amount(rng: random.Random, quantity: int, alone: bool) -> str:
    """The quantity as people write it: digits, a word, or a phrase such as "half a dozen"."""
    ways = [str(quantity)] * 2 + NUMBERS[quantity : quantity + 1] * 2
    if not alone:
        ways += AMOUNTS.get(quantity, [])
    return rng.choice(ways)


def draw(rng: random.Random, people: list[str], cities: list[str]) -> tuple[str, dict[str, str | int]]:
    """One message and its record."""
    category = rng.choice(list(ITEMS))
    item, plural = rng.choice(ITEMS[category].split()).replace("_", " ").split(":")
    quantity = rng.choice([1, 1, *range(1, 13), *range(2, 13), rng.randrange(13, 100)])
    urgency = rng.choice(["low", "normal", "normal", "high"])
    person, city = rng.choice(people), rng.choice(cities)
    order = f"{amount(rng, quantity, alone=False)} {plural if quantity > 1 else item}"
    if quantity == 1 and rng.random() < 0.5:
        order = f"{'an' if item[0] in 'aeiou' else 'a'} {item}"
    message = rng.choice(SHAPES).format(
        person=person, city=city, order=order, items=plural, count=amount(rng, quantity, alone=True),
        end=rng.choice(ENDINGS[urgency]),
    )  # fmt: skip
    message = message[0].upper() + message[1:]
    return message, {
        "customer": person, "item": item, "category": category,
        "quantity": quantity, "city": city, "urgency": urgency,
    }  # fmt: skip


def pairs(message: str) -> set[tuple[str, str]]:
    """The pairs of neighbouring words."""
    return set(itertools.pairwise(message.lower().split()))


def closeness(one: set[tuple[str, str]], other: set[tuple[str, str]]) -> float:
    """The share of word pairs that two messages have in common, 0 to 1."""
    return len(one & other) / len(one | other)


def make() -> dict[str, list[dict]]:
    """All rows, by file name. Test comes first, so the number of training rows does not change it."""
    files: dict[str, list[dict]] = {}
    elsewhere: list[set[tuple[str, str]]] = []
    orders: set[str] = set()
    for name, rows in ROWS.items():
        rng = random.Random(f"{SEED} {name}")
        files[name], here = [], []
        while len(files[name]) < rows:
            new = name != "train" and len(files[name]) % 2 == 0
            message, record = draw(rng, OTHER_PEOPLE if new else PEOPLE, OTHER_CITIES if new else CITIES)
            shape, answer = pairs(message), json.dumps(record, separators=(",", ":"))
            if answer in orders or any(closeness(shape, other) > TOO_CLOSE for other in elsewhere):
                continue
            orders.add(answer)
            here.append(shape)
            turns = [("system", SYSTEM), ("user", message), ("assistant", answer)]
            files[name].append({"messages": [{"role": role, "content": text} for role, text in turns]})
        elsewhere += here
    return files


def main(folder: Path = Path(__file__).parent) -> None:
    """Write the files."""
    for name, rows in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_bytes(text.encode())


if __name__ == "__main__":
    main()

"""Write the training data of the demo's adapters: messages to a shop, sorted by what they want.

Every sentence with every kind of item is drawn from the lists below, by a fixed seed. The demo's
questions (demo.jsonl) were written by hand with other items, other sentences and other orders.

    python examples/make_data.py
"""

import json
import random
from pathlib import Path

DATA = Path(__file__).parent / "data"
ROWS = {"train": 320, "valid": 16}

QUESTION = (
    'A customer wrote to our shop: "{message}" '
    "Name the item, the order number and the problem (broken, late, missing or wrong)."
)
ANSWER = "{item}, {order}, {problem}"

ITEMS = """
alarm clock, backpack, bath towel, bicycle bell, blanket, blender, bookshelf, camera, candle holder,
cheese grater, coffee grinder, cooking pot, cushion, desk, dinner plate, doormat, drill, fan,
flower pot, frying pan, garden chair, guitar, hair dryer, hammock, headphones, jacket, jigsaw,
keyboard, ladder, laptop bag, mirror, monitor, office chair, paint brush, pillow, printer, raincoat,
rucksack, saucepan, scarf, shower curtain, speaker, sweater, table lamp, tea pot, toolbox, trousers,
umbrella, vacuum cleaner, wall clock, water bottle, wine glass, wool hat, yoga mat
"""

SENTENCES = {
    "broken": [
        "The {item} from order {order} arrived broken.",
        "My {item} stopped working after one day. Order {order}.",
        "Order {order}: the {item} has a big crack in it.",
        "I unpacked the {item} and it was damaged. My order number is {order}.",
        "The {item} does not work at all, order number {order}.",
        "Order number {order}. The {item} came scratched and bent.",
        "One side of the {item} is torn. It was order {order}.",
        "I got the {item} today, but it fell apart at once. Order no. {order}.",
        "There is a hole in the {item} you sent, order {order}.",
        "The {item} in order {order} is defective, please replace it.",
        "Hello, the {item} is faulty and makes a strange noise (order {order}).",
        "In order {order} the {item} was smashed to pieces in the box.",
    ],
    "late": [
        "Where is my {item}? I placed order {order} three weeks ago.",
        "Order {order} has still not arrived. I am waiting for the {item}.",
        "The {item} should have been here on Monday. Order {order}.",
        "I am still waiting for the {item}, order number {order}.",
        "When will you deliver the {item}? My order is {order}.",
        "Order no. {order}: the delivery of the {item} is overdue.",
        "It has been a month and no {item} has come. Order {order}.",
        "You promised the {item} for last week. Order number {order}.",
        "Can you tell me why order {order} takes so long? It is a {item}.",
        "The {item} is delayed again, order {order}. How much longer?",
        "My {item} has been in transit for ten days, order {order}.",
        "Hello, the {item} of order {order} has not been delivered yet.",
    ],
    "missing": [
        "The parcel of order {order} came, but the {item} was not in it.",
        "I opened the box and there was no {item}. Order {order}.",
        "Order {order}: everything was there except the {item}.",
        "You forgot to pack the {item}. My order number is {order}.",
        "The {item} is missing from order {order}.",
        "My delivery was incomplete, the {item} was left out. Order {order}.",
        "I paid for a {item} too, but it was not in the package. Order no. {order}.",
        "Order number {order} came today without the {item}.",
        "Only half of order {order} was in the box: no {item}.",
        "The box of order {order} was empty, I found no {item} inside.",
        "I got all the other things of order {order}, but not the {item}.",
        "Hello, the {item} is on the bill of order {order} but not in the parcel.",
    ],
    "wrong": [
        "I ordered a {item}, but you sent me something else. Order {order}.",
        "The {item} from order {order} has the wrong colour.",
        "Order {order}: the {item} is the wrong size.",
        "You sent a different {item} from the one I chose. Order number {order}.",
        "This is not the {item} I asked for, order {order}.",
        "I wanted a red {item} and got a blue one. Order no. {order}.",
        "The {item} in order {order} is too small, I ordered the large one.",
        "Instead of my {item} I got a box of socks. Order {order}.",
        "Order number {order} was mixed up: this {item} belongs to someone else.",
        "The {item} is another model than in your picture. Order {order}.",
        "I chose the black {item}, you sent the white one, order {order}.",
        "Hello, for order {order} I received an incorrect {item}.",
    ],
}


def main() -> None:
    """Write train.jsonl and valid.jsonl in mlx-lm's prompt and completion form."""
    draw = random.Random(7)  # noqa: S311 - a fixed draw, nothing secret
    items = [item.strip() for item in ITEMS.replace("\n", " ").split(",")]
    for name, rows in ROWS.items():
        lines = []
        for number in range(rows):
            problem = list(SENTENCES)[number % len(SENTENCES)]
            item, order = draw.choice(items), str(draw.randrange(1000, 10000))
            message = draw.choice(SENTENCES[problem]).format(item=item, order=order)
            row = {
                "prompt": QUESTION.format(message=message),
                "completion": ANSWER.format(item=item, order=order, problem=problem),
            }
            lines.append(json.dumps(row) + "\n")
        (DATA / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ask an observation log for everyday things with words that differ from those of the captions.

    python -m benchmark.everyday

An entry "asked: said, said" has a word of a question and words of captions that it should find,
not only those that the rules find. Semicolons and new lines separate entries. Each caption is in a
log of its own. The rules of kosmos_ros.memory.meanings were chosen with CHOSEN. HELD_OUT was
written afterwards; only the pairs that CHOSEN has were removed from it. GROUPS is for wrong finds:
in one log with all its things, a question for one group must not find the things of another.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmark.report import Result, table
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import Query, recall
from kosmos_ros.memory.records import Observation
from kosmos_ros.memory.wordnet import WordNet

CHOSEN = {
    "synonyms": """
mug: cup; coffee mug: cup; couch: sofa; settee: sofa; television: tv; tv: television
telly: television; cellphone: cell phone; mobile phone: cell phone; phone: cell phone
smartphone: phone; mobile: cell phone; bike: bicycle; automobile: car; kid: child, boy
toddler: child; guy: man; lady: woman; person: man; people: men; human: person; puppy: dog
doggy: dog; kitty: cat; kitten: cat; trash can: garbage can; dustbin: trash can; bin: trash can
waste basket: trash can; notebook: laptop; computer: laptop; screen: monitor; display: monitor
monitor: screen; glasses: eyeglasses; spectacles: glasses; sneakers: shoes; trainers: sneakers
rug: carpet; mat: rug; plane: airplane; aeroplane: airplane; aircraft: airplane; lorry: truck
van: truck; motorbike: motorcycle; fridge: refrigerator; stove: oven; faucet: tap; tap: faucet
plant: flower; houseplant: potted plant; purse: handbag; bag: backpack; rucksack: backpack
knapsack: backpack; suitcase: luggage; luggage: suitcase; cap: hat; sweater: jumper
trousers: pants; pants: jeans; beverage: drink; donut: doughnut; doughnut: donut
burger: hamburger; cookie: biscuit; picture: painting; painting: picture; road: street
street: road; pavement: sidewalk; lawn: grass; house: building; building: house; boat: ship
ship: boat; parcel: package; package: box; container: box; cart: trolley; trolley: cart
stairs: staircase; stairway: stairs; lift: elevator; doorway: door; desk: table; table: desk
seat: chair; stool: chair; armchair: chair; light: lamp; lamp: light; flashlight: torch
spanner: wrench; pc: computer; remote: remote control; hydrant: fire hydrant
stoplight: traffic light; stop light: traffic light; cyclist: man riding a bicycle
infant: baby; baby: infant; crate: box; carton: box; pot: pan; jug: pitcher; dish: plate
plate: dish; bowl: dish; cupboard: cabinet; closet: wardrobe; pullover: sweater; jacket: coat
coat: jacket; vehicle: truck; animal: dog; fruit: banana; furniture: chair; food: pizza
tool: hammer; toy: teddy bear; teddy: teddy bear; skateboarder: man riding a skateboard
sofa: couch
""",
    "singular and plural": """
man: men, two men; woman: women; child: children; person: people, group of people, boy, worker
people: person, man, woman, crowd, two men; men: man; women: woman; children: child; mice: mouse
mouse: mice; knife: knives; knives: knife; shelf: shelves; leaf: leaves; foot: feet; feet: foot
goose: geese; shoe: shoes; dress: dresses; box: boxes; bus: buses; glass: glasses
policeman: police officer; firefighter: fireman; crowd: group of people; somebody: woman
anyone: girl
""",
    "kinds of things": """
furniture: table, chair, sofa, bench, desk, bed; container: glass, bottle, box, cup, basket, bowl
tool: saw, hammer, drill, screwdriver, wrench, shovel; vegetable: carrot, broccoli, tomato, potato
fruit: banana, apple, orange, strawberry
animal: chicken, dog, duck, sheep, cow, horse, elephant, giraffe, cat, bear
bird: duck, pigeon, parrot, eagle
vehicle: bus, car, truck, forklift, motorcycle, tractor, van, bicycle
food: pizza, sandwich, cake, bread, hot dog; drink: coffee, tea, beer, wine
clothing: shirt, coat, dress, trousers
person: girl, boy, man, woman, worker, child, baby, soldier, nurse, doctor, police officer, chef
person: cyclist, skier, surfer; plant: tree, flower, cactus, bush
building: house, church, skyscraper, barn; boat: canoe, sailboat; dog: poodle, dalmatian
weapon: knife, gun, sword; instrument: guitar, piano; computer: laptop
appliance: refrigerator, microwave, toaster; toy: teddy bear, doll; ball: football, basketball
bag: backpack, handbag; shoe: sneaker, boot, sandal; insect: bee, butterfly; fish: shark, goldfish
flower: rose, tulip; hat: cap, helmet
""",
}
HELD_OUT = {
    "synonyms": """
vacuum: vacuum cleaner; taxi: cab; cab: taxi; jeans: trousers; gown: dress; autobus: bus
coach: bus; streetcar: tram; jet: airplane; auto: car; hound: dog; rooster: chicken
hen: chicken; bunny: rabbit; tv set: television; billfold: wallet; wastebasket: trash can
mobile telephone: cell phone; loveseat: sofa; davenport: sofa
icebox: refrigerator; hamburger: burger; boulder: rock; stone: rock; ocean: sea; timber: wood
cop: police officer; physician: doctor; professor: teacher
bathtub: tub; commode: toilet; basin: sink; washer: washing machine; oven: stove; hog: pig
pony: horse; calf: cow; tin: can; tin can: can; carryall: bag; tote bag: bag
ladder: stepladder; mug: beer mug
""",
    "singular and plural": """
policewoman: policewomen; snowman: snowmen; tooth: teeth; loaf: loaves; bookshelf: bookshelves
wolf: wolves; scarf: scarves; lens: lenses; canvas: canvases; child: two children
salesperson: salespeople; fisherman: fishermen; ox: oxen; can: cans, can
person: two people, three women, children; animal: mice, geese; vehicle: buses
tool: knives; furniture: shelves; human: crowd; body part: feet
""",
    "kinds of things": """
animal: rabbit, squirrel, lion, zebra, pig, goat; bird: crow, owl, penguin, seagull
insect: ant, fly; vehicle: ambulance, scooter, train, taxi, wheelchair
furniture: shelf, stool, dresser, bookcase; container: jar, bucket, can, barrel, vase
tool: pliers, scissors, ladder, axe, rake; vegetable: cabbage, onion, pepper
fruit: grape, lemon, pear, pineapple; food: salad, soup, cheese, egg; drink: juice, milk, water
clothing: skirt, scarf, gloves
person: player, driver, pilot, waiter, farmer, student, teacher, mechanic, lady, gentleman
person: teenager; plant: fern, grass; building: hospital, garage, hut; weapon: rifle, bow
instrument: drum, violin, trumpet; appliance: dishwasher, stove; toy: kite
ball: tennis ball, baseball; bag: purse, briefcase; shoe: slipper; dog: beagle, puppy
cat: kitten; flower: daisy; tree: oak, palm tree, pine; machine: computer
structure: bridge, tower; device: camera, clock; seat: couch; barrier: fence; light: candle
""",
}
GROUPS = """
animal: chicken, dog, duck, sheep, cow, horse, elephant, giraffe, cat, bear, rabbit, squirrel, lion
animal: zebra, pig, goat, crow, owl, penguin, seagull, eagle, pigeon, mice
furniture: table, chair, sofa, bench, desk, bed, stool, dresser, bookcase, wardrobe
vehicle: car, truck, forklift, motorcycle, tractor, bicycle, ambulance, scooter, train, taxi
vehicle: bus, van; food: pizza, sandwich, cake, bread, apple, banana, orange, strawberry, carrot
food: broccoli, tomato, potato, salad, soup, cheese, grape, lemon, pear
clothing: shirt, coat, dress, trousers, skirt, scarf, hat, jacket, sweater, gloves, shoe
person: girl, boy, man, woman, worker, child, baby, soldier, nurse, doctor, police officer, chef
person: cyclist, skier, surfer, player, driver, pilot, waiter, farmer, student, teacher, mechanic
person: lady, two men, people, children
building: house, church, skyscraper, barn, hospital, garage, hut
tool: saw, hammer, drill, screwdriver, wrench, shovel, pliers, axe, rake
tree: oak, pine, maple, willow
other: letter, steel plate, computer mouse, phone charger, first aid kit, clock, flag
other: fish tank, washing machine, conveyor belt, trash can, gas tank, power outlet, hood, poster
other: license plate, stuffed animal, coffee maker, robot arm, orange cone, green backpack, ball
other: white wall, living room, ruler, window blind, football, bicycle bell, wheel, window, rope
"""
OTHER = "other"  # things of no group, for which no question asks


def pairs(text: str) -> list[tuple[str, str]]:
    """Return the (asked, said) pairs of a table."""
    found = []
    for line in text.replace("\n", ";").split(";"):
        asked, _, said = line.partition(":")
        found += [(asked.strip(), word.strip()) for word in said.split(",") if word.strip()]
    return found


def remember(file: Path, things: Iterable[str]) -> ObservationLog:
    """Write a log with one caption per thing, the stamps 0, 1 ... s, and open it."""
    with ObservationLog.open(file) as log:
        log.add(
            Observation(number * 10**9, "", f"A photo of {thing}.")
            for number, thing in enumerate(things)
        )
    return ObservationLog.read(file)


def missed(folder: Path, text: str, net: WordNet | None) -> list[str]:
    """Return the pairs of a table whose caption a question does not find, as "asked: said"."""
    missing = []
    for asked, said in pairs(text):
        file = folder / f"{said}.db"
        with ObservationLog.read(file) if file.exists() else remember(file, [said]) as log:
            if not recall(log, Query(f"where is a {asked}?"), net):
                missing.append(f"{asked}: {said}")
    return missing


def mistaken(folder: Path, net: WordNet | None) -> list[str]:
    """Return the things that a question for another group finds, as "asked: said"."""
    of = pairs(GROUPS)
    with remember(folder / "groups.db", (said for _, said in of)) as log:
        found = [
            (asked, *of[one.observation.stamp // 10**9])
            for asked in dict.fromkeys(group for group, _ in of if group != OTHER)
            for one in recall(log, Query(f"where is a {asked}?", limit=len(of)), net)
        ]
    return [f"{asked}: {said}" for asked, group, said in found if asked != group]


def measure(folder: Path, net: WordNet | None) -> Iterator[Result]:
    """Yield the shares of captions that are found, and of wrong finds. `net` None: no WordNet."""
    title = "WordNet" if net else "no WordNet"
    for name, tables in (("first list", CHOSEN), ("second list", HELD_OUT)):
        for kind, text in tables.items():
            missing = missed(folder, text, net)
            count = len(pairs(text))
            right = 100.0 * (1.0 - len(missing) / count)
            yield Result(f"{title}, {name}, {kind}: found, of {count}", right, "%")
            print(f"{title}, {name}, {kind}: missed: {'; '.join(missing)}", file=sys.stderr)
    wrong = mistaken(folder, net)
    of = pairs(GROUPS)
    groups = len(dict(of)) - 1
    count = sum(groups - (group != OTHER) for group, _ in of)
    share = 100.0 * len(wrong) / count
    yield Result(f"{title}: wrong finds, of {count}", share, "%")
    print(f"{title}: wrong finds: {'; '.join(wrong)}", file=sys.stderr)


def main() -> None:
    """Ask all questions, and print a table."""
    results: list[Result] = []
    for net in dict.fromkeys((None, wordnet.find())):
        with tempfile.TemporaryDirectory() as folder:
            results += measure(Path(folder), net)
    print(table(results))


if __name__ == "__main__":
    main()

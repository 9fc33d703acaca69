# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the memory: write a log of N drawn scenes, and ask it questions with known answers.

    python -m benchmark.memory 1000000 --file /tmp/memory.db

The captions are those that the training examples of the embedded model have. Needs neither ROS nor
torch. The paraphrases are words that people use for the colours and kinds of the scenes; they were
written down before the first measurement, and none was removed after it.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmark.report import Result, table
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import Query, Recollection, recall
from kosmos_ros.memory.recorder import thumbnail_of
from kosmos_ros.memory.records import Box, Observation, Phrase, Pose
from kosmos_ros.memory.wordnet import WordNet
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import COLOURS, KINDS, Scene, Shape, sample_scene
from training.language import brief_caption, detailed_caption
from training.relations import MARGIN, RELATIONS

QUESTIONS = 500  # of each kind: with an answer, and never seen
FIRST = 5  # results among which the right frame must be
WIDTH, HEIGHT = 640, 480  # pixels
DETAILED_SHARE = 0.3  # of the captions
POOL = 50_000  # different scenes; a larger log shows them again
START, PERIOD = 1_700_000_000 * 10**9, 10**9  # ns
CAMERAS = ("front", "left", "right", "rear")
BATCH = 1000  # observations in a transaction
AREA = 100.0  # m, side of the square that the robot moves in
THUMBNAILS = 1000

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby", "cherry", "vermilion"),
    "orange": ("tangerine", "amber", "apricot", "carrot", "pumpkin"),
    "yellow": ("golden", "lemon", "canary", "mustard", "sunny"),
    "green": ("emerald", "jade", "lime", "olive", "grass green"),
    "blue": ("azure", "navy", "cobalt", "sapphire", "royal blue"),
    "purple": ("violet", "lilac", "lavender", "mauve", "magenta"),
    "black": ("ebony", "jet", "jet black", "inky", "dark"),
    "white": ("ivory", "snow white", "milky", "pale", "snowy"),
    "circle": ("disc", "disk", "dot", "ball", "round shape"),
    "square": ("box", "block", "rectangle", "quadrilateral", "tile"),
    "triangle": ("pyramid", "wedge", "triangular shape", "cone", "delta"),
    "star": ("star shape", "pentagram", "asterisk", "sparkle", "five-pointed star"),
    "cross": ("plus", "plus sign", "crucifix", "cross shape", "x"),
    "ring": ("hoop", "loop", "doughnut", "donut", "annulus"),
}
ABSENT = (
    "zebra", "dog", "cat", "person", "woman", "cup", "coffee mug", "chair", "table", "sofa",
    "car", "bicycle", "traffic light", "fire hydrant", "elephant", "umbrella", "banana",
    "apple", "pizza", "laptop", "keyboard", "phone", "book", "bottle", "backpack", "door",
    "window", "tree", "flower", "house", "bird", "horse", "robot", "lamp", "key", "wallet",
    "shoe", "hat", "vehicle", "animal", "red car", "blue chair", "green apple", "black dog",
    "white cat", "yellow banana", "purple umbrella", "orange cat", "red fire hydrant",
    "pink circle", "brown square", "grey triangle", "turquoise ring", "hexagon", "red hexagon",
    "oval", "blue heart", "green arrow", "wooden box", "person with a red hat",
)  # fmt: skip
"""Things that no drawn scene has."""
UNPAIRED = 6  # pairs of a colour and a kind that no scene of the log has
UNRELATED = 40  # (thing, relation, thing) that no scene of the log has; it has each of the things
ASKED = {
    1: (
        "where did you last see the {}?",
        "{}",
        "when did you see a {}?",
        "have you seen a {} yet?",
    ),
    2: ("where are the {} and the {}?", "{}, {}", "where was the {} with a {}?"),
}
"""Wordings of a question by the number of things; of a relation: RELATED."""
RELATED = ("where did you see the {} {relation} the {}?", "a {} {relation} a {}")
WORDINGS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}

Thing = tuple[str, str]  # colour and kind


@dataclass(frozen=True)
class Asked:
    """A question in words, and what it means."""

    query: Query
    things: tuple[Thing, ...]
    relation: str = ""  # of the first thing to the second
    target: int | None = None  # number of the right frame; None: never seen
    words: tuple[str, ...] = ()  # paraphrases that were used


class Frames:
    """The drawn scenes of a log: which frame shows which, where and when."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        things = [(colour, kind) for colour in COLOURS for kind in KINDS]
        order = [things[at] for at in self.rng.permutation(len(things))]
        self.unpaired, self.paired = order[:UNPAIRED], order[UNPAIRED:]
        self.unrelated = set(self._unrelated())
        self.scenes = self._scenes(min(count, POOL))
        self.at = self.rng.integers(len(self.scenes), size=count)
        self.camera = self.rng.integers(len(CAMERAS), size=count)
        steps = self.rng.normal(0.0, 0.3, (count, 2)).cumsum(axis=0)  # m, a random walk
        self.place = np.abs((steps + AREA) % (2.0 * AREA) - AREA)  # reflected at the walls

    def __len__(self) -> int:
        return len(self.at)

    def _unrelated(self) -> Iterator[tuple[Thing, str, Thing]]:
        for _ in range(UNRELATED):
            first, second = self.rng.choice(len(self.paired), 2, replace=False)
            relation = str(self.rng.choice(list(RELATIONS)))
            yield self.paired[first], relation, self.paired[second]

    def _scenes(self, count: int) -> list[Scene]:
        scenes: list[Scene] = []
        while len(scenes) < count:
            scene = sample_scene(self.rng, WIDTH, HEIGHT)
            shown = things_of(scene)
            if not shown.keys() & set(self.unpaired) and not any(
                holds(shown, *each, least=-MARGIN) for each in self.unrelated
            ):
                scenes.append(scene)
        return scenes

    def scene(self, frame: int) -> Scene:
        """Return the scene of a frame."""
        return self.scenes[self.at[frame]]

    def stamp(self, frame: int) -> int:
        """Return the stamp of a frame in ns."""
        return START + frame * PERIOD

    def observation(self, frame: int) -> Observation:
        """Return what the log says about a frame."""
        scene, (x, y) = self.scene(frame), self.place[frame]
        detailed = self.at[frame] % 100 < 100 * DETAILED_SHARE
        example = (detailed_caption if detailed else brief_caption)(scene, self.rng, True)
        raw = example.prompt + example.answer
        lead = "" if detailed else "An image of"
        scores = self.rng.uniform(0.5, 1.0, example.answer.count("<patch_index_")).tolist()
        caption, phrases = grounding.parse(lead + example.answer, scores)
        return Observation(
            stamp=self.stamp(frame),
            camera=CAMERAS[self.camera[frame]],
            caption=caption,
            task="detailed_caption" if detailed else "brief_caption",
            phrases=tuple(
                Phrase(phrase.text, phrase.start, phrase.end, tuple(map(_pixels, phrase.boxes)))
                for phrase in phrases
            ),
            raw_text=raw,
            score=float(self.rng.uniform(0.6, 1.0)),
            frame_id=f"{CAMERAS[self.camera[frame]]}_optical_frame",
            width=WIDTH,
            height=HEIGHT,
            model="shapes",
            pose=Pose("map", float(x), float(y)),
        )

    def fits(self, frame: int, asked: Asked) -> bool:
        """Return whether the drawn scene of a frame is what a question means."""
        shown = things_of(self.scene(frame))
        query = asked.query
        if not all(thing in shown for thing in asked.things):
            return False
        if query.camera is not None and CAMERAS[self.camera[frame]] != query.camera:
            return False
        if query.near is not None:
            x, y, radius = query.near
            if np.hypot(*(self.place[frame] - (x, y))) > radius:
                return False
        return not asked.relation or holds(shown, asked.things[0], asked.relation, asked.things[1])


def things_of(scene: Scene) -> dict[Thing, Shape]:
    """Return the shapes of a scene by colour and kind."""
    return {(shape.colour, shape.kind): shape for shape in scene.shapes}


def holds(
    shown: dict[Thing, Shape], first: Thing, relation: str, second: Thing, least: float = MARGIN
) -> bool:
    """Return whether one thing is clearly in this relation to another, by their boxes' centres."""
    return (
        first in shown
        and second in shown
        and _distance(shown[first], relation, shown[second]) > least
    )


def _distance(first: Shape, relation: str, second: Shape) -> float:
    axis, sign = RELATIONS[relation]
    centres = [(shape.box[axis] + shape.box[axis + 2]) / 2.0 for shape in (first, second)]
    return sign * (centres[0] - centres[1])


def _pixels(box: grounding.Box) -> Box:
    return Box(**vars(box.scaled(WIDTH, HEIGHT)))


# Questions -------------------------------------------------------------------------------------


def answered(frames: Frames, rng: np.random.Generator, share: float) -> Iterator[Asked]:
    """Yield questions that have an answer, each with the newest frame that fits.

    A word is replaced by a paraphrase with probability `share`.
    """
    while True:
        frame = int(rng.integers(len(frames)))
        scene = frames.scene(frame)
        shapes = [scene.shapes[at] for at in rng.permutation(len(scene.shapes))[:2]]
        relation = ""
        if len(shapes) == 2 and rng.random() < 0.5:
            clear = [each for each in RELATIONS if _distance(shapes[0], each, shapes[1]) > MARGIN]
            relation = str(rng.choice(clear)) if clear else ""
        elif rng.random() < 0.5:
            shapes = shapes[:1]
        things = tuple((shape.colour, shape.kind) for shape in shapes)
        text, words = phrased(things, relation, rng, share)
        newest = min(frame + int(rng.integers(200)), len(frames) - 1)
        kind = rng.random()
        camera = CAMERAS[frames.camera[frame]] if kind < 0.2 else None
        x, y = (round(float(at + rng.uniform(-1.0, 1.0)), 1) for at in frames.place[frame])
        near = (x, y, 3.0) if 0.2 <= kind < 0.4 else None
        query = Query(text, camera, until=frames.stamp(newest), near=near, last=True, limit=FIRST)
        asked = Asked(query, things, relation, words=words)
        target = next(each for each in range(newest, -1, -1) if frames.fits(each, asked))
        yield Asked(query, things, relation, target, words)


def never(frames: Frames, rng: np.random.Generator, share: float) -> Iterator[Asked]:
    """Yield questions about what no frame shows: pairs, relations and things, in turn."""
    unrelated = sorted(frames.unrelated)
    while True:
        one = frames.unpaired[int(rng.integers(UNPAIRED))]
        first, relation, second = unrelated[int(rng.integers(len(unrelated)))]
        for things, related in (((one,), ""), ((first, second), relation)):
            text, words = phrased(things, related, rng, share)
            yield Asked(Query(text, limit=FIRST), things, related, words=words)
        text = ASKED[1][int(rng.integers(4))].format(ABSENT[int(rng.integers(len(ABSENT)))])
        yield Asked(Query(_with_articles(text), limit=FIRST), ())


def phrased(
    things: Sequence[Thing], relation: str, rng: np.random.Generator, share: float
) -> tuple[str, tuple[str, ...]]:
    """Return a question about things, and the paraphrases in it."""
    used: list[str] = []

    def word(plain: str) -> str:
        if rng.random() >= share:
            return plain
        used.append(str(rng.choice(PARAPHRASES[plain])))
        return used[-1]

    names = [" ".join(map(word, thing)) for thing in things]
    wordings = RELATED if relation else ASKED[len(things)]
    wording = wordings[int(rng.integers(len(wordings)))]
    related = str(rng.choice(WORDINGS[relation])) if relation else ""
    return _with_articles(wording.format(*names, relation=related)), tuple(used)


def _with_articles(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


# Measurements ----------------------------------------------------------------------------------


def write(frames: Frames, file: Path) -> None:
    """Write the log of all frames, without thumbnails."""
    with ObservationLog.open(file) as log:
        for start in tqdm(range(0, len(frames), BATCH), unit_scale=BATCH, unit="frames"):
            end = min(start + BATCH, len(frames))
            log.add([frames.observation(frame) for frame in range(start, end)])


def measure(log: ObservationLog, frames: Frames, net: WordNet | None) -> Iterator[Result]:
    """Ask both kinds of questions, and yield the shares of right answers and the times."""
    known = understood(log, net, frames.paired)
    name = "WordNet" if net else "no WordNet"
    words = [word for several in PARAPHRASES.values() for word in several]
    yield Result(f"{name}: paraphrases understood", 100.0 * len(known) / len(words), "%")
    print(
        f"{name}: not understood: {', '.join(w for w in words if w not in known)}", file=sys.stderr
    )
    times: list[float] = []
    for title, share in (("the captions' own words", 0.0), ("half of the words paraphrased", 0.5)):
        rng = np.random.default_rng(2)
        asked = list(itertools.islice(answered(frames, rng, share), QUESTIONS))
        found = [_numbers(_timed(log, each.query, net, times)) for each in asked]
        right = [each.target in numbers for each, numbers in zip(asked, found, strict=True)]
        yield Result(f"{name}, {title}: right frame among {FIRST}", 100.0 * np.mean(right), "%")
        if share:
            sure = [
                ok for ok, each in zip(right, asked, strict=True) if known.issuperset(each.words)
            ]
            title_of_sure = f"{name}, the {len(sure)} questions whose words are all understood"
            yield Result(f"{title_of_sure}: right frame among {FIRST}", 100.0 * np.mean(sure), "%")
        fits = [
            frames.fits(number, each)
            for each, numbers in zip(asked, found, strict=True)
            for number in numbers
        ]
        yield Result(f"{name}, {title}: results that fit", 100.0 * np.mean(fits), "%")
        absent = list(itertools.islice(never(frames, rng, share), QUESTIONS))
        seen = [each.query.text for each in absent if _timed(log, each.query, net, times)]
        yield Result(f"{name}, {title}: never seen", 100.0 * (1.0 - len(seen) / QUESTIONS), "%")
        print(
            f"{name}: found though never seen: {'; '.join(dict.fromkeys(seen))}", file=sys.stderr
        )
    for part in (50, 95, 100):
        text = f"{name}: time of a question, {'longest' if part == 100 else f'p{part}'}"
        yield Result(text, 1e3 * float(np.percentile(times, part)), "ms")


def understood(log: ObservationLog, net: WordNet | None, paired: Sequence[Thing]) -> set[str]:
    """Return the paraphrases with which recall finds what they stand for, and nothing else.

    A question names a colour together with a kind that every log has in this colour.
    """
    found = set()
    for plain, words in PARAPHRASES.items():
        kind = next((each for colour, each in paired if colour == plain), "")
        for word in words:
            results = recall(log, Query(f"{word} {kind}", last=True), net)
            expected = f"{plain} {kind}".strip()
            if results and all(expected in result.observation.caption for result in results):
                found.add(word)
    return found


def _numbers(found: Sequence[Recollection]) -> list[int]:
    """Return the numbers of the frames that were found."""
    return [(each.observation.stamp - START) // PERIOD for each in found]


def _timed(
    log: ObservationLog, query: Query, net: WordNet | None, times: list[float]
) -> list[Recollection]:
    begun = time.perf_counter()
    found = recall(log, query, net)
    times.append(time.perf_counter() - begun)
    return found


def sizes(log: ObservationLog, frames: Frames) -> Iterator[Result]:
    """Yield the size of the file and of the thumbnails of drawn scenes, per observation."""
    plain = log.file_bytes / len(frames)
    some = frames.scenes[:THUMBNAILS]
    webp = sum(len(thumbnail_of(render(scene))) for scene in some) / len(some)
    yield Result("observation", plain, "bytes")
    yield Result("observation with its thumbnail", plain + webp, "bytes")


def main() -> None:
    """Write a log, ask it, and print a table."""
    parser = argparse.ArgumentParser(prog="benchmark.memory", description=__doc__)
    parser.add_argument("observations", type=int, metavar="N", help="number of observations")
    parser.add_argument(
        "--file",
        type=Path,
        help="keep the log in this file, or use an existing log of N observations",
    )
    options = parser.parse_args()
    frames = Frames(options.observations)
    with tempfile.TemporaryDirectory() as folder:
        file = options.file or Path(folder) / "memory.db"
        results = []
        if not file.exists():
            begun = time.perf_counter()
            write(frames, file)
            rate = options.observations / (time.perf_counter() - begun)
            results.append(Result("drawing, captioning and writing", rate, "observations/s"))
        with ObservationLog.read(file) as log:
            results += sizes(log, frames)
            for net in dict.fromkeys((None, wordnet.find())):
                results += measure(log, frames, net)
    print(table(results))


if __name__ == "__main__":
    main()

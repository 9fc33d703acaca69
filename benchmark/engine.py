# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compare the engine with Hugging Face's generate, on the same weights and frames."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch

from benchmark import captions, subjects
from benchmark.captions import BRIEF, DETAILED
from benchmark.report import ARITHMETIC, BANDWIDTH, GENERATE, Result
from benchmark.subjects import Subject, frames
from kosmos_ros.kosmos2 import compat, kernels, loading, prompts
from kosmos_ros.kosmos2.answers import Answer
from kosmos_ros.kosmos2.decoder import EncodedImage, NewRow
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.query import Earlier, Query

TOKENS = 40  # of a caption
EARLIER = 60  # captions of other scenes that the engine has learned
SHORT_TOKENS = 8  # of a shorter caption; the difference gives the time of a token
CAMERAS = (1, 2, 4, 8, 16)
PHRASES = (1, 10, 50)
CLOSE_ROWS = (1, 8)  # of steps whose tokens are compared with those in float32
Writing = Callable[[int], Callable[[int], object]]
"""Number of tokens -> a call that writes them; its argument is the number of the run."""

RESET_PEAK = Path("/proc/self/clear_refs")  # writing 5 resets the peak of the memory
PRODUCT_SIZE = 2048  # rows and columns of the product that shows the speed of arithmetic
BANDWIDTH_BYTES = 2**30  # of the array that is read; larger than any cache


def latency(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure the time from a frame to a caption of 40 tokens, and to its first token.

    Each frame shows a new scene. On a CPU, captions are also measured with n-grams that the engine
    has learned from captions of other scenes, and random weights are made to write the captions of
    the embedded model, because the text decides how well such drafts work.
    """
    fixed = subject.engine._decoder.graphs.fixed  # as on a GPU, where there are no n-grams
    scenes = captions.described(runs + 1, TOKENS, 0 if fixed else EARLIER)
    known, scenes = scenes[: -runs - 1], scenes[-runs - 1 :]

    def write(run: int, tokens: int, by: Callable[..., object]) -> None:
        if subject.script:
            subject.script.ids = scenes[run].ids
        by(scenes[run].frame, DETAILED, tokens)

    def mine(run: int, tokens: int = TOKENS) -> None:
        write(run, tokens, subject.ours)

    def other(run: int, tokens: int = TOKENS) -> None:
        write(run, tokens, subject.theirs)

    learned = captions.Learning(subject.engine, [scene.ids for scene in known])

    def drafted(run: int) -> None:
        with learned:
            mine(run)

    ours, theirs, *with_ngrams = measured(
        subject, runs, mine, other, *([] if fixed else [drafted])
    )
    first = measured(subject, runs, lambda run: mine(run, 1), lambda run: other(run, 1))
    if subject.script:
        subject.script.ids = ()
    name = f"{subject.name}: image to {TOKENS}-token caption"
    for part in (50, 95):
        against = GENERATE, percentile(theirs, part)
        yield Result(f"{name}, p{part}", percentile(ours, part), "ms", *against)
    for times in with_ngrams:
        for title, plain in ((GENERATE, theirs), ("without n-grams", ours)):
            against = title, percentile(plain, 50)
            yield Result(f"{name} with n-grams, p50", percentile(times, 50), "ms", *against)
    ours, theirs = first
    name = f"{subject.name}: image to first token, p50"
    yield Result(name, percentile(ours, 50), "ms", GENERATE, percentile(theirs, 50))


def peer(runs: int, subject: Subject) -> Iterator[Result]:
    """Compare the latency of a caption with that of the smallest Florence-2.

    Yields nothing if transformers has no Florence-2.
    """
    if not subjects.FLORENCE_2:
        return
    (frame,) = frames(1)
    florence = subjects.florence(subject.model.device, subject.model.dtype)
    ours, theirs = measured(
        subject,
        runs,
        lambda _: subject.ours(frame, DETAILED, TOKENS),
        lambda _: florence(TOKENS),
    )
    name = f"{subject.name}: image to {TOKENS}-token caption, p50"
    yield Result(name, percentile(ours, 50), "ms", "Florence-2 base", percentile(theirs, 50))


def decode(subject: Subject, runs: int) -> Iterator[Result]:
    """Compare the time of one more token with that of reading all weights and the cache once."""
    (frame, *_) = long_frames(subject)
    image = subject.engine.encode(frame)

    def ours(tokens: int) -> Callable[[int], object]:
        return lambda _: subject.engine.generate(image, DETAILED.text, tokens)

    def theirs(tokens: int) -> Callable[[int], object]:
        return lambda _: subject.theirs(frame, DETAILED, tokens)

    token, their_token = _one_more(subject, runs, ours, theirs)
    yield Result(f"{subject.name}: one more token", token, "ms", GENERATE, their_token)
    positions = len(subject.engine.token_ids(DETAILED.text)) + TOKENS
    cache = positions * cache_bytes(subject)
    bound = (_read_by_a_step(subject) + cache) / bandwidth(subject.model.device) * 1e3
    yield Result(f"{subject.name}: one more token", token, "ms", BANDWIDTH, bound)


def additions(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure one more token with no_repeat_ngram_size, and with refine_boxes."""

    def made(size: int, refine_boxes: bool) -> Engine:
        info = dataclasses.replace(subject.engine.info, no_repeat_ngram_size=size)
        return Engine(subject.model, subject.processor, info, refine_boxes=refine_boxes)

    engines = made(0, False), made(loading.NO_REPEAT_NGRAM_SIZE, False), made(0, True)
    plain, banned, refined = _steps(subject, runs, *engines)
    name = f"{subject.name}: one more token"
    yield Result(f"{name} with no_repeat_ngram_size", banned, "ms", "without", plain)
    yield Result(f"{name} with refine_boxes", refined, "ms", "without", plain)


@torch.inference_mode()
def _steps(subject: Subject, runs: int, *engines: Engine) -> list[float]:
    """Return the median milliseconds of a step of one row, for each engine.

    Steps go on after an end token. Unlike in `_one_more`, the first pass is not part of the
    measurement: with quantized weights its time varies.
    """
    (frame, *_) = long_frames(subject)
    prompt = subject.engine.token_ids(DETAILED.text)[len(subject.engine.token_ids("")) :]
    images = [engine.encode(frame) for engine in engines]
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(1 + runs):  # the first round warms up
        for engine, image, taken in zip(engines, images, times, strict=True):
            decoder = engine._decoder
            decoder.join([NewRow(image, prompt, TOKENS)])
            for _ in range(SHORT_TOKENS):
                decoder.step()
            subject.synchronize()
            begun = time.perf_counter()
            for _ in range(SHORT_TOKENS, TOKENS):
                decoder.step()
            subject.synchronize()
            taken.append((time.perf_counter() - begun) * 1e3 / (TOKENS - SHORT_TOKENS))
            decoder.leave(0)
    return [statistics.median(taken[1:]) for taken in times]


def cameras(subject: Subject, runs: int, most: int = 16) -> Iterator[Result]:
    """Measure captions per second of several cameras at once.

    With random weights all captions are equally long, and generate writes them one at a time. One
    frame is then enough to measure its rate.
    """
    tokens = TOKENS if subject.random else 128
    for count in itertools.takewhile(lambda count: count <= most, CAMERAS):
        views = frames(count, 2)

        def ours(_: int, views: Sequence[Any] = views) -> None:
            encoded = subject.engine.encode_batch(views)
            subject.engine.generate_batch([Query(one, BRIEF.text, tokens) for one in encoded])

        one_by_one = views[:1] if subject.random else views

        def theirs(_: int, views: Sequence[Any] = one_by_one) -> None:
            for frame in views:
                subject.theirs(frame, BRIEF, tokens)

        times = measured(subject, runs, ours, theirs)
        rate, their_rate = (
            size / statistics.median(one) * 1e3
            for size, one in zip((count, len(one_by_one)), times, strict=True)
        )
        cams = f"{count} camera" + "s" * (count > 1)
        yield Result(f"{subject.name}: {cams}", rate, "captions/s", GENERATE, their_rate)


def phrases(subject: Subject, runs: int, most: int = 50) -> Iterator[Result]:
    """Measure the time to ground phrases in one frame, including its encoding."""
    (frame,) = frames(1)
    for count in itertools.takewhile(lambda count: count <= most, PHRASES):
        wanted = [
            prompts.phrase_grounding(f"a {colour} {kind}")
            for colour, kind in itertools.islice(_phrases(), count)
        ]
        # A random model writes no </object>. A box has five tokens.
        tokens = 5 if subject.random else 64

        def ours(_: int, wanted: Sequence[Any] = wanted, tokens: int = tokens) -> None:
            image = subject.engine.encode(frame)
            subject.engine.generate_batch(
                [Query(image, prompt.text, tokens, stop=prompt.stop) for prompt in wanted]
            )

        def theirs(_: int, wanted: Sequence[Any] = wanted, tokens: int = tokens) -> None:
            for prompt in wanted:
                subject.theirs(frame, prompt, tokens)

        mine, other = (statistics.median(t) for t in measured(subject, runs, ours, theirs))
        name = f"{subject.name}: {count} phrase" + "s" * (count > 1) + " on a frame"
        yield Result(name, mine, "ms", GENERATE, other)


def stages(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure the stages of one caption, and compare them with the time of their arithmetic."""
    engine = subject.engine
    (frame,) = frames(1, size=(1920, 1080))
    image = engine.encode(frame)
    with torch.inference_mode():
        pixels = engine.pixels(frame)

        def one_token(_: int) -> None:
            engine.generate(image, BRIEF.text, 1)

        parts: dict[str, Callable[[int], object]] = {
            "preprocess 1080p": lambda _: engine.pixels(frame),
            "vision tower and projection": lambda _: engine._decoder.run(engine._encode, pixels),
            "image, prompt and first token": one_token,
        }
        operations = dict(zip(list(parts)[1:], _operations(subject), strict=True))
        speed = arithmetic(subject)
        for name, times in zip(parts, measured(subject, runs, *parts.values()), strict=True):
            bound = (ARITHMETIC, operations[name] / speed * 1e3) if name in operations else ()
            yield Result(f"{subject.name}: {name}", statistics.median(times), "ms", *bound)


def memory(subject: Subject) -> Iterator[Result]:
    """Compare the peak of memory of eight captions at once with one caption of generate.

    On a GPU: all memory that torch has allocated, including the weights. On a CPU: the memory that
    the process takes in addition. Yields nothing if the kernel cannot reset its peak.
    """
    views = frames(8, 2)

    def ours() -> None:
        encoded = subject.engine.encode_batch(views)
        subject.engine.generate_batch([Query(one, BRIEF.text, TOKENS) for one in encoded])

    def theirs() -> None:
        subject.theirs(views[0], BRIEF, TOKENS)

    if subject.model.device.type == "cuda":
        what, peak = "device memory, weights included", _device_peak
    elif os.access(RESET_PEAK, os.W_OK):
        what, peak = "memory without the weights", _process_peak
    else:
        return
    one, eight = peak(subject, theirs), peak(subject, ours)
    name = f"{subject.name}: {what}, 8 captions"
    yield Result(name, eight / 1e9, "GB", "generate, 1 caption", one / 1e9)


def _device_peak(subject: Subject, call: Callable[[], None]) -> int:
    """Return the peak of the device's memory during a call, in bytes."""
    device = subject.model.device
    subject.engine.clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return int(torch.cuda.max_memory_allocated(device))


def _process_peak(subject: Subject, call: Callable[[], None]) -> int:
    """Return the peak of the process's memory during a call, above that before it, in bytes.

    Sources: proc_pid_clear_refs(5), proc_pid_status(5).
    """
    subject.engine.clear()
    subject.engine.tidy()
    RESET_PEAK.write_text("5", encoding="ascii")
    before = psutil.Process().memory_info().rss
    call()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (most,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return 1024 * most - before


def quantized(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure the memory of quantized weights, and the time of one more token with them.

    Writes the weights to a directory and loads them from there, like any model.
    """
    with tempfile.TemporaryDirectory() as folder:
        subject.save(folder)
        load = functools.partial(Engine.load, folder, device=str(subject.model.device))
        without = load()
        modes = ["int8"]
        if compat.NF4_ON_CPU or subject.model.device.type != "cpu":
            modes.append("nf4")
        for mode in modes:
            engine = load(quantization=mode)
            name = f"{subject.name}, {mode}"
            taken, before = (_bytes(one.model) / 1e9 for one in (engine, without))
            yield Result(f"{name}: memory of the weights", taken, "GB", without.info.dtype, before)
            token, other = _steps(subject, runs, engine, without)
            yield Result(f"{name}: one more token", token, "ms", without.info.dtype, other)
            engine.unload()
        without.unload()


def _bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's weights, each counted once."""
    weights = [*model.parameters(), *model.buffers()]
    # bitsandbytes keeps the scales as an attribute of their weight.
    states = filter(None, (getattr(weight, "quant_state", None) for weight in weights))
    scales = (value for state in states for value in vars(state).values())
    found = (*weights, *(value for value in scales if isinstance(value, torch.Tensor)))
    storages = (weight.untyped_storage() for weight in found)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def agreement(subject: Subject, count: int) -> Iterator[Result]:
    """Count prompts with the token ids of generate, of every kind, in ragged batches of 1 to 8."""
    rng = np.random.default_rng(6)
    views = frames(8, 3)
    encoded = subject.engine.encode_batch(views)
    same = done = 0
    with captions.Learning(subject.engine):
        while done < count:
            size = min(int(rng.integers(1, 9)), count - done)
            requested = [(int(rng.integers(len(views))), _any_prompt(rng)) for _ in range(size)]
            limit = int(rng.integers(4, TOKENS))
            answers = subject.engine.generate_batch(
                [Query(encoded[frame], prompt.text, limit) for frame, prompt in requested]
            )
            for (frame, prompt), answer in zip(requested, answers, strict=True):
                inputs = subject.inputs(views[frame], prompt)
                inputs["pixel_values"] = subject.engine.pixels(views[frame])
                ids = subject.written(inputs, limit)
                new = ids[0, inputs["input_ids"].shape[1] :].tolist()
                same += getattr(answer, "ids", None) == tuple(new)
                done += 1
    name = f"{subject.name}: prompts with the token ids of generate"
    yield Result(name, same, "prompts", "of", float(count))


def closeness(subject: Subject, count: int) -> Iterator[Result]:
    """Count tokens that the same weights also choose in float32, after the same text.

    The texts are the beginnings of a caption of `count` tokens that the model writes in float32.
    Yields nothing if the engine runs in float32.
    """
    if subject.model.dtype == torch.float32:
        return
    (frame, *_) = long_frames(subject)

    def made(model: Any, dtype: str) -> Engine:
        info = dataclasses.replace(subject.engine.info, dtype=dtype)
        return Engine(model, subject.processor, info, location_grammar=not subject.random)

    exact = made(copy.deepcopy(subject.model).float(), "float32")
    wanted = exact.generate(exact.encode(frame), DETAILED.text, count).ids
    exact.unload()
    with mock.patch.multiple(kernels, available=lambda *_: False, fast_norms=lambda _: None):
        without = made(subject.model, subject.engine.info.dtype)
    for engine, suffix in ((subject.engine, ""), (without, ", with torch's kernels")):
        for rows in CLOSE_ROWS:
            first, second = _same_tokens(engine, engine.encode(frame), wanted, rows)
            for same, what in (
                (first, "first pass"),
                (second, f"step of {rows} row" + "s" * (rows > 1)),
            ):
                if what != "first pass" or rows == 1:
                    name = f"{subject.name}: tokens as in float32, {what}{suffix}"
                    yield Result(name, sum(same), "tokens", "of", float(len(same)))


@torch.inference_mode()
def _same_tokens(
    engine: Engine, image: EncodedImage, wanted: Sequence[int], rows: int
) -> tuple[list[bool], list[bool]]:
    """Return for each token of a caption whether a first pass chooses it, and whether a step does.

    A step is compared only if the first pass before it chose the right token.
    """
    decoder = engine._decoder
    prompt = engine.token_ids(DETAILED.text)[len(engine.token_ids("")) :]
    ends = range(len(wanted) - 1)
    first, second = [], []
    for group in (ends[start : start + rows] for start in ends[::rows]):
        decoder.join([NewRow(image, [*prompt, *wanted[:end]], 2) for end in group])
        chosen = [[token for ((token, _),) in decoder.step(last=last)] for last in (False, True)]
        for row in reversed(range(len(group))):
            decoder.leave(row)
        for end, one, two in zip(group, *chosen, strict=True):
            first.append(one == wanted[end])
            if first[-1]:
                second.append(two == wanted[end + 1])
    return first, second


def joins(subject: Subject, count: int) -> Iterator[Result]:
    """Count prompts whose token ids are the same alone and in a batch that they join at any time.

    Half of them have a draft: their own answer with some wrong tokens. In the batch, the engine
    has the n-grams of the answers that it wrote alone, so the other prompts have drafts, too.
    """
    rng = np.random.default_rng(7)
    encoded = subject.engine.encode_batch(frames(8, 3))
    queries, alone = [], []
    for _ in range(count):
        limit = int(rng.integers(4, TOKENS))
        query = Query(encoded[int(rng.integers(8))], _any_prompt(rng).text, limit)
        (answer,) = subject.engine.generate_batch([query])
        ids = tuple(getattr(answer, "ids", ()))
        if rng.random() < 0.5:
            changed = np.array(ids)
            changed[rng.random(len(ids)) < 0.1] += 1
            query = dataclasses.replace(query, earlier=Earlier(tuple(changed.tolist())))
        queries.append(query)
        alone.append(ids)
    left = list(queries)
    answers: dict[Query, Answer] = {}
    with captions.Learning(subject.engine, alone):
        while len(answers) < count:
            joining = int(rng.integers(0, 4))
            subject.engine.add(left[:joining])
            del left[:joining]
            answers.update(subject.engine.step())
    same = sum(
        getattr(answers[query], "ids", None) == ids
        for query, ids in zip(queries, alone, strict=True)
    )
    name = f"{subject.name}: prompts with the same token ids alone and when they join a batch"
    yield Result(name, same, "prompts", "of", float(count))


def _any_prompt(rng: np.random.Generator) -> prompts.Prompt:
    colour, kind = next(itertools.islice(_phrases(), int(rng.integers(48)), None))
    cells = (int(rng.integers(0, 400)), int(rng.integers(600, 1023)))
    made: list[Callable[[], prompts.Prompt]] = [
        lambda: BRIEF,
        lambda: DETAILED,
        lambda: prompts.caption("brief_caption", grounded=False),
        lambda: prompts.phrase_grounding(f"a {colour} {kind}"),
        lambda: prompts.question(f"What is left of the {colour} {kind}?"),
        lambda: prompts.question("How many shapes are there?", grounded=False),
        lambda: prompts.question("What is it?", [cells]),
        lambda: prompts.region_description(cells),
    ]
    return made[int(rng.integers(len(made)))]()


def _one_more(subject: Subject, runs: int, *ways: Writing) -> list[float]:
    """Return the milliseconds of one more token for each way to write."""
    calls = (way(tokens) for way in ways for tokens in (TOKENS, SHORT_TOKENS))
    medians = [statistics.median(times) for times in measured(subject, runs, *calls)]
    pairs = zip(medians[::2], medians[1::2], strict=True)
    return [(long - short) / (TOKENS - SHORT_TOKENS) for long, short in pairs]


def measured(
    subject: Subject, runs: int, *calls: Callable[[int], object]
) -> tuple[list[float], ...]:
    """Return milliseconds of each call in each run. Calls take turns, so noise affects all."""
    times: tuple[list[float], ...] = tuple([] for _ in calls)
    for number in range(-1, runs):  # the first round warms up
        for call, taken in zip(calls, times, strict=True):
            subject.synchronize()
            begun = time.perf_counter()
            call(number)
            subject.synchronize()
            if number >= 0:
                taken.append((time.perf_counter() - begun) * 1e3)
    return times


def bandwidth(device: torch.device) -> float:
    """Return the bytes per second of reading a large array, the best of a few times."""
    source = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    best = float("inf")
    for _ in range(8):
        begun = time.perf_counter()
        source.sum().item()
        best = min(best, time.perf_counter() - begun)
    return BANDWIDTH_BYTES / best


def arithmetic(subject: Subject) -> float:
    """Return the multiplications and additions per second of a large product, the best of a few.

    It has the number format of the model.
    """
    size = PRODUCT_SIZE
    one = torch.ones(size, size, dtype=subject.model.dtype, device=subject.model.device)
    (times,) = measured(subject, 8, lambda _: one @ one)
    return 2 * size**3 / min(times) * 1e3


def _operations(subject: Subject) -> tuple[int, int]:
    """Return the multiplications and additions of the vision tower, and of a first pass.

    Those of the attention, a few percent, are left out.
    """
    model, tokens = subject.model, len(subject.engine.token_ids(BRIEF.text))
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    text = _products(model.text_model.model) * tokens + model.text_model.lm_head.weight.numel()
    return 2 * _products(model.vision_model) * (patches + 1), 2 * text


def _products(module: torch.nn.Module) -> int:
    """Return the number of weights that are multiplied with each token."""
    return sum(
        part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Linear)
    )


def cache_bytes(subject: Subject) -> int:
    """Return the bytes of a token's keys and values."""
    text = subject.model.config.text_config
    return int(2 * text.layers * text.embed_dim * subject.model.dtype.itemsize)


def _read_by_a_step(subject: Subject) -> int:
    """Return the bytes of weights that one token reads: the text model's, head included."""
    return sum(parameter.nbytes for parameter in subject.model.text_model.parameters())


def long_frames(subject: Subject) -> list[Any]:
    """Return frames whose detailed caption has TOKENS tokens or more."""
    found = []
    for frame in frames(12):
        if subject.random or subject.ours(frame, DETAILED, TOKENS).generated_tokens == TOKENS:
            found.append(frame)
        if len(found) == 4:
            break
    return found


def _phrases() -> Iterator[tuple[str, str]]:
    from kosmos_ros.shapes.scenes import COLOURS, KINDS

    return itertools.cycle(itertools.product(COLOURS, KINDS))


def percentile(times: Sequence[float], percent: int) -> float:
    return float(np.percentile(times, percent))

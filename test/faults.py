# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Faults and bad inputs, and what kosmos_ros does about each. Knows no test but by its name.

A test of rows N and M has the mark `fault(N, M)`. fault_report.py makes docs/faults.md from this
table and from a run of the tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    number: int
    fault: str
    behaviour: str  # what is expected
    note: str = ""  # what no test here shows, why, and what was done instead


FAULTS = (
    Fault(
        1,
        "data shorter than its size and step say",
        "The frame is refused, counted and named in a throttled warning; the next one is served.",
    ),
    Fault(
        2,
        "data longer, as drivers pad it",
        "The picture is decoded, the rest ignored.",
    ),
    Fault(3, "rows longer than their pixels", "The pixels are those of the packed picture."),
    Fault(
        4,
        "step shorter than a row",
        "Refused, also where cv_bridge decodes.",
    ),
    Fault(5, "width, height or step 0, no data", "Refused."),
    Fault(
        6,
        "width, height or step near 2^32",
        "Refused before anything of that size is allocated.",
    ),
    Fault(
        7,
        "unknown, empty or upper-case encoding",
        "Refused; the message names it once and lists the known ones.",
    ),
    Fault(8, "every colour encoding of the contract", "RGB as written down by hand."),
    Fault(
        9,
        "UYVY against YUYV, odd sizes of either",
        "Each in its own order; a size that the encoding cannot have is refused.",
    ),
    Fault(10, "Bayer mosaics of 8 and 16 bits", "Demosaiced, of odd sizes too."),
    Fault(
        11,
        "16 bits, big-endian",
        "Scaled to 8 bits by rounding, bytes swapped where they are.",
        "Tried with NumPy 1.26.4 and OpenCV 4.10 as well: the tests of rows 1 to 19 in "
        "test_decode_raw.py and test_decode_compressed.py.",
    ),
    Fault(
        12,
        "depth, with NaN and infinity",
        "Not refused: stretched from the least to the greatest value, unknown ones black.",
    ),
    Fault(
        13,
        "truncated JPEG, PNG or WebP",
        "Refused, whatever else in the process has told Pillow; no half-grey picture.",
    ),
    Fault(14, "wrong checksum, damaged or random bytes, nothing", "Refused as a broken picture."),
    Fault(
        15,
        "decompression bombs",
        "Refused by their headers: no pixel is decoded and no memory taken.",
    ),
    Fault(16, "a format field that is wrong, bare or empty", "What the data begins with counts."),
    Fault(
        17,
        "compressedDepth, theora, ffmpeg and other transports",
        "Refused, with the command that republishes them.",
    ),
    Fault(18, "EXIF rotation", "Not applied: boxes are in the stored pixels."),
    Fault(
        19,
        "pictures of 1 x 1, 1 x 4000, 8000 x 1",
        "Captioned and drawn; boxes stay inside.",
    ),
    Fault(
        20,
        "a camera faster than the model",
        "The newest frame only; the others are let go of and counted; memory does not grow.",
    ),
    Fault(
        21,
        "a camera that falls silent",
        "A warning after `stale_timeout` and STALE in the diagnostics; others are served; when it "
        "comes back that is told, too.",
    ),
    Fault(
        22,
        "no publisher, or another topic or type than is meant",
        "A warning with the topic's name and what to change; the node idles meanwhile.",
    ),
    Fault(
        23,
        "delivery that does not fit",
        "One message that names both ends and the cure; STALE in the diagnostics.",
    ),
    Fault(24, "two publishers on one topic", "Both are one camera: each frame by its own header."),
    Fault(
        25, "resolution that changes", "Boxes are in the pixels of the frame that they are about."
    ),
    Fault(
        26,
        "stamps of zero, of the future, going back",
        "Results carry them unchanged; rates, events and loss do not stick.",
    ),
    Fault(
        27,
        "simulated time that is absent, stands still or jumps back",
        "Rates, warnings and diagnostics go on.",
    ),
    Fault(28, "a step of the system's clock", "No rate and no deadline moves."),
    Fault(
        29,
        "a bug, as an exception of any type",
        "Of a frame: logged with its type and counted, the next one is served. Of a request: its "
        "answer. Of a callback: logged, and the process goes on.",
    ),
    Fault(
        30,
        "out of memory",
        "Less at a time from then on, by rungs that diagnostics tell; all again after a quiet "
        "time. Nothing holds what filled the memory.",
    ),
    Fault(
        31,
        "out of memory in other words, such as Jetson's NVML assert",
        "Sorted by a table: out of memory, a lost device, or of this call alone.",
    ),
    Fault(
        32,
        "illegal memory access, device assert",
        "All who wait are told, the device is not used again, the node ends with exit code 3.",
    ),
    Fault(
        33,
        "a device that hangs",
        "After `hard_timeout` all who wait are told and the process ends with exit code 4. "
        "Where native code stops all threads, SIGALRM ends it.",
    ),
    Fault(
        34,
        "a GPU asked for where there is none",
        "A device that is named and not there ends the node with exit code 1; `auto` takes the "
        "processor and says so.",
    ),
    Fault(
        35,
        "torch or transformers missing, too old or of another kind",
        "The node runs and says which interpreter lacks what, and the command that installs it.",
        note="Tried with transformers 4.57.6, too: test_engine.py and test_decoder.py.",
    ),
    Fault(
        36,
        "weights missing, no network, offline",
        "The node runs, not ready, and says what is missing and what fetches it; where it may "
        "help, loading is tried again after growing pauses.",
    ),
    Fault(
        37,
        "part of a download, damaged files, another revision",
        "Named or completed; no other revision stands for the one that was asked for.",
    ),
    Fault(
        38,
        "pickled weights, code beside the weights",
        "Not fetched, not read, never run.",
    ),
    Fault(
        39,
        "a model of another kind, an image processor that crops",
        "Refused when it is loaded; all of a wide frame is seen.",
    ),
    Fault(40, "empty output, no phrases", "A valid message: the text that there is, and no box."),
    Fault(
        41,
        "boxes reversed, of no area, beyond the grid",
        "Put in order or dropped; 0 <= x_min < x_max <= 1, and so for y.",
    ),
    Fault(
        42,
        "tags truncated or nested, `<` in text, 10 000 tags",
        "Read in one pass, in work that grows with the text; the words stay.",
    ),
    Fault(
        43,
        "output that is not finite, text that does not end",
        "The first is an error of that answer alone; the second is `truncated`, with a warning.",
    ),
    Fault(44, "NumPy's numbers in message fields", "What arrives is the value, checks on or off."),
    Fault(
        45,
        "NUL, surrogates, emoji, 100 kB of text",
        "What a ROS string cannot hold becomes a space; the rest arrives.",
    ),
    Fault(
        46,
        "question empty, blank, of 1 MB, with control characters",
        "`success: false` at once, with the reason; the model is not asked.",
    ),
    Fault(
        47,
        "the model's own tags in a question",
        "Refused, and the tag named: none is smuggled in.",
    ),
    Fault(
        48,
        "regions with NaN, reversed, empty, outside",
        "`success: false` with the reason.",
    ),
    Fault(49, "a request before the model is ready", "`success: false` at once: it is loading."),
    Fault(
        50,
        "a request before any image",
        "It waits up to `request_timeout`, then is told which topic is silent.",
    ),
    Fault(
        51,
        "50 requests at once",
        "As many as the queue holds wait, others are refused at once; the executor answers on.",
    ),
    Fault(
        52,
        "a client that is killed while it waits",
        "Its places in the queue are free again. Where Fast DDS thereupon leads shared memory "
        "past the node, it says so and ends with exit code 6.",
    ),
    Fault(53, "a client in the node's own executor", "Answered: nothing blocks."),
    Fault(
        54,
        "SIGINT, SIGTERM: idle, loading, generating",
        "Exit code 0 without a traceback; whoever waits is told.",
        note="kosmos_node has one executor, so that there is no second one to try. The time is "
        "bounded by process.STOP_TIMEOUT, 2 s, after which the process ends in any case.",
    ),
    Fault(
        55,
        "Ctrl-C again and again; SIGTERM right after the start",
        "No traceback; exit code 0 from the moment on at which the node exists, before that "
        "SIGTERM's own.",
    ),
    Fault(56, "the context ends under the worker", "Caught: the worker ends by itself."),
    Fault(
        57,
        "parameters of another type, out of range, NaN, read-only, unknown",
        "Refused with the reason, nothing changed; at the start, exit code 1. An integer serves "
        "as a float; an unknown one is warned of with its likely name.",
    ),
    Fault(
        58,
        "parameters changed while the model works",
        "They hold from the next frame on, those of one call together.",
    ),
    Fault(59, "a bug in what checks parameters", "The change is refused, and the node lives."),
    Fault(60, "remapping, namespaces, two nodes", "No name clashes; diagnostics differ by name."),
    Fault(
        61,
        "nobody listens",
        "No frame is described unless `always_on` is set; requests are answered.",
    ),
    Fault(62, "a reliable subscriber that has stopped", "The others get their captions."),
    Fault(
        63,
        "annotated frames of 4K",
        "Copied into the kind of array that rclpy takes without a look at each byte.",
        note="20 such copies took 12 ms in the median on a loaded machine of two cores.",
    ),
    Fault(
        64,
        "configure fails; cleanup while generating; 100 cycles",
        "A defined state each time; no engine and no thread is left behind.",
        note="A process with the embedded model held 470 MB after 7 cycles without work, 479 MB "
        "after 73 and 481 MB after 137, with 19 threads.",
    ),
    Fault(
        65,
        "24 hours at rate",
        "Nothing lost, confused or said twice; threads stay flat, and in one process memory, too.",
        note="The tests are its short forms; `scripts/soak` is the long one. What memory over DDS "
        "does is told below.",
    ),
    Fault(
        66,
        "SROS2's Enforce with the shipped policy",
        "The policy allows what the graph shows, and nothing else.",
        note="Enforcement is not tried: pip's Fast DDS lacks it; see [security.md](security.md).",
    ),
    Fault(67, "a home that cannot be written, a full disk", "Named, with the path."),
    Fault(
        68, "a ROS domain that others use", "Tests have a domain of their own, on this machine."
    ),
    Fault(
        69,
        "Lyrical's Buffer, or any object, as `data`",
        "Read where it is bytes or a sequence of them, else refused by its type.",
    ),
    Fault(
        70,
        "rate 0, tiny, 1e9",
        "0 is as fast as the model goes, tiny ones sleep and wake, others are refused.",
    ),
)

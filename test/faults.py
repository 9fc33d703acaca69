# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Faults and bad inputs, and what kosmos_ros does about each. Knows no test.

A test of rows N and M has the mark `fault(N, M)`. fault_report.py makes docs/faults.md from this
table and from a run of the tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    number: int
    fault: str
    behaviour: str  # expected
    note: str = ""  # what no test here shows, why, and what was done instead


FAULTS = (
    Fault(
        1,
        "data shorter than height and step require",
        "The node refuses the frame, counts it and names it in a throttled warning. It serves the "
        "next frame.",
    ),
    Fault(
        2,
        "data longer than the image, as some drivers pad it",
        "The image is decoded; the extra bytes are ignored.",
    ),
    Fault(3, "padded rows", "The pixels equal those of the image without padding."),
    Fault(
        4,
        "step shorter than a row",
        "The frame is refused, also where cv_bridge decodes it.",
    ),
    Fault(5, "width, height or step 0, no data", "The frame is refused."),
    Fault(
        6,
        "width, height or step near 2^32",
        "The frame is refused before memory of that size is allocated.",
    ),
    Fault(
        7,
        "unknown, empty or upper-case encoding",
        "The frame is refused. The error names the encoding once and lists the known ones.",
    ),
    Fault(8, "every colour encoding of the contract", "RGB values equal those computed by hand."),
    Fault(
        9,
        "UYVY and YUYV, odd sizes of either",
        "Each is read in its own byte order. A size that the encoding cannot have is refused.",
    ),
    Fault(10, "Bayer mosaics of 8 and 16 bits", "They are demosaiced, also in odd sizes."),
    Fault(
        11,
        "16 bits, big-endian",
        "Values are rounded to 8 bits; big-endian data is byte-swapped.",
        "The tests of rows 1 to 19 in test_decode_raw.py and test_decode_compressed.py also "
        "passed with NumPy 1.26.4 and OpenCV 4.10.",
    ),
    Fault(
        12,
        "depth images with NaN and infinity",
        "Depth is stretched from its smallest to its largest finite value; other pixels are "
        "black.",
    ),
    Fault(
        13,
        "truncated JPEG, PNG or WebP",
        "The frame is refused, whatever Pillow's global settings are. No half-grey image results.",
        "A JPEG that is damaged inside its scan but has its end marker is decoded, partly in "
        "grey: Pillow does not pass on the warnings of libjpeg.",
    ),
    Fault(
        14,
        "wrong checksum, damaged or random bytes, empty data",
        "The frame is refused as a broken image.",
    ),
    Fault(
        15,
        "decompression bombs",
        "The header is enough to refuse them: no pixel is decoded, no memory allocated.",
    ),
    Fault(
        16,
        "a wrong, bare or empty format field",
        "The first bytes of the data decide the format.",
    ),
    Fault(
        17,
        "compressedDepth, theora, ffmpeg and other transports",
        "The frame is refused. The error names the command that republishes the topic.",
    ),
    Fault(18, "EXIF rotation", "It is not applied: boxes are in the stored pixels."),
    Fault(
        19,
        "images of 1 x 1, 1 x 4000, 8000 x 1",
        "They are captioned and drawn. Boxes stay inside the image.",
    ),
    Fault(
        20,
        "a camera faster than the model",
        "The node describes the newest frame, drops and counts the others. Memory does not grow.",
    ),
    Fault(
        21,
        "a camera that falls silent",
        "After `stale_timeout` the node warns and its diagnostics report STALE. Other cameras are "
        "served. A message reports when the camera is back.",
    ),
    Fault(
        22,
        "no publisher, or a wrong topic or type",
        "A warning names the topic and what to change. The node idles meanwhile.",
    ),
    Fault(
        23,
        "incompatible QoS",
        "One message names both ends and the remedy. Diagnostics report STALE.",
    ),
    Fault(
        24,
        "two publishers on one topic",
        "Both count as one camera; each caption has the header of its frame.",
    ),
    Fault(25, "resolution that changes", "Boxes are in the pixels of their own frame."),
    Fault(
        26,
        "stamps that are zero, in the future, or go back",
        "Results carry them unchanged. Rates, events and loss counts keep working.",
    ),
    Fault(
        27,
        "simulated time that is missing, stops or jumps back",
        "Rates, warnings and diagnostics keep working.",
    ),
    Fault(28, "a step of the system clock", "It changes no rate and no timeout."),
    Fault(
        29,
        "a bug, as an exception of any type",
        "In a frame: the exception is logged with its type and counted, and the next frame is "
        "served. In a request: the response carries it. In a callback: it is logged, and the "
        "process continues.",
    ),
    Fault(
        30,
        "out of memory",
        "The node reduces its batch in steps, which diagnostics report. After a quiet time it "
        "returns to the full batch. It keeps no reference to what filled the memory.",
    ),
    Fault(
        31,
        "other texts of out-of-memory errors, such as Jetson's NVML assert",
        "A table classifies them: out of memory, lost device, or an error of one call.",
    ),
    Fault(
        32,
        "illegal memory access, device assert",
        "Every waiting client receives an error. The device is not used again; the node ends with "
        "exit code 3.",
    ),
    Fault(
        33,
        "a device that hangs",
        "After `hard_timeout` every waiting client receives an error and the process ends with "
        "exit code 4. If native code blocks all Python threads, SIGALRM ends the process.",
    ),
    Fault(
        34,
        "a GPU is requested, but there is none",
        "If `device` names a missing device, the node ends with exit code 1. `auto` falls back to "
        "the CPU and logs it.",
    ),
    Fault(
        35,
        "torch or transformers missing, too old or of another kind",
        "The node runs. It names the interpreter, the missing package and the command that "
        "installs it.",
        note="test_engine.py and test_decoder.py also passed with transformers 4.57.6.",
    ),
    Fault(
        36,
        "weights missing, no network, offline",
        "The node runs, is not ready, and names what is missing and the command that fetches it. "
        "Where it can help, loading is repeated after growing pauses.",
    ),
    Fault(
        37,
        "incomplete download, damaged files, another revision",
        "They are named or completed. No other revision replaces the requested one.",
    ),
    Fault(
        38,
        "pickled weights, code next to the weights, fields that name code",
        "They are not fetched, not read and never run. Nothing asks on the terminal.",
    ),
    Fault(
        39,
        "a model of another kind, an image processor that crops",
        "Loading refuses it. The model always sees the whole of a wide frame.",
    ),
    Fault(
        40,
        "empty output, no phrases",
        "The message is valid: it has the generated text and no box.",
    ),
    Fault(
        41,
        "boxes that are reversed, empty or beyond the grid",
        "Corners are put in order or the box is dropped: 0 <= x_min < x_max <= 1, same for y.",
    ),
    Fault(
        42,
        "tags truncated or nested, `<` in text, 10 000 tags",
        "One pass reads them, in time linear in the text. The words stay.",
    ),
    Fault(
        43,
        "output that is not finite, text that does not end",
        "The first is an error of that response alone. The second is marked `truncated`, with a "
        "warning.",
    ),
    Fault(
        44,
        "NumPy numbers in message fields",
        "The value arrives, with and without rclpy's type checks.",
    ),
    Fault(
        45,
        "NUL, surrogates, emoji, 100 kB of text",
        "Characters that a ROS string cannot hold become spaces. The rest arrives.",
    ),
    Fault(
        46,
        "a question that is empty, blank, 1 MB long, or has control characters",
        "`success: false` at once, with the reason. The model does not run.",
    ),
    Fault(
        47,
        "the model's own tags in a question",
        "The request is refused and the tag named, also in full-width or other Unicode forms. The "
        "engine checks the tokens once more: no client can insert control tokens.",
    ),
    Fault(
        48,
        "regions with NaN, reversed, empty, outside",
        "`success: false` with the reason.",
    ),
    Fault(
        49,
        "a request before the model is ready",
        "`success: false` at once; the message says that the model is loading.",
    ),
    Fault(
        50,
        "a request before any image",
        "It waits up to `request_timeout`. The error then names the silent topic.",
    ),
    Fault(
        51,
        "50 requests at once",
        "The queue takes as many as it holds; the others are refused at once. The executor stays "
        "responsive.",
    ),
    Fault(
        52,
        "a client that is killed while it waits",
        "Its places in the queue become free. If Fast DDS then detaches the node from shared "
        "memory, the node logs it and ends with exit code 6.",
    ),
    Fault(
        53,
        "a client in the node's own executor",
        "It receives its response: nothing blocks.",
    ),
    Fault(
        54,
        "SIGINT, SIGTERM: idle, loading, generating",
        "Exit code 0 without a traceback. Every waiting client receives a response.",
        note="kosmos_node has one executor, so a second one is not tested. Shutdown takes at most "
        "process.STOP_TIMEOUT, 2 s; then the process ends in any case.",
    ),
    Fault(
        55,
        "repeated Ctrl-C; SIGINT or SIGTERM right after the start",
        "No traceback. The exit code is 0 once the node exists, and the signal's own before.",
    ),
    Fault(56, "the context ends while the worker runs", "The worker notices and ends by itself."),
    Fault(
        57,
        "parameters of a wrong type, out of range, NaN, read-only, unknown",
        "A change is refused with the reason and nothing changes; at the start the exit code is "
        "1. An integer is accepted for a float. A warning about an unknown name suggests the "
        "likely one.",
    ),
    Fault(
        58,
        "parameters changed while the model works",
        "They apply from the next frame on. Changes of one call apply together.",
    ),
    Fault(
        59,
        "a bug in the code that checks parameters",
        "The change is refused. The node keeps running.",
    ),
    Fault(
        60,
        "remapping, namespaces, two nodes",
        "No names clash. Diagnostics have the node's name.",
    ),
    Fault(
        61,
        "no subscribers",
        "The node describes no frame unless `always_on` is set. Requests are answered.",
    ),
    Fault(
        62,
        "a reliable subscriber that has stopped",
        "The other subscribers receive their captions.",
    ),
    Fault(
        63,
        "annotated 4K frames",
        "Pixels are copied into the array type that rclpy takes without checking each byte.",
        note="20 such copies took 12 ms (median) on a loaded machine with two cores.",
    ),
    Fault(
        64,
        "configure fails; cleanup while generating; 100 cycles",
        "The state is defined each time. No engine and no thread stays behind.",
        note="A process with the embedded model used 470 MB after 7 cycles without work, 479 MB "
        "after 73 and 481 MB after 137, with 19 threads.",
    ),
    Fault(
        65,
        "24 hours at full rate",
        "Nothing is lost, mixed up or sent twice. The thread count stays flat, and so does memory "
        "in a single process.",
        note="The tests are short versions; `scripts/soak` is the long one. The section below "
        "describes memory over DDS.",
    ),
    Fault(
        66,
        "SROS2 in Enforce mode with the shipped policy",
        "The policy allows exactly what the graph shows.",
        note="Enforcement itself is not tested: Fast DDS from PyPI lacks it; see "
        "[security.md](security.md).",
    ),
    Fault(67, "an unwritable home folder, a full disk", "The error names the path."),
    Fault(
        68,
        "a ROS domain that others use",
        "Tests use their own domain, on this machine only.",
    ),
    Fault(
        69,
        "Lyrical's Buffer, or any object, as `data`",
        "It is read if it is bytes or a sequence of bytes; otherwise its type is refused.",
    ),
    Fault(
        70,
        "rate 0, tiny, 1e9",
        "0 runs as fast as the model; a tiny rate sleeps and wakes; other values are refused.",
    ),
    Fault(
        71,
        "a hub that sends paths, or a cache with links",
        "The node writes and removes nothing outside the model's own folders of the cache. It "
        "refuses the download in one line.",
    ),
    Fault(
        72,
        "a hub that answers with another commit",
        "The node refuses the answer. A commit never resolves through a file of a branch.",
    ),
    Fault(
        73,
        "a hub that is endless, slow or compressed",
        "The node stops reading after the listed size, after 60 s with less than 60 kB, or at "
        "once if the response is compressed. It keeps the partial file.",
    ),
    Fault(
        74,
        "a password in `HF_ENDPOINT`, a redirect to another host",
        "No message contains the password. The other host receives no token, and a redirect "
        "never goes from https to http.",
    ),
    Fault(
        75,
        "a model's files with false sizes, harmful tokenizer steps, huge or nested JSON",
        "The node refuses the model before it allocates anything of that size. The error is one "
        "line with the field, its value and the valid values.",
    ),
    Fault(
        76,
        "thousands of scans, segments, chunks or blocks in an image",
        "The node refuses the frame before it decodes it. The error names the number and the "
        "limit.",
    ),
    Fault(
        77,
        "an image of one very long row; every encoding and format",
        "Sides are limited. Decoding, resizing, drawing and compressing take memory of a small "
        "multiple of the pixels.",
        note="A crafted WebP takes more; see [SECURITY.md](../SECURITY.md#known-limits).",
    ),
    Fault(
        78,
        "decoding that hangs",
        "`hard_timeout` covers decoding, too: the process ends after that time.",
    ),
    Fault(
        79,
        "a client that sends huge texts, lists or a huge frame_id",
        "The node refuses the request or frame and names the field and the limit. It keeps no "
        "copy.",
        note="40 refused goals with 8 MB of text each take 25 MB; without the limit, 325 MB. 200 "
        "answers about an image with a frame_id of 4 MB take 12 MB; without the limit, 425 MB.",
    ),
    Fault(
        80,
        "a flood of goals, cancellations or transitions",
        "The node keeps at most 1000 goals. At most 8 transitions and one more shutdown wait. "
        "More are refused at once. One thread runs all transitions.",
        note="6000 transitions while the model loads leave 20 threads; without the limit, 1744.",
    ),
    Fault(
        81,
        "two nodes with the same name",
        "Both warn in the log and in diagnostics until one has ended.",
    ),
    Fault(
        82,
        "a camera that starts and stops ten times a second",
        "Its images arrive again at once. Neither memory nor threads grow.",
    ),
    Fault(
        83,
        "images that are too large to arrive, malformed messages",
        "The node counts them as lost once another image arrives, and names them in its warnings.",
        note="If every image of a camera is malformed, neither rclpy nor the middleware reports "
        "anything.",
    ),
    Fault(
        84,
        "no log folder, thread, file descriptor or memory at the start",
        "One line names what is missing and a remedy. The exit code is 7, and the launch file "
        "starts the node again.",
    ),
    Fault(
        85,
        "a hang in native code, at the start or after a signal",
        "SIGALRM ends the process: 120 s after the start, or 10 s after the signal.",
    ),
    Fault(
        86,
        "closed or broken standard streams",
        "The node works until a signal. No file or socket receives its log.",
    ),
    Fault(
        87,
        "captions that repeat themselves",
        "The model's `no_repeat_ngram_size` (3 for KOSMOS-2) is read from its own files and "
        "applied as Hugging Face's `generate` applies it, with every version of transformers.",
    ),
    Fault(
        88,
        "boxes that are half a cell of the grid off",
        "Corners are placed by the probabilities of the cells around them, inside the cell "
        "that the model wrote. With `refine_boxes` false they are those of Hugging Face.",
    ),
    Fault(
        89,
        "a raw prompt with spaces, line feeds, a wrong location or a megabyte",
        "White space is removed as Hugging Face does it. The node refuses everything else by "
        "name.",
    ),
    Fault(
        90,
        "a question that contains another question",
        "`Question:` and `Answer:` at its ends are removed. Inside they are refused.",
    ),
    Fault(
        91,
        "a compressed image of depth, a Bayer mosaic or 16-bit grey",
        "The node decodes its values by the encoding in `format`, like those of the raw message.",
    ),
    Fault(
        92,
        "a JPEG inside a raw image",
        "The frame is refused. The error names CompressedImage.",
    ),
    Fault(
        93,
        "an image that was sent before the node subscribed",
        "The warning names the durability override. With it the node receives the image.",
    ),
    Fault(
        94,
        "pairs and bursts of images, two publishers on a topic",
        "They cause no warning about loss.",
    ),
    Fault(
        95,
        "a camera slower than `stale_timeout`; stamps that stand still or are ahead",
        "One warning names the stamps. Events follow the arrival of images. The latency is "
        "never negative.",
    ),
    Fault(
        96,
        "a broken or a second image in a request",
        "The request is refused with the reason.",
    ),
    Fault(
        97,
        "a parameter as another type, `null` or an empty list",
        "The node converts the value to the parameter's type before rclpy stores it. It "
        "refuses what it cannot convert and shows the form of the value.",
    ),
    Fault(
        98,
        "a parameter of one camera that was never set",
        "It has the value that counts, and follows the common parameter until it is set.",
    ),
    Fault(
        99,
        "named phrases that are not in view",
        "The text names only phrases that have boxes.",
    ),
    Fault(
        100,
        "a region in fractions of the image",
        "It is refused, because pixels are expected.",
    ),
    Fault(
        101,
        "a subscriber of boxes that the parameters rule out",
        "One warning names the parameter.",
    ),
    Fault(
        102,
        "a parameter given as a remap rule, a value without an option",
        "The node warns and names `-p`. A value without an option is refused with code 2.",
    ),
    Fault(
        103,
        "a shell without ROS",
        "One line names the missing package and the command. The exit code is 7.",
    ),
    Fault(
        104,
        "an installation that computes wrongly",
        "`kosmos check` names the example, the first token that differs, and both probabilities.",
    ),
    Fault(
        105,
        "a node that the launch file starts again",
        "It has the command, working directory and environment of its first start.",
    ),
    Fault(
        106,
        "arguments of another launch file",
        "A value that cannot be meant for the node is refused with the remedy. The launch file "
        "logs all others.",
    ),
    Fault(
        107,
        "a parameter file without a section for the node",
        "One warning names the file, its sections and the node.",
    ),
    Fault(
        108,
        "an environment variable that ROS cannot use",
        "One line names the variable and the valid values. The exit code is 2.",
    ),
    Fault(
        109,
        "a node that takes long to stop",
        "It leaves the graph before its process ends. A model that is loading does not delay it.",
    ),
    Fault(
        110,
        "Ctrl-C while the command imports a library",
        "It ends with code 130 and without a traceback.",
    ),
)

# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""cv_bridge and the table give the same pixels; the table decodes what cv_bridge gets wrong."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="ROS messages are not installed: scripts/setup does")

from compressed_images import EXAMPLES, encoded, noise
from raw_images import CASES, LIMIT, message_data
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.ros import bridge
from kosmos_ros.ros.bridge import ImageDecoder

# Encodings that cv_bridge cannot convert to rgb8. If it misses another, the trial is broken.
NOT_IN_CV_BRIDGE = {"8UC1", "8UC3", "8UC4", "16UC1", "32FC1", "uyvy", "yuyv"}
NOT_IN_CV_BRIDGE |= {"nv12", "nv21", "nv24"}


def message(encoding, pad=0, big=False):
    """Return the case of raw_images.py as a message with `pad` bytes after each row."""
    rows, image = CASES[encoding]
    if big:
        rows = [np.frombuffer(row, ENCODINGS[encoding].dtype).byteswap().tobytes() for row in rows]
    return Image(
        width=len(image[0]),
        height=len(image),
        encoding=encoding,
        step=len(rows[0]) + pad,
        is_bigendian=big,
        data=message_data(rows, b"\xee" * pad),
    )


@pytest.fixture(scope="module", params=["table", "cv_bridge"])
def decoder(request):
    if request.param == "cv_bridge":
        if importlib.util.find_spec("cv_bridge") is None:
            pytest.skip("cv_bridge is not installed; it comes with a ROS installation by apt")
        decoder = ImageDecoder()
        if not decoder.served:
            pytest.skip(f"cv_bridge is installed and not used: {decoder}")
        return decoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cv_bridge", None)
        return ImageDecoder()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 2, 3, 4, 24])
@pytest.mark.parametrize("encoding", CASES)
def test_both_give_the_same_pixels(decoder, encoding, pad, big):
    image = decoder.decode(message(encoding, pad, big), LIMIT)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.tolist() == np.array(CASES[encoding][1]).tolist()


def test_cv_bridge_serves_what_it_knows(decoder):
    if not decoder.served:
        pytest.skip("the table alone is tested")
    assert {name for name, big in decoder.served if not big} == set(CASES) - NOT_IN_CV_BRIDGE


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(1, 4, 5, 6)
def test_both_refuse_the_same_messages(decoder, encoding):
    """cv_bridge alone would return a narrower image or raise a TypeError."""
    for field, value in {
        "data": message(encoding).data[:-1],
        "step": message(encoding).step - 1,
        "width": 0,
        "height": 2**32 - 1,
    }.items():
        wrong = message(encoding)
        setattr(wrong, field, value)
        with pytest.raises(ImageSizeError):
            decoder.decode(wrong, LIMIT)
    with pytest.raises(ImageSizeError):
        decoder.decode(message(encoding), 1)


def test_compressed_messages_are_decoded(decoder):
    compressed = CompressedImage(format="png", data=EXAMPLES["PNG"])
    assert decoder.decode(compressed, LIMIT).tolist() == noise().tolist()
    with pytest.raises(ImageError):
        decoder.decode(CompressedImage(format="png", data=EXAMPLES["PNG"][:-30]), LIMIT)


@pytest.mark.fault(92)
def test_both_name_a_jpeg_in_a_raw_image(decoder):
    """Some drivers do this. As rgb8 it would be noise."""
    jpeg = EXAMPLES["JPEG"] * 99
    for encoding in ("rgb8", "jpeg"):
        raw = Image(width=64, height=48, encoding=encoding, step=192, data=jpeg)
        with pytest.raises(EncodingError, match=f"encoding '{encoding}' are a JPEG file; publish"):
            decoder.decode(raw, LIMIT)


def test_both_stretch_grey_of_16_bits(decoder):
    frame = message("mono16")
    frame.data = np.array([[0, 100, 200], [300, 400, 500]], "<u2").tobytes()
    assert decoder.decode(frame, LIMIT, True)[..., 1].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert decoder.decode(frame, LIMIT)[..., 1].tolist() == [[0, 0, 1], [1, 2, 2]]
    png = CompressedImage(data=encoded(np.array([[7, 107, 262]], np.uint16), "PNG"))
    assert decoder.decode(png, LIMIT, True)[..., 1].tolist() == [[0, 100, 255]]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_nearly_black_image_of_16_bits_causes_one_hint(monkeypatch, compressed):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    hints = []
    decoder = ImageDecoder(hints.append)
    bright, dark, values = message("mono16"), message("mono16"), [[0, 4095, 200], [300, 400, 500]]
    dark.data = np.array(values, "<u2").tobytes()
    if compressed:
        png = encoded(np.array(values, np.uint16), "PNG")
        dark = CompressedImage(data=png, format="mono16; png compressed ")
    for frame, stretch in ((bright, False), (dark, True), (message("mono8"), False)):
        decoder.decode(frame, LIMIT, stretch)
    assert not hints
    for _ in range(2):
        decoder.decode(dark, LIMIT)
    (hint,) = hints
    assert hint.startswith("an image of encoding mono16 is nearly black; if its camera has fewer")


def test_cv_bridge_is_not_used_for_an_image_that_is_stretched(monkeypatch):
    """It narrows 16 bits by its own rule."""
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    decoder = ImageDecoder()
    decoder.served = frozenset({("mono16", False)})
    decoder._bridge = SimpleNamespace(imgmsg_to_cv2=lambda *_: np.array(7))
    assert decoder.decode(message("mono16"), LIMIT) == 7
    assert decoder.decode(message("mono16"), LIMIT, True)[..., 0].max() == 255


@pytest.mark.fault(7)
def test_an_unknown_encoding_is_refused(decoder):
    unknown = message("rgb8")
    unknown.encoding = "RGB8"
    with pytest.raises(EncodingError, match="'RGB8'"):
        decoder.decode(unknown, LIMIT)


# A cv_bridge of three encodings that reads rows as the real one does; `{}` spoils it.
STANDIN = """
import os, signal, sys, time
import numpy as np
try:
    import cv2
except ImportError:
    pass
ORDER = {{"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "mono8": (0, 0, 0)}}
class CvBridgeError(TypeError):
    pass
class CvBridge:
    def imgmsg_to_cv2(self, frame, desired_encoding):
        if frame.encoding not in ORDER:
            raise CvBridgeError(f"Unrecognized image encoding [{{frame.encoding}}]")
        channels = 1 if frame.encoding == "mono8" else 3
        shape = frame.height, frame.step // channels, channels
        pixels = np.ndarray(shape, np.uint8, frame.data)[:, : frame.width, ORDER[frame.encoding]]
        {}
        return np.ascontiguousarray(pixels)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a cv_bridge that runs `fault` in each conversion and `at_import` when imported."""

    def install(fault="pass", at_import="pass"):
        (tmp_path / "cv_bridge.py").write_text(f"{STANDIN.format(fault)}\n{at_import}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
        return ImageDecoder()

    yield install
    sys.modules.pop("cv_bridge", None)


KNOWN = {(name, big) for name in ("rgb8", "bgr8", "mono8") for big in (False, True)}


def test_lines_that_are_not_of_the_trial_are_ignored(installed, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('[1, 2]', 'noise', '3', sep='\\n')\n")
    assert installed().served == KNOWN


def test_a_correct_cv_bridge_is_used_whatever_it_prints(installed):
    decoder = installed(
        at_import="print('[1, 2]'); os.system('echo noise'); print('noise', file=sys.stderr)"
    )
    assert decoder.served == KNOWN
    said = str(decoder)
    assert said.startswith("cv_bridge; kosmos_ros's own table decodes rgba8, bgra8, 8UC1, ")
    assert said.endswith(
        "nv24 (cv_bridge raises CvBridgeError: Unrecognized image encoding [...])"
    )
    assert "big-endian" not in said


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ends the process with SIGSEGV"),
        ("os._exit(3)", "ends the process with exit code 3"),
        ("raise SystemExit(4)", "ends the process with exit code 4"),
        ("raise KeyError('boom')", "raises KeyError: 'boom'"),
        ("pixels = pixels ^ 1", "returns wrong pixels"),
        ("pixels = pixels[:, 1:]", "returns wrong pixels"),
        ("raise AttributeError('_ARRAY_API not found')", "raises AttributeError: _ARRAY_API"),
    ],
)
def test_a_cv_bridge_that_decodes_nothing_is_not_used(installed, fault, why):
    decoder = installed(fault)
    assert not decoder.served
    said = str(decoder)
    first = "kosmos_ros's own table (cv_bridge decodes no encoding correctly: rgb8, bgr8, "
    assert said.startswith(first)
    assert f"mono8 (cv_bridge {why}" in said
    assert "NumPy" not in said
    assert decoder.decode(message("bgr8"), LIMIT).tolist() == np.array(CASES["bgr8"][1]).tolist()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("raise KeyError('boom')", "raises KeyError: 'boom'"),
        ("raise MemoryError", "raises MemoryError"),
        ("os.abort()", "ends the process with SIGABRT"),
        ("raise SystemExit", "gave no result"),
        ("pixels = pixels ^ 1", "returns wrong pixels"),
        ("pixels = None", "returns wrong pixels"),
        ("time.sleep(600)", "ends the process with SIGALRM"),
    ],
)
def test_one_bad_encoding_leaves_the_others_to_cv_bridge(installed, monkeypatch, fault, why):
    """Those after it in the table, too."""
    monkeypatch.setattr(bridge, "TRIAL_TIMEOUT", 40.0)  # of which a hanging kind takes 5 s
    bad = "bgr8" if "sleep" not in fault else "mono8"
    condition = f"frame.encoding == '{bad}'" + " and not frame.is_bigendian" * ("sleep" in fault)
    decoder = installed(f"if {condition}: {fault}")
    assert decoder.served == KNOWN - {(bad, False)} - ({(bad, True)} if bad == "bgr8" else set())
    assert f"{bad} (cv_bridge {why}" in str(decoder)
    assert decoder.decode(message(bad), LIMIT).tolist() == np.array(CASES[bad][1]).tolist()


@pytest.mark.parametrize(
    ("at_import", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("os.abort()", "SIGABRT"),
        ("raise AttributeError('x')", "AttributeError: x"),
        ("sys.exit(5)", "exit code 5"),
    ],
)
def test_a_cv_bridge_that_does_not_load_is_not_used(installed, at_import, why):
    decoder = installed(at_import=at_import)
    assert not decoder.served
    assert f"(cv_bridge does not load with NumPy {np.__version__}: " in str(decoder)
    assert str(decoder).endswith(f"{why})")


def test_a_cv_bridge_that_hangs_is_not_used(installed, monkeypatch):
    monkeypatch.setattr(bridge, "TRIAL_TIMEOUT", 0.2)
    decoder = installed(at_import="time.sleep(600)")
    assert not decoder.served
    assert "did not load in 0.2 s" in str(decoder)


def test_kinds_that_were_not_tried_in_time_are_left_to_the_table(installed, monkeypatch):
    def run(command, timeout, **options):
        done = b'["rgb8", false, ""]\n["rgb8", true, "cv_bridge returns wrong pixels"]\n'
        raise subprocess.TimeoutExpired(command, timeout, done)

    monkeypatch.setattr(subprocess, "run", run)
    decoder = installed()
    assert decoder.served == {("rgb8", False)}
    assert "big-endian frames (cv_bridge returns wrong pixels); " in str(decoder)
    assert "; rgba8, bgr8, bgra8, mono8, " in str(decoder)
    assert "(cv_bridge gave no result)" in str(decoder)


def test_each_encoding_and_byte_order_is_judged_by_itself(installed):
    decoder = installed(
        "if frame.is_bigendian: pixels.newbyteorder_of_numpy_1()\n"
        "        if frame.encoding == 'bgr8' and frame.step > 24: pixels = pixels[:, ::-1]"
    )
    assert decoder.served == {("rgb8", False), ("mono8", False)}
    assert "big-endian frames (cv_bridge raises AttributeError: " in str(decoder)
    assert "bgr8 (cv_bridge returns wrong pixels)" in str(decoder)
    for encoding in ("rgb8", "bgr8", "mono8"):
        for big in (False, True):
            image = decoder.decode(message(encoding, big=big), LIMIT)
            assert image.tolist() == np.array(CASES[encoding][1]).tolist()


def test_rows_padded_by_a_part_of_a_pixel_are_left_to_the_table(installed):
    decoder = installed()
    padded = message("nv12")  # three rows of bytes, which any 8-bit encoding can have
    padded.encoding, padded.width, padded.height, padded.step = "rgb8", 1, 3, 4
    assert (padded.encoding, False) in decoder.served
    expected = [[list(padded.data[4 * row : 4 * row + 3])] for row in range(3)]
    assert decoder.decode(padded, LIMIT).tolist() == expected


def test_served_frames_are_decoded_by_cv_bridge_and_checked_before(installed):
    decoder = installed("CvBridge.calls = getattr(CvBridge, 'calls', 0) + 1")
    import cv_bridge

    decoder.decode(message("rgb8"), LIMIT)
    assert cv_bridge.CvBridge.calls == 1
    with pytest.raises(ImageSizeError):
        decoder.decode(message("rgb8"), 1)
    assert cv_bridge.CvBridge.calls == 1


@pytest.mark.parametrize("kind", ["CvBridgeError", "RuntimeError", "ValueError"])
def test_an_error_of_cv_bridge_is_an_image_error(installed, kind):
    decoder = installed(f"if frame.width == 2: raise {kind}('cannot')")
    with pytest.raises(ImageError, match="cv_bridge cannot decode rgb8: cannot"):
        decoder.decode(message("rgb8"), LIMIT)

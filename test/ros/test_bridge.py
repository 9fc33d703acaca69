# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""cv_bridge and the table give the same pixels, and a cv_bridge that does not is not used."""

import importlib.util
import sys

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="ROS messages are not installed: scripts/setup does")

from compressed_images import EXAMPLES, noise
from raw_images import CASES, LIMIT, message_data
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.ros import bridge
from kosmos_ros.ros.bridge import ImageDecoder

# What cv_bridge has no conversion to rgb8 for; all else it must serve, or the trial is broken.
NOT_IN_CV_BRIDGE = {"8UC1", "8UC3", "8UC4", "16UC1", "32FC1", "uyvy", "yuyv", "nv12", "nv21"}
NOT_IN_CV_BRIDGE |= {"nv24"}


def message(encoding, pad=0, big=False):
    """The case of raw_images.py as a message, `pad` bytes after each row."""
    rows, picture = CASES[encoding]
    if big:
        rows = [np.frombuffer(row, ENCODINGS[encoding].dtype).byteswap().tobytes() for row in rows]
    return Image(
        width=len(picture[0]),
        height=len(picture),
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
    """Also where cv_bridge would give a narrower picture or a TypeError."""
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


@pytest.mark.fault(7)
def test_an_unknown_encoding_is_refused(decoder):
    unknown = message("rgb8")
    unknown.encoding = "RGB8"
    with pytest.raises(EncodingError, match="'RGB8'"):
        decoder.decode(unknown, LIMIT)


# A cv_bridge of three encodings, with the real one's way to read rows; `{}` spoils it.
STANDIN = """
import os, signal, sys, time
import numpy as np
ORDER = {{"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "mono8": (0, 0, 0)}}
class CvBridgeError(TypeError):
    pass
class CvBridge:
    def imgmsg_to_cv2(self, frame, desired_encoding):
        if frame.encoding not in ORDER:
            raise CvBridgeError("Unrecognized image encoding")
        channels = 1 if frame.encoding == "mono8" else 3
        shape = frame.height, frame.step // channels, channels
        pixels = np.ndarray(shape, np.uint8, frame.data)[:, : frame.width, ORDER[frame.encoding]]
        {}
        return np.ascontiguousarray(pixels)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a cv_bridge that does `fault` in every conversion, or when it is imported."""

    def install(fault="pass", at_import="pass"):
        (tmp_path / "cv_bridge.py").write_text(f"{STANDIN.format(fault)}\n{at_import}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
        return ImageDecoder()

    yield install
    sys.modules.pop("cv_bridge", None)


KNOWN = {(name, big) for name in ("rgb8", "bgr8", "mono8") for big in (False, True)}


def test_a_right_cv_bridge_serves_whatever_it_prints(installed):
    decoder = installed(at_import="print('noise'); print('mono16 False', file=sys.stderr)")
    assert decoder.served == KNOWN
    assert str(decoder).startswith("cv_bridge (kosmos_ros's own table: rgba8, ")
    assert "big-endian" not in str(decoder)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise KeyError('boom')", "KeyError: 'boom'"),
        ("pixels = pixels ^ 1", "other pixels"),
        ("pixels = pixels[:, 1:]", "other pixels"),
        ("raise AttributeError('_ARRAY_API not found')", "other pixels"),
    ],
)
def test_a_wrong_or_deadly_cv_bridge_is_not_used(installed, fault, why):
    decoder = installed(fault)
    assert not decoder.served
    assert str(decoder).startswith("kosmos_ros's own table (cv_bridge ")
    assert why in str(decoder)
    assert decoder.decode(message("bgr8"), LIMIT).tolist() == np.array(CASES["bgr8"][1]).tolist()


@pytest.mark.parametrize(
    "at_import", ["import no_such_module_of_cv_bridge", "os.abort()", "raise AttributeError('x')"]
)
def test_a_cv_bridge_that_does_not_load_is_not_used(installed, at_import):
    decoder = installed(at_import=at_import)
    assert not decoder.served
    assert f"NumPy {np.__version__}" in str(decoder)


def test_a_cv_bridge_that_hangs_is_given_up(installed, monkeypatch):
    monkeypatch.setattr(bridge, "TRIAL_TIMEOUT", 0.2)
    decoder = installed(at_import="time.sleep(600)")
    assert not decoder.served
    assert "did not load in 0.2 s" in str(decoder)


def test_each_encoding_and_byte_order_is_judged_by_itself(installed):
    decoder = installed(
        "if frame.is_bigendian: pixels.newbyteorder_of_numpy_1()\n"
        "        if frame.encoding == 'bgr8' and frame.step > 24: pixels = pixels[:, ::-1]"
    )
    assert decoder.served == {("rgb8", False), ("mono8", False)}
    assert "big-endian frames" in str(decoder)
    for encoding in ("rgb8", "bgr8", "mono8"):
        for big in (False, True):
            image = decoder.decode(message(encoding, big=big), LIMIT)
            assert image.tolist() == np.array(CASES[encoding][1]).tolist()


def test_rows_padded_by_part_of_a_pixel_are_left_to_the_table(installed):
    decoder = installed()
    padded = message("nv12")  # three rows, of which any 8-bit encoding can be read
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

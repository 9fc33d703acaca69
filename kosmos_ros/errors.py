# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every error that kosmos_ros raises on purpose, in one tree.

    KosmosError
    ├── ConfigError          a parameter or option that can never work
    ├── ModelError           the model cannot be used
    │   ├── ModelLoadError       weights, tokenizer or processor missing, unsafe or of another kind
    │   │   └── UnreachableError     they cannot be had now; later they may
    │   ├── GenerationError      the model ran and gave nothing usable
    │   │   └── OutOfMemoryError     it was too much at once; less may do
    │   └── DeviceLostError      the device is unusable until the process is started anew
    ├── ImageError           one picture that cannot be decoded; the next one may be fine
    │   ├── EncodingError        encoding or compression that is not supported
    │   └── ImageSizeError       size, step or data length that contradict each other or a limit
    ├── RequestError         a question, phrase or region that cannot be asked
    │   ├── PromptError          text that is empty, too long or holds KOSMOS-2's own tags
    │   └── RegionError          a region that is empty, inverted or outside the picture
    ├── QueueFullError       more requests wait than the queue holds
    ├── NotReadyError        the model is not loaded, or no picture has come in time
    └── CancelledError       the work was stopped before it ended

Messages name the thing, its value and what would be right.
"""


class KosmosError(Exception):
    """Root of the tree; never raised itself."""


class ConfigError(KosmosError):
    """A parameter or option that can never work."""


class ModelError(KosmosError):
    """The model cannot be used."""


class ModelLoadError(ModelError):
    """Weights, tokenizer or processor are missing, unsafe or of another kind."""


class UnreachableError(ModelLoadError):
    """The model's files cannot be had now; later they may."""


class GenerationError(ModelError):
    """The model ran and gave nothing usable."""


class OutOfMemoryError(GenerationError):
    """It was too much for the device's memory at once; less may do."""


class DeviceLostError(ModelError):
    """The device is unusable until the process is started anew."""


class ImageError(KosmosError):
    """One picture that cannot be decoded; the next one may be fine."""


class EncodingError(ImageError):
    """An encoding or compression that is not supported."""


class ImageSizeError(ImageError):
    """Size, step or data length that contradict each other or a limit."""


class RequestError(KosmosError):
    """A question, phrase or region that cannot be asked."""


class PromptError(RequestError):
    """Text that is empty, too long or holds KOSMOS-2's own tags."""


class RegionError(RequestError):
    """A region that is empty, inverted or outside the picture."""


class QueueFullError(KosmosError):
    """More requests wait than the queue holds."""


class NotReadyError(KosmosError):
    """The model is not loaded, or no picture has come in time."""


class CancelledError(KosmosError):
    """The work was stopped before it ended."""

# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The errors of kosmos_ros, in one tree.

    KosmosError
    ├── ConfigError          a parameter or option has a value that can never work
    ├── ModelError           the model cannot be used
    │   ├── ModelLoadError       weights, tokenizer or processor are missing, unsafe or wrong
    │   │   └── UnreachableError     the files cannot be downloaded now; a retry may help
    │   ├── GenerationError      the model ran but gave no usable result
    │   │   └── OutOfMemoryError     the device has too little memory for so much work at once
    │   └── DeviceLostError      the device is unusable until the process restarts
    ├── ImageError           one image cannot be decoded; the next one may be fine
    │   ├── EncodingError        its encoding or compression is not supported
    │   └── ImageSizeError       its size, step or data length is inconsistent or beyond a limit
    ├── RequestError         a question, phrase or region is not valid
    │   ├── PromptError          text is empty, too long or contains KOSMOS-2's reserved tags
    │   └── RegionError          a region is empty, inverted or outside the image
    ├── QueueFullError       the request queue is full
    ├── LogError             an observation log cannot be read or written now
    ├── NotReadyError        the model is not loaded, or no image has arrived in time
    └── CancelledError       the work was stopped before its end

A message names the thing, its value, and the valid values or the command that helps.
"""


class KosmosError(Exception):
    """The base class of all errors of kosmos_ros; never raised itself."""


class ConfigError(KosmosError):
    """A parameter or option has a value that can never work."""


class ModelError(KosmosError):
    """The model cannot be used."""


class ModelLoadError(ModelError):
    """Weights, tokenizer or processor are missing, unsafe or wrong."""


class UnreachableError(ModelLoadError):
    """The model's files cannot be downloaded now; a retry may help."""


class GenerationError(ModelError):
    """The model ran but gave no usable result."""


class OutOfMemoryError(GenerationError):
    """The device has too little memory for so much work at once; less work may succeed."""


class DeviceLostError(ModelError):
    """The device is unusable until the process restarts."""


class ImageError(KosmosError):
    """One image cannot be decoded; the next one may be fine."""


class EncodingError(ImageError):
    """The encoding or compression of an image is not supported."""


class ImageSizeError(ImageError):
    """The size, step or data length of an image is inconsistent or beyond a limit."""


class RequestError(KosmosError):
    """A question, phrase or region is not valid."""


class PromptError(RequestError):
    """Text is empty, too long or contains KOSMOS-2's reserved tags."""


class RegionError(RequestError):
    """A region is empty, inverted or outside the image."""


class QueueFullError(KosmosError):
    """The request queue is full."""


class LogError(KosmosError):
    """An observation log cannot be read or written now; a retry may help."""


class NotReadyError(KosmosError):
    """The model is not loaded, or no image has arrived in time."""


class CancelledError(KosmosError):
    """The work was stopped before its end."""

# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model's files, from the hub onto this machine, each checked by its hash.

Knows names, hashes and the cache of huggingface_hub, which does the transfer; never looks into
a file of weights.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from kosmos_ros import shapes
from kosmos_ros.errors import ConfigError, ModelLoadError, UnreachableError
from kosmos_ros.sanitize import MAX_VALUE, first_line, one_line

TransferError: type[Exception] = HfHubHTTPError.__bases__[0]
"""Of the library that huggingface_hub transfers with, which its versions have another one of."""

COMMITS = {"microsoft/kosmos-2-patch14-224": "e91cfbcb4ce051b6a55bfb5f96165a3bbf5eb82c"}
"""What an empty revision means, for models that this package was written for."""

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
INDEX = "model.safetensors.index.json"  # of weights in several files
NEEDED = (  # one of each, beside the weights
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "sentencepiece.bpe.model"),
)
OPTIONAL = (
    INDEX,
    "added_tokens.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
NAMES = {*OPTIONAL, *(name for names in NEEDED for name in names)}
"""Files that are fetched beside the weights: no code, no pickle."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOLCK)
BUSY = (408, 429)  # HTTP's request timeout and too many requests
CHUNK = 1 << 20  # bytes, of a file that is checked
RANGE = 16 << 20  # bytes that are asked for at a time


@dataclass(frozen=True)
class Files:
    """Where a model's files are."""

    folder: Path
    commit: str  # empty for a directory of one's own


@dataclass(frozen=True)
class Entry:
    """A file as the hub lists it."""

    name: str
    size: int  # bytes
    hash: str  # hexadecimal
    kind: str  # SHA-256 of its bytes, or SHA-1 as git has it


def find(model: str, revision: str = "", local_files_only: bool = False) -> Files:
    """The files of `model`: "shapes" (embedded), a directory or a Hugging Face id.

    The network is asked only for what is not on this machine, and never with `local_files_only`.
    Raises ConfigError for a name or revision that can never be, and ModelLoadError when there
    are no such files or the hub does not give them, UnreachableError where later it may.
    """
    path = shapes.MODEL_DIR if model == "shapes" else Path(model).expanduser()
    if path.is_dir():
        if revision:
            what = "the embedded one" if model == "shapes" else "a directory"
            raise ConfigError(
                f"revision is {revision!r}, but model {model!r} is {what}; "
                "only a Hugging Face id has revisions"
            )
        return Files(path, "")
    if path.is_file() or model.startswith(("/", ".", "~")):
        raise ModelLoadError(f"model {model!r}: there is no directory {path.absolute()}")
    _check_id(model)
    config = _cached(model, "config.json", _revision(model, revision))
    if config and not (lacking := _lacking(config.parent)):
        return Files(config.parent, config.parent.name)
    if config:
        reason = f"{config.parent} lacks {lacking}"
    else:
        reason = f"{_named(model, revision)} is not in {huggingface_hub.constants.HF_HUB_CACHE}"
    kind = ModelLoadError
    if not local_files_only:
        try:
            return fetch(model, revision)
        except ModelLoadError as exc:
            kind = type(exc)
            reason += f"; {exc}"
    raise kind(f"{reason}; {command(model, revision)!r} fetches it, where there is a network")


def fetch(model: str, revision: str = "") -> Files:
    """Download what is not there yet, or is damaged, into huggingface_hub's cache.

    A download that was cut off goes on where it stopped. Every file is compared with the hash
    that the hub lists; one that differs is removed. Raises ConfigError for what is no id, and
    ModelLoadError for a model that cannot be had or is not what the hub says; UnreachableError
    where the network or the hub fails, which may pass.
    """
    named = _named(model, revision)
    _check_id(model)
    revision = _revision(model, revision)
    try:
        commit, entries = _listed(model, revision)
        for entry in entries:
            path = _cached(model, entry.name, commit)
            if path and _hash(path, entry) != entry.hash:
                _remove(path)
                path = None
            if not path:
                _download(model, commit, entry)
        # Nothing comes any more: this writes down which commit a branch or tag is.
        folder = Path(
            huggingface_hub.hf_hub_download(model, "config.json", revision=revision)
        ).parent
        if folder.name != commit:
            raise ModelLoadError(f"revision {revision!r} has moved meanwhile; fetch it again")
        if lacking := _lacking(folder):
            raise ModelLoadError(f"it has no {lacking}")
    except (OSError, TransferError, json.JSONDecodeError) as exc:  # the last: no hub answers
        kind = UnreachableError if _may_pass(exc) else ModelLoadError
        raise kind(f"{named} cannot be fetched: {_reason(exc, revision)}") from exc
    except ModelLoadError as exc:
        raise ModelLoadError(f"{named} cannot be fetched: {exc}") from exc
    return Files(folder, commit)


def command(model: str, revision: str = "") -> str:
    """What fetches a model, for people."""
    words = ["kosmos", "fetch", "--model", model]
    return shlex.join(words + (["--revision", revision] if revision else []))


def hub() -> str:
    """The hub's address."""
    return huggingface_hub.constants.ENDPOINT


def _named(model: str, revision: str) -> str:
    return f"model {model!r}" + (f" of revision {revision!r}" if revision else "")


def _revision(model: str, revision: str) -> str:
    return revision or COMMITS.get(model, "main")


def _check_id(model: str) -> None:
    if model == "shapes" or Path(model).expanduser().exists():
        raise ConfigError(f"model {model!r} is on this machine; a Hugging Face id is needed")
    try:
        _cached(model, "config.json", "main")
    except HFValidationError as exc:
        raise ConfigError(f"model {model!r} is no Hugging Face id") from exc


def _cached(model: str, name: str, revision: str) -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(model, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _lacking(folder: Path) -> str:
    """A name of what is missing in a folder of the cache; empty: nothing is."""
    for names in NEEDED:
        if not any((folder / name).is_file() for name in names):
            return names[0]
    parts = {"model.safetensors"}
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        try:
            parts = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            return f"a sound {INDEX}"
    return next(
        (one_line(name, MAX_VALUE) for name in sorted(parts) if not (folder / name).is_file()), ""
    )


def _listed(model: str, revision: str) -> tuple[str, list[Entry]]:
    """The commit that `revision` is, and those of its files that are wanted."""
    info = huggingface_hub.HfApi().model_info(model, revision=revision, files_metadata=True)
    entries = list(_entries(info.siblings or []))
    if not any(WEIGHTS.fullmatch(entry.name) for entry in entries):
        raise ModelLoadError("it has no model.safetensors, and nothing else is read")
    if not any(entry.name == "config.json" for entry in entries):
        raise ModelLoadError("it has no config.json")
    # The weights last, and of the others the small ones first.
    return str(info.sha), sorted(entries, key=lambda e: (bool(WEIGHTS.match(e.name)), e.size))


def _entries(siblings: list[huggingface_hub.hf_api.RepoSibling]) -> Iterator[Entry]:
    for file in siblings:
        if file.rfilename not in NAMES and not WEIGHTS.fullmatch(file.rfilename):
            continue
        if file.lfs:
            yield Entry(file.rfilename, file.size or 0, file.lfs["sha256"], "SHA-256")
        elif file.blob_id:
            yield Entry(file.rfilename, file.size or 0, file.blob_id, "SHA-1 of git")
        else:
            raise ModelLoadError(f"the hub does not list the hash of {file.rfilename}")


def _download(model: str, commit: str, entry: Entry) -> None:
    blob = _blob(model, commit, entry) if WEIGHTS.fullmatch(entry.name) else None
    # Of a blob that is there, this makes the name by which it is found.
    path = Path(huggingface_hub.hf_hub_download(model, entry.name, revision=commit))
    if path.resolve() != blob:
        _check(path, entry)


def _blob(model: str, commit: str, entry: Entry) -> Path:
    """A large file, where hf_hub_download takes it from, which itself begins anew after a kill."""
    config = _cached(model, "config.json", commit)
    assert config, "small files come first"
    blob = config.parents[2].resolve() / "blobs" / entry.hash
    part = blob.with_suffix(".part")
    source = f"{model}/{entry.name}"
    with (
        part.open("ab", buffering=0) as file,
        huggingface_hub.HfFileSystem().open(
            source, "rb", revision=commit, size=entry.size, cache_type="none"
        ) as remote,
        _bar(entry.name, entry.size) as bar,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)  # two nodes may start together
        if blob.exists():
            part.unlink(missing_ok=True)  # a new one, if it was moved before this opened it
            return blob
        file.seek(0, os.SEEK_END)  # the other one may have got further
        bar.update(file.tell())
        remote.seek(min(file.tell(), entry.size))
        while data := remote.read(RANGE):
            file.write(data)
            bar.update(len(data))
        _check(part, entry)
        part.rename(blob)
    return blob


def _check(path: Path, entry: Entry) -> None:
    got = _hash(path, entry)
    if got != entry.hash:
        _remove(path)
        raise ModelLoadError(
            f"{entry.name} has the {entry.kind} {got}, but {entry.hash} is listed; it was removed"
        )


def _hash(path: Path, entry: Entry) -> str:
    size = path.stat().st_size
    # git's hash covers a header as well: git-scm.com/book, "Git Internals - Git Objects".
    header = b"blob %d\0" % size
    digest = hashlib.sha256() if entry.kind == "SHA-256" else hashlib.sha1(header)
    with path.open("rb") as file, _bar(f"{entry.name}, checked", size) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _bar(name: str, size: int) -> tqdm:
    # None: a bar is for terminals.
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None)


def _remove(path: Path) -> None:
    path.resolve().unlink()  # a snapshot's files are links
    path.unlink(missing_ok=True)


def _may_pass(exc: Exception) -> bool:
    """Whether it is the network's or the hub's trouble, not the disk's or the model's."""
    if isinstance(exc, tuple(_REASONS)):
        return False
    if isinstance(exc, OSError) and (exc.filename or exc.errno in DISK):
        return False
    status = getattr(getattr(exc, "response", None), "status_code", 500)
    return status >= 500 or status in BUSY


def _reason(exc: Exception, revision: str) -> str:
    for kind, reason in _REASONS.items():
        if isinstance(exc, kind):
            return reason.format(revision=revision, hub=hub())
    of_disk = isinstance(exc, OSError) and exc.filename
    return first_line(exc) if of_disk else f"{hub()}: {first_line(exc)}"


_REASONS = {
    OfflineModeIsEnabled: "HF_HUB_OFFLINE forbids the network",
    GatedRepoError: "{hub} has it for those who accepted its terms; 'hf auth login' says who asks",
    RevisionNotFoundError: "it has no revision {revision!r} at {hub}",
    RepositoryNotFoundError: "{hub} does not have it, or for others only",
}
"""What to say of huggingface_hub's errors; the special ones first."""

# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find a model's files on this machine, or download them from the Hugging Face hub.

Compares every downloaded file with the hash that the hub lists. huggingface_hub transfers the
files and owns the cache. Knows names, hashes and that cache; never reads the contents of weights.
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
"""Base error of huggingface_hub's HTTP client, which differs between its versions."""

COMMITS = {"microsoft/kosmos-2-patch14-224": "e91cfbcb4ce051b6a55bfb5f96165a3bbf5eb82c"}
"""Model: the commit to use if the revision is empty."""

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
INDEX = "model.safetensors.index.json"  # names the files of weights, if several
REQUIRED = (  # one file of each line, in addition to the weights
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
NAMES = {*OPTIONAL, *(name for names in REQUIRED for name in names)}
"""Files that are downloaded in addition to the weights: no code, no pickle."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOLCK)
BUSY_STATUSES = (408, 429)  # HTTP: request timeout, too many requests
HASH_CHUNK = 1 << 20  # bytes that are hashed at a time
RANGE = 16 << 20  # bytes of one HTTP request for weights


@dataclass(frozen=True)
class Files:
    """A folder with a model's files."""

    folder: Path
    commit: str  # empty for shapes and for a directory


@dataclass(frozen=True)
class Entry:
    """A file as the hub lists it."""

    name: str
    size: int  # bytes
    hash: str  # hexadecimal
    kind: str  # of the hash: SHA-256 of the file, or git's SHA-1


def find(model: str, revision: str = "", local_files_only: bool = False) -> Files:
    """Return the files of `model`: "shapes" (embedded), a directory or a Hugging Face id.

    Downloads only files that are not on this machine, and none with `local_files_only`.
    Raises ConfigError for an invalid name or revision; ModelLoadError if the files do not exist
    or the hub refuses them; UnreachableError if a retry may help.
    """
    if files := _directory(model, revision):
        return files
    _check_id(model)
    config = _cached(model, "config.json", _commit_or_name(model, revision))
    if config and not (missing := _missing(config.parent)):
        return Files(config.parent, config.parent.name)
    if config:
        reason = f"{config.parent} lacks {missing}"
    else:
        reason = f"{_named(model, revision)} is not in {huggingface_hub.constants.HF_HUB_CACHE}"
    kind = ModelLoadError
    if not local_files_only:
        try:
            return fetch(model, revision)
        except ModelLoadError as exc:
            kind = type(exc)
            reason += f"; {exc}"
    raise kind(f"{reason}; download it with {command(model, revision)!r}")


def fetch(model: str, revision: str = "") -> Files:
    """Download the files of a Hugging Face id that are missing or damaged, and return all.

    Resumes an interrupted download, compares every file with the hash that the hub lists, and
    removes a file that differs. Raises ConfigError for a name that is no id; ModelLoadError if
    the hub refuses the model or its files are wrong; UnreachableError if the network or the hub
    fails, so that a retry may help.
    """
    named = _named(model, revision)
    _check_id(model)
    revision = _commit_or_name(model, revision)
    try:
        commit, entries = _listed(model, revision)
        for entry in entries:
            _complete(model, commit, entry)
        return _snapshot(model, revision, commit)
    except (OSError, TransferError, json.JSONDecodeError) as exc:  # JSON: the server is not a hub
        kind = UnreachableError if _may_pass(exc) else ModelLoadError
        raise kind(f"{named} cannot be fetched: {_reason(exc, revision)}") from exc
    except ModelLoadError as exc:
        raise ModelLoadError(f"{named} cannot be fetched: {exc}") from exc


def command(model: str, revision: str = "") -> str:
    """Return the command that downloads a model, for messages."""
    words = ["kosmos", "fetch", "--model", model]
    return shlex.join(words + (["--revision", revision] if revision else []))


def hub() -> str:
    """Return the hub's address."""
    return huggingface_hub.constants.ENDPOINT


def _directory(model: str, revision: str) -> Files | None:
    """Return the files of the embedded model or of a directory; None if `model` may be an id."""
    path = shapes.MODEL_DIR if model == "shapes" else Path(model).expanduser()
    if path.is_dir():
        if revision:
            what = "the embedded one" if model == "shapes" else "a directory"
            raise ConfigError(
                f"revision must be empty for model {model!r}, which is {what}, got {revision!r}; "
                "only a Hugging Face id has revisions"
            )
        return Files(path, "")
    if path.is_file() or model.startswith(("/", ".", "~")):
        raise ModelLoadError(f"model {model!r}: directory {path.absolute()} does not exist")
    return None


def _named(model: str, revision: str) -> str:
    return f"model {model!r}" + (f" of revision {revision!r}" if revision else "")


def _commit_or_name(model: str, revision: str) -> str:
    return revision or COMMITS.get(model, "main")


def _check_id(model: str) -> None:
    if model == "shapes" or Path(model).expanduser().exists():
        raise ConfigError(f"model must be a Hugging Face id, got {model!r}, which is a local path")
    try:
        _cached(model, "config.json", "main")
    except HFValidationError as exc:
        raise ConfigError(f"model must be a Hugging Face id, got {model!r}") from exc


def _cached(model: str, name: str, revision: str) -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(model, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _missing(folder: Path) -> str:
    """Return the name of a missing file in a folder of the cache, or an empty string."""
    for names in REQUIRED:
        if not any((folder / name).is_file() for name in names):
            return names[0]
    parts = {"model.safetensors"}
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        try:
            parts = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            return f"a valid {INDEX}"
    return next(
        (one_line(name, MAX_VALUE) for name in sorted(parts) if not (folder / name).is_file()), ""
    )


def _listed(model: str, revision: str) -> tuple[str, list[Entry]]:
    """Return the commit of `revision` and the entries of its files to download, in order."""
    info = huggingface_hub.HfApi().model_info(model, revision=revision, files_metadata=True)
    entries = list(_entries(info.siblings or []))
    if not any(WEIGHTS.fullmatch(entry.name) for entry in entries):
        raise ModelLoadError("it has no model.safetensors; weights in other formats are not read")
    if not any(entry.name == "config.json" for entry in entries):
        raise ModelLoadError("it has no config.json")
    # Small files first, so that a wrong one is noticed before the weights.
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


def _complete(model: str, commit: str, entry: Entry) -> None:
    """Download a file if it is missing or damaged."""
    path = _cached(model, entry.name, commit)
    if path and _hash(path, entry) == entry.hash:
        return
    if path:
        _remove(path)
    blob = _download_weights(model, commit, entry) if WEIGHTS.fullmatch(entry.name) else None
    # If the blob exists, this only links its name to it.
    path = Path(huggingface_hub.hf_hub_download(model, entry.name, revision=commit))
    if path.resolve() != blob:
        _check(path, entry)


def _snapshot(model: str, revision: str, commit: str) -> Files:
    """Return the complete folder of `commit`."""
    # All files exist already. This call records the commit of a branch or tag in the cache.
    config = huggingface_hub.hf_hub_download(model, "config.json", revision=revision)
    folder = Path(config).parent
    if folder.name != commit:
        raise ModelLoadError(f"revision {revision!r} moved during the download; fetch it again")
    if missing := _missing(folder):
        raise ModelLoadError(f"it has no {missing}")
    return Files(folder, commit)


def _download_weights(model: str, commit: str, entry: Entry) -> Path:
    """Download a large file to the place in the cache where hf_hub_download finds it.

    Resumes after the process was killed; hf_hub_download would start again from the first byte.
    """
    config = _cached(model, "config.json", commit)
    assert config, "config.json must come before the weights"
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
        fcntl.flock(file, fcntl.LOCK_EX)  # two processes may download at once
        if blob.exists():
            part.unlink(missing_ok=True)  # an empty file, if the other process had renamed its own
            return blob
        file.seek(0, os.SEEK_END)  # the other process may have written more
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
            f"{entry.name} must have the {entry.kind} {entry.hash}, got {got}; it was removed"
        )


def _hash(path: Path, entry: Entry) -> str:
    size = path.stat().st_size
    # git also hashes a header: git-scm.com/book, "Git Internals - Git Objects".
    header = b"blob %d\0" % size
    digest = hashlib.sha256() if entry.kind == "SHA-256" else hashlib.sha1(header)
    with path.open("rb") as file, _bar(f"check {entry.name}", size) as bar:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _bar(name: str, size: int) -> tqdm:
    # None: show the bar only in a terminal.
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None)


def _remove(path: Path) -> None:
    path.resolve().unlink()  # the files of a snapshot are links
    path.unlink(missing_ok=True)


def _may_pass(exc: Exception) -> bool:
    """Return whether the network or the hub is the cause, and not the disk or the model."""
    if isinstance(exc, tuple(_REASONS)):
        return False
    if isinstance(exc, OSError) and (exc.filename or exc.errno in DISK_ERRORS):
        return False
    status = getattr(getattr(exc, "response", None), "status_code", 500)
    return status >= 500 or status in BUSY_STATUSES


def _reason(exc: Exception, revision: str) -> str:
    for kind, reason in _REASONS.items():
        if isinstance(exc, kind):
            return reason.format(revision=revision, hub=hub())
    of_disk = isinstance(exc, OSError) and exc.filename
    return first_line(exc) if of_disk else f"{hub()}: {first_line(exc)}"


_REASONS = {
    OfflineModeIsEnabled: "HF_HUB_OFFLINE is set and forbids downloads; unset it",
    GatedRepoError: "accept the terms of the model at {hub} and "
    "log in with 'hf auth login' and an account that may read it",
    RevisionNotFoundError: "it has no revision {revision!r} at {hub}",
    RepositoryNotFoundError: "{hub} has no model of this name that you may read; "
    "check the name, or log in with 'hf auth login'",
}
"""Error of huggingface_hub: message; subclasses first."""

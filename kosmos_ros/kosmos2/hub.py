# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find a model's files on this machine, or download them from the Hugging Face hub.

Compares every downloaded file with the hash that the hub lists. Knows the names of models and
files, and what a hub's list may contain; never reads the contents of weights.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import reprlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from kosmos_ros import shapes
from kosmos_ros.errors import ConfigError, ModelLoadError, UnreachableError
from kosmos_ros.kosmos2 import download, json_file
from kosmos_ros.kosmos2.cache import COMMIT, HASHES, Entry, Snapshot
from kosmos_ros.kosmos2.progress import DOWNLOADING, Report, unreported
from kosmos_ros.sanitize import MAX_VALUE, one_line, quoted

COMMITS = {"microsoft/kosmos-2-patch14-224": "e91cfbcb4ce051b6a55bfb5f96165a3bbf5eb82c"}
"""Model: the commit to use if the revision is empty."""

WEIGHTS = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
INDEX = "model.safetensors.index.json"  # names the files of weights, if several
REQUIRED = (  # one file of each line is required, in addition to the weights
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

MAX_LISTING = 1_000_000  # bytes; KOSMOS-2's has 10 kB
MAX_SMALL = 16 << 20  # bytes of a file other than weights; the largest of KOSMOS-2 has 5 MB
MAX_TOTAL = 64 << 30  # bytes of all files, 10 times KOSMOS-2
MAX_PARTS = 100  # files of weights, of 5 GB each by default; their headers stay in memory
MAX_REVISION = 255  # bytes of the name of a branch
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota or a file is full


@dataclass(frozen=True)
class Files:
    """A folder with a model's files."""

    folder: Path
    commit: str  # empty for shapes and for a directory


def find(
    model: str,
    revision: str = "",
    local_files_only: bool = False,
    report: Report = unreported,
) -> Files:
    """Return the files of `model`: "shapes" (embedded), a directory or a Hugging Face id.

    Downloads only files that are not on this machine, and none with `local_files_only`. Reports
    the bytes of all files.
    Raises ConfigError for an invalid name or revision; ModelLoadError if the files do not exist
    or the hub refuses them; UnreachableError if a retry may help.
    """
    if files := _directory(model, revision):
        return files
    _check_id(model)
    repo = _repo(model)
    try:
        folder = _cached(repo, _commit_or_name(model, revision))
        missing = _missing(folder) if folder else ""
    except OSError as exc:
        raise ModelLoadError(f"{_named(model, revision)}: {_of_disk(exc, repo)}") from exc
    if folder and not missing:
        return Files(folder, folder.name)
    if folder:
        reason = f"{folder} lacks {missing}"
    else:
        reason = f"{_named(model, revision)} is not in {constants.HF_HUB_CACHE}"
    if not local_files_only:
        try:
            return fetch(model, revision, report)
        except UnreachableError as exc:
            raise UnreachableError(
                f"{reason}; {exc}; try again when {download.address()} can be reached"
            ) from exc
        except ModelLoadError as exc:
            reason += f"; {exc}"
    raise ModelLoadError(f"{reason}; download it with {command(model, revision)!r}")


def fetch(model: str, revision: str = "", report: Report = unreported) -> Files:
    """Download the missing and damaged files of a Hugging Face id. Return all files.

    Resumes an interrupted download, compares every file with the hash that the hub lists, and
    removes a file that differs. Reports the bytes of all files. Raises ConfigError if `model` is
    not an id; ModelLoadError if the hub refuses the model or its files are wrong;
    UnreachableError if the network or the hub fails, so that a retry may help.
    """
    _check_id(model)
    named = _named(model, revision or COMMITS.get(model, ""))
    revision, repo = _commit_or_name(model, revision), _repo(model)
    try:
        path = f"/api/models/{model}/revision/{quote(revision, safe='')}?blobs=true"
        commit, entries = listed(download.read(path, MAX_LISTING))
        if COMMIT.fullmatch(revision) and commit != revision:
            raise ModelLoadError(f"{download.address()} must list commit {revision}, got {commit}")
        snapshot = Snapshot(repo, commit)
        total, before = sum(entry.size for entry in entries), 0
        for entry in entries:
            here = functools.partial(_report, report, before, total)
            here(0)
            snapshot.complete(entry, f"/{model}/resolve/{commit}/{entry.name}", here)
            before += entry.size
        _report(report, 0, total, before)
        if missing := _missing(snapshot.folder):
            raise ModelLoadError(f"it lacks {missing}")
        if not COMMIT.fullmatch(revision):
            snapshot.name(revision)
        return Files(snapshot.folder, commit)
    except OSError as exc:  # an error of the disk; `download` translates errors of the network
        raise ModelLoadError(f"{named} cannot be fetched: {_of_disk(exc, repo)}") from exc
    except ModelLoadError as exc:
        raise type(exc)(download.masked(f"{named} cannot be fetched: {exc}")) from exc


def _report(report: Report, before: int, total: int, here: int) -> None:
    """Report the bytes of this file on this machine (`here`) and of the files before it."""
    report(DOWNLOADING, before + here, total)


def command(model: str, revision: str = "") -> str:
    """Return the command that downloads a model, for messages."""
    words = ["kosmos", "fetch", "--model", model]
    return shlex.join(words + (["--revision", revision] if revision else []))


def _directory(model: str, revision: str) -> Files | None:
    """Return the files of the embedded model or of a directory; None if `model` may be an id."""
    path = shapes.MODEL_DIR if model == "shapes" else Path(os.path.expanduser(model))
    if os.path.isdir(path):
        if revision:
            what = "the embedded one" if model == "shapes" else "a directory"
            raise ConfigError(
                f"revision must be empty for model {model!r}, which is {what}, got {revision!r}; "
                "only a Hugging Face id has revisions"
            )
        return Files(path, "")
    if os.path.isfile(path) or model.startswith(("/", ".", "~")):
        raise ModelLoadError(f"model {model!r}: directory {path.absolute()} does not exist")
    return None


def _of_disk(exc: OSError, repo: Path) -> str:
    reason = f"{exc.filename or repo}: {exc.strerror or exc}"
    if exc.errno in FULL:
        return f"disk full: {reason}; free space there, and the next download continues"
    return reason


def _named(model: str, revision: str) -> str:
    return f"model {model!r}" + (f" of revision {revision!r}" if revision else "")


def _commit_or_name(model: str, revision: str) -> str:
    """Return a revision as the cache and the hub spell it."""
    revision = revision or COMMITS.get(model, "main")
    leaves = {"", ".", ".."} & set(revision.split("/"))
    if leaves or not revision.isprintable() or len(revision.encode()) > MAX_REVISION:
        raise ConfigError(f"revision must be a branch, tag or commit, got {quoted(revision)}")
    return revision.lower() if COMMIT.fullmatch(revision.lower()) else revision


def _check_id(model: str) -> None:
    if model == "shapes" or os.path.exists(os.path.expanduser(model)):
        raise ConfigError(f"model must be a Hugging Face id, got {model!r}, which is a local path")
    try:
        validate_repo_id(model)
    except HFValidationError as exc:
        raise ConfigError(f"model must be a Hugging Face id, got {model!r}") from exc


def _repo(model: str) -> Path:
    """Return the folder of a model in the cache."""
    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE, name)


def _cached(repo: Path, revision: str) -> Path | None:
    """Return the folder of a revision, if it is in the cache. A commit needs no entry in refs."""
    ref = repo / "refs" / revision
    if not COMMIT.fullmatch(revision) and ref.is_file():
        with ref.open("rb") as file:
            revision = file.read(MAX_REVISION).decode("ascii", "replace").strip()
    folder = repo / "snapshots" / revision
    return folder if COMMIT.fullmatch(revision) and (folder / "config.json").is_file() else None


def _missing(folder: Path) -> str:
    """Return the name of a missing file in a folder of the cache, or an empty string."""
    for names in REQUIRED:
        if not any((folder / name).is_file() for name in names):
            return names[0]
    parts = {"model.safetensors"}
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        parts = _parts(folder)
        if not parts:
            return f"a valid {INDEX}"
    return next((name for name in sorted(parts) if not (folder / name).is_file()), "")


def _parts(folder: Path) -> set[str]:
    """Return the names of weights in the index of a folder; none if it is not valid."""
    try:
        names = json_file.read(folder / INDEX)["weight_map"].values()
        return set(names) if all(map(WEIGHTS.fullmatch, names)) else set()
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


def listed(body: bytes) -> tuple[str, list[Entry]]:
    """Return the commit and the files to download, in order, that a hub's response lists.

    Raises UnreachableError if the response is not JSON; ModelLoadError if the list is not valid.
    """
    try:
        info = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UnreachableError(
            f"{download.address()} must list files in JSON; check the network and HF_ENDPOINT"
        ) from exc
    match info:
        case {"sha": str(commit), "siblings": list(files)} if COMMIT.fullmatch(commit):
            entries = [entry for file in files if (entry := _entry(file))]
        case _:
            raise ModelLoadError(f"{download.address()} must list a commit and files")
    names = {entry.name for entry in entries}
    weights = names - NAMES
    if len(names) < len(entries) or sum(entry.size for entry in entries) > MAX_TOTAL:
        raise ModelLoadError(
            f"{download.address()} must list each file once, with at most {MAX_TOTAL} bytes in all"
        )
    if len(weights) > MAX_PARTS:
        raise ModelLoadError(
            f"{download.address()} must list at most {MAX_PARTS} files of weights, "
            f"got {len(weights)}"
        )
    if not weights:
        raise ModelLoadError("it has no model.safetensors; weights in other formats are not read")
    for alternatives in REQUIRED:
        if not names.intersection(alternatives):
            raise ModelLoadError(f"it has no {alternatives[0]}")
    # Small files first, so that a wrong one is noticed before the weights.
    return commit, sorted(entries, key=lambda e: (bool(WEIGHTS.match(e.name)), e.size))


def _entry(file: Any) -> Entry | None:
    """Return a listed file, or None if the model does not need it."""
    match file:
        case {"rfilename": str(name)} if name not in NAMES and not WEIGHTS.fullmatch(name):
            return None
        case {"rfilename": str(name), "lfs": {"sha256": str(hash), "size": int(size)}}:
            entry = Entry(name, size, hash, "SHA-256")
        case {"rfilename": str(name), "blobId": str(hash), "size": int(size)}:
            entry = Entry(name, size, hash, "SHA-1 of git")
        case _:
            got = one_line(reprlib.repr(file), MAX_VALUE)  # repr fails if it is nested too deeply
            raise ModelLoadError(
                f"{download.address()} must list name, size and hash of each file, got {got}"
            )
    most = MAX_TOTAL if WEIGHTS.fullmatch(name) else MAX_SMALL
    if not HASHES[entry.kind].fullmatch(hash):
        raise ModelLoadError(f"{name} must have a {entry.kind} in hex, got {quoted(hash)}")
    if isinstance(size, bool) or not 0 <= size <= most:
        raise ModelLoadError(f"{name} must have 0 to {most} bytes, got {quoted(size)}")
    return entry

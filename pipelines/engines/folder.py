"""A model's folder: where it is, and what is in it."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from schemas.errors import EngineError, MissingExtra
from schemas.record import digest

# Pickled weights are never fetched: loading them would run what is in them.
LOADED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]

_hashes: dict[tuple[str, int, int], str] = {}


def model_folder(model: str, revision: str | None = None) -> Path:
    """Folder of a model that is given as a local path or as a Hugging Face Hub id (`org/name`).

    A Hub id is looked up in the local cache first and downloaded if it is not there whole.
    Raises EngineError where there is no such folder or the download fails.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise EngineError(
                f"{model} holds no config.json; give a folder written by save_pretrained"
            )
        return folder.resolve()
    if folder.is_absolute() or model.count("/") != 1 or model.startswith("."):
        raise EngineError(
            f"model folder {model} does not exist; give a folder or a Hub id (org/name)"
        )
    return _hub_folder(model, revision)


def folder_digest(path: Path) -> str:
    """32 hex digits over the names and contents of all files; README.md and hidden files aside.

    A file is read once in a process for each (path, size, modification time). Raises EngineError
    where there is nothing to hash or it cannot be read.
    """
    files = []
    try:
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                files.append((name.as_posix(), file))
        hashes = [[name, _file_hash(file)] for name, file in files if name != "README.md"]
    except OSError as error:
        raise EngineError(f"model folder {path} cannot be read: {error.strerror}") from error
    if not hashes:
        raise EngineError(f"model folder {path} does not exist or is empty")
    return digest("folder", hashes)


def _file_hash(file: Path) -> str:
    status = file.stat()
    key = (str(file), status.st_size, status.st_mtime_ns)
    known = _hashes.get(key)
    if known is None:
        with file.open("rb") as stream:
            known = hashlib.file_digest(stream, "sha256").hexdigest()
        # A file that changes while it is read would be remembered under its old date.
        after = file.stat()
        if stat.S_ISREG(after.st_mode) and key[1:] == (after.st_size, after.st_mtime_ns):
            _hashes[key] = known
    return known


def _hub_folder(model: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "local") from error
    try:
        found = snapshot_download(
            model, revision=revision, allow_patterns=LOADED, local_files_only=True
        )
    except EntryNotFoundError:
        try:
            found = snapshot_download(model, revision=revision, allow_patterns=LOADED)
        except (OSError, EntryNotFoundError) as error:
            line = str(error).strip().splitlines()[0]
            raise EngineError(
                f"model {model} is not in the local cache and cannot be downloaded ({line}); "
                "check the name and the network, or give a folder"
            ) from error
    except ValueError as error:
        raise EngineError(f"{model} is neither a model folder nor a Hub id: {error}") from error
    return Path(found)

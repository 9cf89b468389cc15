"""Push an emitted dataset folder to a dataset repository on the Hugging Face Hub.

`HfApi.upload_folder` is used (huggingface_hub 2.4 has no `upload_large_folder` any more: `upload_folder`
took its place). It writes nothing into the folder, which is published and must not change. It is
resumable by running it again: with hf_xet it skips files already committed and chunks already stored;
without, the Hub's LFS answer names the files it still wants. An emitted folder's dozen files are one
commit, made after the uploads, so no reader sees half a dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.emit.card import FOLDERS
from schemas.errors import UserError

FILES = ("README.md", "rejects.parquet", *(f"{folder}/*.parquet" for folder in FOLDERS))
"""What is pushed. Nothing else of the folder leaves the machine, such as a store's manifest."""

_REPO = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    endpoint: str | None = None,
    token_env: str = "HF_TOKEN",
    revision: str | None = None,
    say: Callable[[str], None],
) -> str:
    """Upload an emitted folder and return the dataset's URL.

    `repo` is `org/name`; it is created, private unless told otherwise, if it does not exist. A
    repository that exists keeps its visibility: data meant to be private is never pushed to a
    public one. `revision` is a branch, made if need be. Parquet files of an earlier push that this
    folder does not hold are deleted in the same commit, so no split of another run is left behind.
    The token comes from the environment variable `token_env` alone.

    Raises UserError, in one line and without the token, for a folder that is no emitted dataset, a
    bad name, a missing token, a public repository where a private one was asked for, and whatever
    the network or the Hub refuses.
    """
    files = _emitted_files(folder)
    _check_names(repo, endpoint)
    token = _token(token_env)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # The library's HTTP errors share one base, whose home moved between its versions.
    http_error: type[Exception] = HfHubHTTPError.__mro__[1]
    api = HfApi(endpoint=endpoint, token=token, library_name="prefinery")
    try:
        _make_ready(api, repo, private, revision, say)
        size = sum(file.stat().st_size for file in files) / 1e6
        say(
            f"pushing {len(files)} files, {size:.1f} MB, to {repo}; if it stops, push again to go on"
        )
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder.resolve(),
            allow_patterns=list(FILES),
            delete_patterns=list(FILES),
            revision=revision,
            commit_message="Push preference data",
        )
    # hf_xet reports a failed transfer as RuntimeError
    except (http_error, OSError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).replace(token, "[token]").split())[:400]
        raise UserError(
            f"push to {repo} failed: {why or type(error).__name__}; what was stored stays stored: "
            "mend that and push again"
        ) from None
    url = f"{api.endpoint}/datasets/{repo}"
    return f"{url}/tree/{revision}" if revision else url


def _emitted_files(folder: Path) -> list[Path]:
    files = sorted(file for pattern in FILES for file in folder.glob(pattern) if file.is_file())
    rows = [file for file in files if file.parent != folder]
    if not (folder / "README.md").is_file() or not rows:
        raise UserError(
            f"{folder} is not an emitted dataset: it needs README.md and at least one of "
            f"{', '.join(FILES[2:])}; give the folder that a run emitted"
        )
    return files


def _check_names(repo: str, endpoint: str | None) -> None:
    parts = repo.split("/")
    bad = len(parts) != 2 or not all(_REPO.fullmatch(part) for part in parts)
    if bad or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise UserError(
            f"{repo!r} is not a repository name; give it as org/name, of letters, digits, '-', '_', '.'"
        )
    if endpoint is not None:
        where = urlsplit(endpoint)
        local = where.hostname in ("localhost", "127.0.0.1", "::1")
        if where.scheme != "https" and not (local and where.scheme == "http"):
            raise UserError(
                f"endpoint {endpoint} is not https: the token would be sent in the clear"
            )


def _token(token_env: str) -> str:
    token = os.environ.get(token_env, "").strip()
    if not token:
        raise UserError(
            f"no Hub token: set {token_env} to one with write access "
            "(made at https://huggingface.co/settings/tokens)"
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise UserError(f"{token_env} does not hold a token: it has spaces or other odd characters")
    return token


def _make_ready(
    api: Any, repo: str, private: bool, revision: str | None, say: Callable[[str], None]
) -> None:
    """Create the repository and branch, or check that the one there is fit to take the data."""
    from huggingface_hub.errors import RepositoryNotFoundError

    wanted = "private" if private else "public"
    try:
        is_private = api.dataset_info(repo).private
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type="dataset", private=private)
        say(f"created the {wanted} dataset repository {repo}")
    else:
        if private and not is_private:
            raise UserError(
                f"{repo} exists and is public: pushing there would publish the data; ask for a "
                "public push, take another name, or make it private on the Hub first"
            )
        stays = "private" if is_private else "public"
        say(f"{repo} exists and stays {stays}" + ("" if stays == wanted else f", not {wanted}"))
    if revision is not None:
        api.create_branch(repo, branch=revision, repo_type="dataset", exist_ok=True)

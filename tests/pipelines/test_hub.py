"""A push delivers every byte once, privately, and tells nobody the token."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipelines import hub
from schemas.errors import UserError
from tests.pipelines.hub_stand_in import Hub, Repo

TOKEN = "hf_secretsecretsecret"
README = b"---\npretty_name: n\n---\n# n\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's output: an emitted dataset with the store's own manifest beside it."""
    out = tmp_path / "out"
    contents = {
        "README.md": README,
        "manifest.json": b'{"where": "/home/me"}',
        "rejects.parquet": b"PAR1 rejects",
        "preference/train.parquet": b"PAR1 train" * 1000,
        "preference/test.parquet": b"PAR1 test",
        "steps/train.parquet": b"PAR1 steps",
    }
    for name, data in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    return out


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # the stand-in speaks the Hub's LFS protocol, not Xet's
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # else the library asks the real Hub for a list of agents
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    # retries of a dropped connection wait for half a minute in all
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield


def pushed(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }


def test_every_byte_arrives_in_a_new_private_repository(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    said: list[str] = []
    with caplog.at_level(logging.DEBUG, "huggingface_hub"), Hub(TOKEN) as server:
        url = hub.push(folder, "me/data", endpoint=server.endpoint, say=said.append)
    repo = server.repos["me/data"]
    assert url == f"{server.endpoint}/datasets/me/data"
    assert repo.files == pushed(folder)
    assert repo.commits == ["main"]
    assert repo.private is True
    (created,) = [json.loads(s.body) for s in server.seen if s.path == "/api/repos/create"]
    assert created["visibility"] == "private"
    assert created["type"] == "dataset"
    assert said[0] == "created the private dataset repository me/data"
    assert len(server.paths("PUT", "/lfs/")) == 4
    # the published folder is as it was: no cache, no touched file
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before

    for request in server.seen:
        held = {name.lower() for name, value in request.headers.items() if TOKEN in value}
        assert held == (set() if request.method == "PUT" else {"authorization"}), request.path
        assert TOKEN.encode() not in request.body
        assert TOKEN not in request.path
    out = capfd.readouterr()
    assert TOKEN not in out.out + out.err + caplog.text + " ".join(said)


def test_a_push_cut_short_goes_on_and_sends_nothing_twice(folder: Path) -> None:
    with Hub(TOKEN, drop_after=2) as server:
        with pytest.raises(UserError, match=r"push to me/data failed: .*push again") as caught:
            hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        assert "\n" not in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        assert server.repos["me/data"].files == {}  # nobody sees half a dataset
        stored = set(server.objects)
        assert len(stored) == 2

        server.drop_after = None
        server.seen.clear()
        hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        sent = {path.removeprefix("/lfs/") for path in server.paths("PUT", "/lfs/")}
        assert len(sent) == 2
        assert not sent & stored
        assert server.repos["me/data"].files == pushed(folder)

        server.seen.clear()
        hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        assert server.paths("PUT", "/lfs/") == []
        assert len(server.repos["me/data"].commits) == 1  # nothing new, no commit


def test_the_streamed_upload_that_is_used_with_xet_delivers_and_resumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    with Hub(TOKEN, lfs=False) as server:
        hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        assert server.repos["me/data"].files == pushed(folder)
        (folder / "steps" / "train.parquet").write_bytes(b"PAR1 other")
        server.seen.clear()
        hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        (commit,) = [s.body for s in server.seen if "/commit/" in s.path]
        paths = [json.loads(line)["value"].get("path") for line in commit.splitlines()]
        assert paths == [None, "steps/train.parquet"]
        assert server.repos["me/data"].files == pushed(folder)


def test_files_of_an_earlier_push_are_replaced_and_other_files_stay(folder: Path) -> None:
    with Hub(TOKEN) as server:
        server.repos["me/data"] = Repo(
            private=True,
            files={
                ".gitattributes": b"x",
                "NOTES.md": b"mine",
                "README.md": b"old",
                "preference/validation.parquet": b"PAR1 leaks",
            },
        )
        hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        files = server.repos["me/data"].files
        assert files == {**pushed(folder), ".gitattributes": b"x", "NOTES.md": b"mine"}


def test_private_data_is_not_pushed_to_a_public_repository(folder: Path) -> None:
    with Hub(TOKEN) as server:
        server.repos["me/data"] = Repo(private=False)
        with pytest.raises(UserError, match="me/data exists and is public: pushing there would"):
            hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        assert {request.method for request in server.seen} == {"GET"}
        assert server.repos["me/data"] == Repo(private=False)


@pytest.mark.parametrize(
    ("is_private", "line"),
    [
        (True, "me/data exists and stays private, not public"),
        (False, "me/data exists and stays public"),
    ],
)
def test_a_repository_keeps_its_visibility(folder: Path, is_private: bool, line: str) -> None:
    said: list[str] = []
    with Hub(TOKEN) as server:
        server.repos["me/data"] = Repo(private=is_private)
        hub.push(folder, "me/data", private=False, endpoint=server.endpoint, say=said.append)
        assert said[0] == line
        assert server.repos["me/data"].private is is_private
        assert server.repos["me/data"].files == pushed(folder)
        assert server.paths("POST", "/api/repos/create") == []


def test_public_when_asked_for(folder: Path) -> None:
    with Hub(TOKEN) as server:
        hub.push(folder, "me/data", private=False, endpoint=server.endpoint, say=lambda text: None)
        assert server.repos["me/data"].private is False


def test_a_branch_is_made_and_pushed_to(folder: Path) -> None:
    with Hub(TOKEN) as server:
        for _ in range(2):  # the second time it is there
            url = hub.push(
                folder, "me/data", endpoint=server.endpoint, revision="v2", say=lambda text: None
            )
        assert url == f"{server.endpoint}/datasets/me/data/tree/v2"
        assert server.repos["me/data"].branches == {"main", "v2"}
        assert server.repos["me/data"].commits == ["v2"]


def test_without_a_token_the_line_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no Hub token: set HF_TOKEN to one with write access"):
        hub.push(folder, "me/data", say=lambda text: None)
    monkeypatch.setenv("MY_TOKEN", "two words")
    with pytest.raises(UserError, match="MY_TOKEN does not hold a token") as caught:
        hub.push(folder, "me/data", token_env="MY_TOKEN", say=lambda text: None)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    "repo",
    ["data", "a/b/c", "me/da ta", "../x", "me/..", "me/a--b", "me/x.git", "me/", "/x", "me/-x"],
)
def test_a_bad_repository_name_is_refused(folder: Path, repo: str) -> None:
    with pytest.raises(UserError, match="is not a repository name; give it as org/name"):
        hub.push(folder, repo, say=lambda text: None)


def test_the_token_is_not_sent_in_the_clear(folder: Path) -> None:
    with pytest.raises(UserError, match="is not https"):
        hub.push(folder, "me/data", endpoint="http://hub.example.org", say=lambda text: None)


@pytest.mark.parametrize("missing", ["README.md", "preference", "everything"])
def test_only_an_emitted_dataset_is_pushed(folder: Path, missing: str) -> None:
    if missing == "README.md":
        (folder / missing).unlink()
    elif missing == "preference":
        for file in [*folder.glob("preference/*"), *folder.glob("steps/*")]:
            file.unlink()
    else:
        folder = folder / "nowhere"
    with pytest.raises(UserError, match=r"is not an emitted dataset: it needs README\.md"):
        hub.push(folder, "me/data", say=lambda text: None)


def test_what_the_hub_refuses_is_one_line(folder: Path) -> None:
    with Hub(TOKEN) as server:
        with pytest.raises(
            UserError, match=r"push to forbidden/data failed: .*You may not write"
        ) as e:
            hub.push(folder, "forbidden/data", endpoint=server.endpoint, say=lambda text: None)
        assert "\n" not in str(e.value)
    with Hub("hf_another") as server:
        with pytest.raises(UserError, match=r"push to me/data failed: .*Invalid username") as e:
            hub.push(folder, "me/data", endpoint=server.endpoint, say=lambda text: None)
        assert "\n" not in str(e.value)
        assert TOKEN not in str(e.value)


def test_no_server_and_offline_mode_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=r"push to me/data failed: .*refused"):
            hub.push(folder, "me/data", endpoint=endpoint, say=lambda text: None)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()
        with pytest.raises(UserError, match="offline mode is enabled"):
            hub.push(folder, "me/data", endpoint=endpoint, say=lambda text: None)
    huggingface_hub.close_session()

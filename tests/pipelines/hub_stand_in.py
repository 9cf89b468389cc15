"""A local stand-in for the part of the Hub's HTTP API that a dataset push calls.

It keeps what arrives in memory: repositories with their files, LFS objects, and every request with
its headers and body, so that a test can look for what was sent and for what must not have been.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    branches: set[str] = field(default_factory=lambda: {"main"})


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Hub:
    """`with Hub(token) as hub:` serves on a free loopback port at `hub.endpoint`.

    `drop_after` objects stored, the connection of every further LFS upload is cut. `lfs` says
    whether Parquet files go through LFS, as on the Hub, or into the commit itself.
    """

    def __init__(self, token: str, *, drop_after: int | None = None, lfs: bool = True) -> None:
        self.token = token
        self.drop_after = drop_after
        self.lfs = lfs
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.endpoint = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def paths(self, method: str, part: str) -> list[str]:
        """Paths of the requests seen, in order."""
        return [s.path for s in self.seen if s.method == method and part in s.path]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(middlewares=[self._record], client_max_size=2**26)
        repo = "/api/datasets/{org}/{name}"
        app.add_routes(
            [
                web.get(repo, self._info),
                web.get(repo + "/revision/{revision}", self._info),
                web.post("/api/repos/create", self._create),
                web.post("/api/validate-yaml", self._validate),
                web.get(repo + "/tree/{revision}", self._tree),
                web.post(repo + "/branch/{branch}", self._branch),
                web.post(repo + "/preupload/{revision}", self._preupload),
                web.post(repo + "/commit/{revision}", self._commit),
                web.post("/datasets/{org}/{name}.git/info/lfs/objects/batch", self._batch),
                web.put("/lfs/{oid}", self._store),
                web.post("/lfs/{oid}/verify", self._verify),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body))
        stored = request.method == "PUT"  # a storage URL is signed: it takes no token
        if not stored and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "Invalid username or password."}, status=401)
        return await handler(request)

    def _repo(self, request: web.Request) -> Repo:
        name = "{org}/{name}".format(**request.match_info)
        if name not in self.repos:
            raise web.HTTPNotFound(
                text=json.dumps({"error": "Repository not found"}),
                headers={"X-Error-Code": "RepoNotFound"},
                content_type="application/json",
            )
        return self.repos[name]

    async def _info(self, request: web.Request) -> web.Response:
        repo = self._repo(request)
        name = "{org}/{name}".format(**request.match_info)
        return web.json_response({"id": name, "private": repo.private, "sha": "0" * 40})

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "forbidden":
            return web.json_response({"error": "You may not write here"}, status=403)
        # as on the Hub: public where nothing is asked for
        self.repos[name] = Repo(private=asked.get("visibility") == "private")
        return web.json_response({"url": f"{self.endpoint}/datasets/{name}", "name": name})

    async def _validate(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    async def _tree(self, request: web.Request) -> web.Response:
        files = self._repo(request).files
        return web.json_response(
            [
                {"type": "file", "path": path, "size": len(data), "oid": self._oid(path, data)}
                for path, data in files.items()
            ]
        )

    async def _branch(self, request: web.Request) -> web.Response:
        branches = self._repo(request).branches
        branch = request.match_info["branch"]
        if branch in branches:
            return web.json_response({"error": "Reference already exists"}, status=409)
        branches.add(branch)
        return web.json_response({})

    def _mode(self, path: str) -> str:
        return "lfs" if self.lfs and path.endswith(".parquet") else "regular"

    def _oid(self, path: str, data: bytes) -> str:
        """What the Hub calls a file: SHA-256 of an LFS object, git's blob SHA-1 of another."""
        if self._mode(path) == "lfs":
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    async def _preupload(self, request: web.Request) -> web.Response:
        files = self._repo(request).files
        answers = []
        for file in (await request.json())["files"]:
            path = file["path"]
            answer = {"path": path, "uploadMode": self._mode(path), "shouldIgnore": False}
            if path in files:
                answer["oid"] = self._oid(path, files[path])
            answers.append(answer)
        return web.json_response({"files": answers})

    async def _batch(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["objects"]
        answers = []
        for item in wanted:
            oid = item["oid"]
            actions = {
                "upload": {"href": f"{self.endpoint}/lfs/{oid}"},
                "verify": {"href": f"{self.endpoint}/lfs/{oid}/verify"},
            }
            answers.append(item if oid in self.objects else {**item, "actions": actions})
        return web.json_response({"transfer": "basic", "objects": answers})

    async def _store(self, request: web.Request) -> web.Response:
        if self.drop_after is not None and len(self.objects) >= self.drop_after:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        data = await request.read()
        oid = request.match_info["oid"]
        if hashlib.sha256(data).hexdigest() != oid:
            return web.Response(status=422)
        self.objects[oid] = data
        return web.Response()

    async def _verify(self, request: web.Request) -> web.Response:
        known = request.match_info["oid"] in self.objects
        return web.json_response({}, status=200 if known else 404)

    async def _commit(self, request: web.Request) -> web.Response:
        repo = self._repo(request)
        for line in (await request.text()).splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                repo.files[value["path"]] = self.objects[value["oid"]]
            elif key == "deletedFile":
                del repo.files[value["path"]]
        repo.commits.append(request.match_info["revision"])
        oid = f"{len(repo.commits):040x}"
        url = f"{self.endpoint}/datasets/{request.match_info['org']}/{request.match_info['name']}"
        return web.json_response({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid})

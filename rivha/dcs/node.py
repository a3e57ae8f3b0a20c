"""One etcd endpoint: etcd3-py's client with its defects mended (DESIGN 3), and what became of a request to it.

A node asks once and says what happened; it never retries and never sleeps. Called by `endpoints` and `watch` only.
"""

from __future__ import annotations

import json
import os
from typing import Any, TypeAlias

import aiohttp

from rivha.dcs.etcd3py import AioClient, BaseClient, Version
from rivha.errors import DcsUnavailable

Answer: TypeAlias = dict[str, Any]  # etcd's JSON; integers of 64 bits come as texts, zeros are left out

# gRPC status codes, as etcd's gateway shows them
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 5, 7, 8
OUT_OF_SPACE = "database space exceeded"
LEASE_NOT_FOUND = "requested lease not found"
TOKEN_TROUBLE = ("invalid auth token", "revision of auth store is old", "user name is empty")
OLDEST_VERSION = "3.4.0"  # the first that serves /v3

_DECODER = json.JSONDecoder()


class Failure(DcsUnavailable):
    """A request was not answered as hoped. `sent` False: it certainly did not reach etcd. `code`: etcd's, None if etcd did not answer."""

    def __init__(self, text: str, *, sent: bool = True, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.sent = sent
        self.code = code

    @property
    def lease_not_found(self) -> bool:
        return self.code == NOT_FOUND and LEASE_NOT_FOUND in self.text

    @property
    def token_trouble(self) -> bool:
        """The request was refused for its token, before anything was done: log in again, then it may be sent again."""
        return self.code is not None and any(words in self.text for words in TOKEN_TROUBLE)

    @property
    def out_of_space(self) -> bool:
        """etcd's quota is used up: it still answers reads, and renews leases. What it was sent it has applied by now, or never will."""
        return self.code == RESOURCE_EXHAUSTED and OUT_OF_SPACE in self.text

    @property
    def final(self) -> bool:
        """etcd understood and said no, and did nothing; any other node would say the same.

        Not among them: "database space exceeded", with which etcd may have applied the transaction all the same.
        """
        return self.code in (INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED) and not self.token_trouble


class Node(AioClient):  # type: ignore[misc]  # etcd3-py has no types
    """etcd3-py's client for one address, over a session that all nodes share."""

    def __init__(self, address: str, protocol: str, session: aiohttp.ClientSession) -> None:
        host, _, port = address.rpartition(":")
        # Not AioClient's constructor: it opens a session of its own, and verifies TLS only when there is a client certificate.
        BaseClient.__init__(self, host=host, port=int(port), protocol=protocol)
        self.session = session
        self.address = address
        self.verified = False  # has answered, and for the cluster that we know
        self.trouble = ""  # why it is not used at present; "" when it answers
        self.setbacks = 0  # how often it failed or was too slow; a watch on it is opened anew when this grows

    def _retrieve_version(self) -> None:
        """Instead of the original's blocking GET /version, after which it raises AttributeError if etcd is down."""
        self.server_version = self.cluster_version = OLDEST_VERSION
        self.server_version_sem = self.cluster_version_sem = Version(OLDEST_VERSION)

    @property
    def url(self) -> str:
        return str(self.baseurl)

    def open(self, method: str, body: Answer, token: str, connect_s: float) -> Any:
        """The raw response's context manager. Only connecting (and TLS) has a deadline here: the rest is the caller's."""
        return self.call_rpc(
            method,
            body,
            encode=False,  # our bodies are etcd's JSON already: the models cost more than the request
            raw=True,
            allow_redirects=False,  # etcd never does it, and a write must not be sent twice
            # Without a leader this node cannot answer: have it say so at once, and end its watches
            headers={"Grpc-Metadata-hasleader": "true"} | ({"authorization": token} if token else {}),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )

    async def ask(self, method: str, body: Answer, token: str, connect_s: float) -> Answer:
        """One request, one answer (a stream's first message). Raises Failure. The caller sets the deadline."""
        try:
            async with self.open(method, body, token, connect_s) as response:
                return read_answer(response.status, await response.read())
        except (aiohttp.ClientError, OSError) as error:  # OSError: TimeoutError is one
            raise failure_of(error) from error


def failure_of(error: BaseException) -> Failure:
    """aiohttp's or the system's error as ours; tells whether the request can have left."""
    unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL)
    number = error.errno if isinstance(error, OSError) else None
    # asyncio's own texts repeat the address and leave out the reason; a positive errno is the system's
    text = os.strerror(number) if number and number > 0 and not isinstance(error, aiohttp.ClientSSLError) else str(error)
    if isinstance(error, OSError) and error.errno is None and error.strerror:
        text = error.strerror  # what str() makes of it begins with "[Errno None]"
    return Failure(text or type(error).__name__, sent=not unsent)


def read_answer(status: int, raw: bytes) -> Answer:
    """etcd's JSON, out of its envelope if it came as a stream. Raises Failure for an error, and for what is not etcd's at all."""
    try:
        data, _ = _DECODER.raw_decode(raw.decode())
    except ValueError as mistake:
        raise Failure(f"did not answer as etcd does (HTTP {status}): {raw[:80]!r}") from mistake
    if not isinstance(data, dict):
        raise Failure(f"did not answer as etcd does (HTTP {status}): {raw[:80]!r}")
    error = data.get("error")
    if isinstance(error, dict):  # in a stream
        raise Failure(str(error.get("message", error)), code=error.get("grpc_code", error.get("code", 2)))
    if error is not None or status >= 400:
        raise Failure(str(error or data.get("message") or f"HTTP {status}"), code=data.get("code", 2))
    result = data.get("result", data)
    return result if isinstance(result, dict) else data

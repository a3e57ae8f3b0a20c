"""All of etcd's endpoints as one: which to ask, for how long, when to ask another, and as whom.

It must never send a write twice, let one endpoint eat the whole budget, or believe an answer from another etcd cluster. Called by
`etcd` (requests) and `watch` (which endpoint, under which token).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp
import structlog

from rivha.dcs.node import Answer, Failure, Node
from rivha.errors import DcsUnavailable

PATIENCE_S = 0.3  # after this long without an answer, a question is put to another endpoint too; etcd answers in a few ms
PAUSE_S = 0.2  # when all endpoints failed at once, before they are asked again within the same budget (HAZARDS A 10)
LOGIN_PAUSE_S = 5.0  # after a wrong password: each try costs etcd a tenth of a second of bcrypt
CLOSE_S = 2.0
SILENT = "no answer"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where etcd is and how to be let in; Patroni's section `etcd3` (REFERENCE 1.17)."""

    hosts: tuple[str, ...]  # "host:port", "[::1]:2379"
    protocol: str = "http"  # or https
    cacert: str | None = None  # file; None: the system's authorities. The server's certificate is always verified
    cert: str | None = None  # client certificate; may contain the key
    key: str | None = None
    username: str | None = None
    password: str | None = None


class Login:
    """The token, renewed when etcd has forgotten it. One token serves all endpoints: etcd replicates them."""

    def __init__(self, username: str | None, password: str | None, clock: Callable[[], float]) -> None:
        self._username = username
        self._password = password
        self._clock = clock
        self._token: str | None = None if username else ""  # "": none needed; None: not asked for yet
        self._refused: tuple[float, DcsUnavailable] | None = None

    async def token(self, node: Node, connect_s: float, stale: str | None = None) -> str:
        """A token other than `stale`. Raises DcsUnavailable when etcd refuses the user, Failure (not sent) when the node failed."""
        if self._token != stale and self._token is not None:
            return self._token
        if not self._username:
            raise DcsUnavailable(f"etcd at {node.url} wants a user name and a password: set etcd3.username and etcd3.password")
        if self._refused and self._clock() < self._refused[0] + LOGIN_PAUSE_S:
            raise self._refused[1]
        self._token = await self._authenticate(node, connect_s)
        self._refused = None
        return self._token

    def forget(self) -> None:
        """The next request logs in again."""
        self._token = None if self._username else ""

    async def _authenticate(self, node: Node, connect_s: float) -> str:
        try:
            answer = await node.ask("/auth/authenticate", {"name": self._username, "password": self._password or ""}, "", connect_s)
        except Failure as failure:
            if "authentication is not enabled" in failure.text:
                return ""
            if "authentication failed" in failure.text:
                text = (
                    f"etcd at {node.url} refuses user {self._username!r}: wrong name or password, correct etcd3.username or etcd3.password"
                )
                self._refused = (self._clock(), DcsUnavailable(text))
                raise self._refused[1] from failure
            raise Failure(failure.text, sent=False, code=failure.code) from failure
        return str(answer.get("token", ""))


class Endpoints:
    """The endpoints, best first: the one that answered last, then those not known to be in trouble."""

    def __init__(self, settings: EtcdSettings, greeting: Answer, clock: Callable[[], float]) -> None:
        """`greeting` is the range request that tells whether an endpoint is of our cluster: of keys that we are allowed to read."""
        self._settings = settings
        self._greeting = greeting | {"count_only": True, "serializable": True}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._order: list[Node] = []
        self._cluster_id: str | None = None  # of the first answer; others are refused
        self._raft_term = 0  # the highest seen
        self.login = Login(settings.username, settings.password, clock)

    # ---- the endpoints

    def best(self) -> list[Node]:
        """Opens the session at first: a session wants a running loop. Raises DcsUnavailable for certificates that cannot be read."""
        if self._closed:
            raise DcsUnavailable("this client of etcd has been closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=_tls(self._settings))
            self._session = aiohttp.ClientSession(connector=connector)
            self._order = [Node(host, self._settings.protocol, self._session) for host in self._settings.hosts]
        return list(self._order)

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._session.close()

    def answered(self, node: Node, slower: Iterable[Node] = ()) -> None:
        """`node` is the one to ask first from now on; `slower` were asked before it and have not answered."""
        for other in slower:
            self.failed(other, f"{SILENT} while another answered")
        if node.trouble:
            log.info("etcd endpoint answers again", endpoint=node.url)
            node.trouble = ""
        if self._order[0] is not node:
            self._order.remove(node)
            self._order.insert(0, node)

    def failed(self, node: Node, why: str) -> None:
        """`node` is the one to ask last from now on."""
        if not node.trouble:
            log.warning("etcd endpoint is of no use now", endpoint=node.url, why=why)
        node.trouble = why
        node.setbacks += 1
        self._order.remove(node)
        self._order.append(node)

    # ---- questions: may be put twice

    async def ask(self, method: str, body: Answer, budget_s: float) -> Answer:
        """For whatever does no harm when etcd gets it twice.

        Raises Failure when etcd refuses for good, DcsUnavailable when the budget is used up or the user is not let in.
        """
        troubles: dict[Node, str] = {}
        try:
            async with asyncio.timeout(budget_s):
                return await self._ask_until_answered(method, body, budget_s, troubles)
        except TimeoutError:
            for node, why in troubles.items():
                if why == SILENT:
                    self.failed(node, why)
            if any(why.startswith(_OLD_TERM) for why in troubles.values()):
                self._raft_term = 0  # nobody knows that term any more: etcd was restored from a backup
            raise DcsUnavailable(_story(budget_s, troubles)) from None

    async def _ask_until_answered(self, method: str, body: Answer, budget_s: float, troubles: dict[Node, str]) -> Answer:
        """The best endpoint first, the next as soon as one fails or is slow; the first good answer counts.

        One that failed is asked again after a pause, while those that say nothing are still waited for: without etcd's leader, all
        fail for a second until there is a new one, and only a frozen old leader stays silent.
        """
        turn = self.best()
        patience_s = min(PATIENCE_S, budget_s / len(turn))
        running: dict[asyncio.Task[Answer], Node] = {}
        try:
            while True:
                if turn:
                    node = turn.pop(0)
                    troubles.setdefault(node, SILENT)  # what it said the time before tells people more
                    running[asyncio.create_task(self._attempt(node, method, body, budget_s))] = node
                done = await _first_done(running, patience_s if turn else PAUSE_S)
                for task in done:
                    earlier = list(running.values())[: list(running).index(task)]
                    node = running.pop(task)
                    try:
                        answer = task.result()
                    except Failure as failure:
                        if failure.final or failure.out_of_space:
                            raise Failure(f"etcd at {node.url} says: {failure.text}", code=failure.code) from failure
                        troubles[node] = failure.text
                        self.failed(node, failure.text)
                    else:
                        self.answered(node, slower=earlier)
                        return answer
                if not turn and not done:
                    turn = [node for node in self.best() if node not in running.values()]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)  # they are cancelled: no deadline needed

    async def _attempt(self, node: Node, method: str, body: Answer, connect_s: float) -> Answer:
        token = await self.login.token(node, connect_s)
        try:
            answer = await node.ask(method, body, token, connect_s)
        except Failure as failure:
            if not failure.token_trouble:
                raise
            token = await self.login.token(node, connect_s, stale=token)
            answer = await node.ask(method, body, token, connect_s)
        self._check(node, answer)
        return answer

    def _check(self, node: Node, answer: Answer) -> None:
        """Raises Failure for an answer of another etcd cluster, or of a node that lags behind in etcd's own elections (HAZARDS A 8)."""
        header = answer.get("header", {})
        cluster_id, raft_term = header.get("cluster_id"), int(header.get("raft_term", self._raft_term))
        if cluster_id != (self._cluster_id or cluster_id):
            node.verified = False
            raise Failure(
                f"answers for another etcd cluster, {cluster_id} instead of {self._cluster_id}: "
                "correct etcd3.hosts, or restart this agent if etcd was built anew"
            )
        if raft_term < self._raft_term:
            raise Failure(f"{_OLD_TERM}, {raft_term} after {self._raft_term}")
        self._cluster_id, self._raft_term, node.verified = cluster_id, raft_term, True

    # ---- writes: sent once

    async def write(self, method: str, body: Answer, budget_s: float) -> Answer:
        """Goes to one endpoint, or on to the next while it certainly was not sent. Raises DcsUnavailable; a Failure tells more.

        An endpoint gets half of the budget: a write that is not answered by then is not going to be, and the caller must still look.
        """
        try:
            async with asyncio.timeout(budget_s):
                while True:
                    for node in self.best():
                        answer = await self._write_to(node, method, body, budget_s)
                        if answer is not None:
                            self.answered(node)
                            return answer
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise DcsUnavailable(f"etcd did not take a write within {budget_s} s") from None

    async def _write_to(self, node: Node, method: str, body: Answer, budget_s: float) -> Answer | None:
        """None: not sent, try another. Raises Failure when it was, or may have been, and was not answered well."""
        nodes = len(self._order)
        share_s = budget_s if nodes == 1 else budget_s / 2
        try:
            await self._meet(node, budget_s / nodes)
            async with asyncio.timeout(share_s):
                return await self._attempt(node, method, body, budget_s / nodes)
        except TimeoutError:
            failure = Failure(f"{SILENT} within {share_s} s")
        except Failure as error:
            failure = error
        if not (failure.final or failure.out_of_space):
            self.failed(node, failure.text)
        if failure.sent:
            raise failure
        return None

    async def _meet(self, node: Node, budget_s: float) -> None:
        """Before the first write to a node: is it of our cluster? A write to another one could not be taken back."""
        if node.verified:
            return
        try:
            async with asyncio.timeout(budget_s):
                await self._attempt(node, "/kv/range", self._greeting, budget_s)
        except TimeoutError:
            raise Failure(f"{SILENT} within {budget_s} s", sent=False) from None
        except Failure as failure:
            raise Failure(failure.text, sent=False, code=failure.code) from failure


_OLD_TERM = "is behind in etcd's own elections"


async def _first_done(running: dict[asyncio.Task[Answer], Node], timeout_s: float) -> set[asyncio.Task[Answer]]:
    """Those that are done as soon as one is; none of them when the time is up."""
    if not running:
        await asyncio.sleep(timeout_s)
        return set()
    return (await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED))[0]


def _story(budget_s: float, troubles: dict[Node, str]) -> str:
    return f"etcd did not answer within {budget_s:g} s: " + "; ".join(f"{node.url}: {why}" for node, why in troubles.items())


def _tls(settings: EtcdSettings) -> ssl.SSLContext | bool:
    """Always verifies: with the given authority, else the system's. True, aiohttp's default, for plain http."""
    if settings.protocol != "https":
        return True
    try:
        context = ssl.create_default_context(cafile=settings.cacert)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(f"{k}={v}" for k, v in (("cacert", settings.cacert), ("cert", settings.cert), ("key", settings.key)) if v)
        raise DcsUnavailable(f"cannot use the certificates for etcd ({files}): {error}; correct them in section etcd3") from error
    return context

"""Who may use the methods that change something: allowlist, basic authentication, client certificate (REFERENCE 1.15). Called by `app`.

It never looks at what is asked, and health checks never come here: a load balancer has no credentials.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from rivha.api.reply import Reply, as_text
from rivha.api.settings import RestSettings
from rivha.model import Cluster

RESOLVE_S = 2.0  # for all names of the allowlist together

Address = IPv4Address | IPv6Address


async def refuse(
    settings: RestSettings, cluster: Cluster | None, peer: str | None, authorization: str | None, has_certificate: bool
) -> Reply | None:
    """None when the client may go on; else 401 or 403 with the reason. `peer` is its address, `cluster` for the members' own addresses."""
    if (settings.allowlist or settings.allowlist_include_members) and not await _is_allowed(settings, cluster, peer):
        return as_text(403, "Access is denied: your address is not in restapi.allowlist")
    complaint = wrong_credentials(settings, authorization)
    if complaint is not None:
        return Reply(401, complaint.encode(), headers={"WWW-Authenticate": 'Basic realm="Rivha", charset="UTF-8"'})
    if settings.certfile and settings.verify_client in ("optional", "required") and not has_certificate:
        return as_text(403, "client certificate required")
    return None


def wrong_credentials(settings: RestSettings, authorization: str | None) -> str | None:
    """What is wrong with the Authorization header, or None. The comparison takes the same time wherever the difference is."""
    if not settings.username:
        return None
    if not authorization:
        return "no auth header received"
    wanted = base64.b64encode(f"{settings.username}:{settings.password or ''}".encode())
    kind, _, given = authorization.partition(" ")
    right = hmac.compare_digest(wanted, given.strip().encode())
    return None if right and kind.lower() == "basic" else "not authenticated"


async def _is_allowed(settings: RestSettings, cluster: Cluster | None, peer: str | None) -> bool:
    if peer is None:
        return False
    address = _plain(ip_address(peer.partition("%")[0]))
    entries = list(settings.allowlist)
    if settings.allowlist_include_members and cluster is not None:
        entries += member_hosts(cluster)
    names = []
    for entry in entries:
        try:
            if address in ip_network(entry, strict=False):
                return True
        except ValueError:
            names.append(entry)
    return address in await _resolve(names)


def member_hosts(cluster: Cluster) -> list[str]:
    hosts = (urlsplit(url).hostname for member in cluster.members for url in (member.api_url, member.conn_url))
    return [host for host in hosts if host]


async def _resolve(names: Iterable[str]) -> set[Address]:
    """The addresses of those names that can be resolved in time; one that cannot allows nobody."""
    loop = asyncio.get_running_loop()
    found: set[Address] = set()
    try:
        async with asyncio.timeout(RESOLVE_S):
            for name in names:
                try:
                    infos = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                except OSError:
                    continue
                found.update(_plain(ip_address(str(info[4][0]).partition("%")[0])) for info in infos)
    except TimeoutError:
        return found
    return found


def _plain(address: Address) -> Address:
    """A socket that listens on IPv6 shows IPv4 clients as ::ffff:a.b.c.d."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

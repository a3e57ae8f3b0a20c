"""What the REST server needs of the configuration file, as one frozen value. Made by `rivha.config`, used by `rivha.api` and `rivhactl`.

It holds only what the operator wrote, with REFERENCE 1.14's defaults; it opens no file and resolves no name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RestSettings:
    """`restapi` in the file."""

    listen_host: str = "127.0.0.1"  # an address or a name; "" or "*": every address, IPv4 and IPv6
    listen_port: int = 8008
    connect_address: str = "127.0.0.1:8008"  # host:port by which other nodes and HAProxy reach us
    certfile: str | None = None  # set: TLS. May hold the key as well
    keyfile: str | None = None
    keyfile_password: str | None = field(default=None, repr=False)
    cafile: str | None = None  # who signed the clients' certificates
    verify_client: str = "none"  # none | optional (unsafe methods need a certificate) | required (every connection does)
    ciphers: str | None = None  # OpenSSL's notation, TLS 1.2 and older
    username: str | None = None  # set: unsafe methods need basic authentication
    password: str | None = field(default=None, repr=False)
    allowlist: tuple[str, ...] = ()  # addresses, networks or names that may use unsafe methods; empty: everybody
    allowlist_include_members: bool = False  # and the cluster's members' own addresses
    http_extra_headers: Mapping[str, str] = field(default_factory=dict)
    https_extra_headers: Mapping[str, str] = field(default_factory=dict)  # besides the former, when TLS is on

    @property
    def base_url(self) -> str:
        """`https://host:port`, as members publish it (without `/patroni`)."""
        return f"{'https' if self.certfile else 'http'}://{self.connect_address}"

"""libpq's sslmode as Python's TLS contexts. Called by `link`; it must never weaken what the mode asks for.

asyncpg could do it from strings, but then looks for files in the home directory, blocking the loop.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

Attempt = ssl.SSLContext | bool  # False: without TLS


def attempts(options: Mapping[str, str]) -> list[Attempt]:
    """What to try, in libpq's order for its sslmode (default: prefer). Blocking: reads certificates. Raises OSError (SSLError is one)."""
    mode = options.get("sslmode", "prefer")
    if mode == "disable":
        return [False]
    context = _context(mode, options)
    if mode == "allow":
        return [False, context]
    return [context, False] if mode == "prefer" else [context]


def _context(mode: str, options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    root = options.get("sslrootcert")
    context.check_hostname = mode == "verify-full"
    # With a root certificate libpq verifies under "require" too, for compatibility.
    verify = mode in ("verify-ca", "verify-full") or (mode == "require" and root)
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if root and root != "system":
        context.load_verify_locations(root)
    elif verify:
        context.load_default_certs()
    if options.get("sslcert"):
        context.load_cert_chain(options["sslcert"], options.get("sslkey"), options.get("sslpassword"))
    return context

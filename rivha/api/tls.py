"""The REST server's TLS from the files that the operator named. Blocking file reads: called at start, and on reload off the loop."""

from __future__ import annotations

import ssl

from rivha.api.settings import RestSettings
from rivha.errors import CannotRun

EXIT_CODE = 6  # docs/operations.md: the REST API cannot be served


def server_context(settings: RestSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises CannotRun with the file's name when one cannot be used."""
    if not settings.certfile:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile, settings.keyfile_password)
    except (OSError, ssl.SSLError) as error:
        files = " with ".join(filter(None, (settings.certfile, settings.keyfile)))
        text = f"restapi.certfile: cannot use {files}: {error}; the files must exist, be readable and fit together"
        raise CannotRun(text, EXIT_CODE) from error
    try:
        if settings.cafile:
            context.load_verify_locations(settings.cafile)
    except (OSError, ssl.SSLError) as error:
        raise CannotRun(f"restapi.cafile: cannot use {settings.cafile}: {error}", EXIT_CODE) from error
    try:
        if settings.ciphers:
            context.set_ciphers(settings.ciphers)
    except ssl.SSLError as error:
        raise CannotRun(f"restapi.ciphers: OpenSSL knows no cipher in {settings.ciphers!r}", EXIT_CODE) from error
    context.verify_mode = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}.get(settings.verify_client, ssl.CERT_NONE)
    return context

"""The REST API's TLS, as server and as client, from the files that the operator named. Blocking file reads: called off the loop."""

from __future__ import annotations

import ssl

from rivha.api.settings import RestSettings
from rivha.config import CtlSettings
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


def client_context(rest: RestSettings, ctl: CtlSettings) -> ssl.SSLContext:
    """For questions to the other agents. Raises CannotRun with the file's name when one cannot be used.

    Their certificate is verified when the operator said by whom (ctl.cacert, else restapi.cafile) and did not forbid it (ctl.insecure).
    Without that most certificates in use could not be verified at all, and a leader that cannot be asked is suspected the sooner.
    Ours is shown for a server that asks for one: ctl's, else the REST API's own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = None if ctl.insecure else ctl.cacert or rest.cafile
    if authorities is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise CannotRun(f"ctl.cacert: cannot use {authorities}: {error}", EXIT_CODE) from error
    own = (ctl.certfile, ctl.keyfile, ctl.keyfile_password) if ctl.certfile else (rest.certfile, rest.keyfile, rest.keyfile_password)
    if own[0]:
        try:
            context.load_cert_chain(own[0], own[1], own[2])
        except (OSError, ssl.SSLError) as error:
            raise CannotRun(f"ctl.certfile: cannot use {own[0]}: {error}", EXIT_CODE) from error
    return context

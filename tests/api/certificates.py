"""Certificates for tests, by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def certificate(folder: Path, name: str, ca: str | None = None) -> tuple[str, str]:
    """(certificate, key) for localhost, signed by `ca` or by itself."""
    cert, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    signed_by = ["-CA", str(folder / f"{ca}.crt"), "-CAkey", str(folder / f"{ca}.key")] if ca else []
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}", *names, *signed_by, "-keyout", key, "-out", cert)
    return cert, key

"""What the words of PostgreSQL, its programs and the system mean for an operator: the one telling line, and what to do about it.

Pure, and for people only: nothing is ever decided by such a text. Called by the job slot and by whoever reports a refusal.
"""

from __future__ import annotations

import re

_TELLING = re.compile(r"(FATAL|PANIC):.*|.*\b(ERROR|[Ee]rror|fatal): .*")
_KNOWN = {
    r'password authentication failed for user "(?P<it>[^"]*)"|no password supplied': (
        "correct the password of {it} in postgresql.authentication and reload (`rivhactl reload`, or SIGHUP), or change it in the database"
    ),
    r'role "(?P<it>[^"]*)" does not exist': "create the user {it}, or correct postgresql.authentication",
    r"no pg_hba\.conf entry for (?P<it>[^,]*, user \"[^\"]*\")": "allow {it} in pg_hba of the server that was asked",
    r"No space left on device|Disk quota exceeded|File too large|could not write init file": (
        "free space on that disk; Rivha removes nothing and tries again"
    ),
    r"Read-only file system": "the disk is mounted read-only: look for its errors in the kernel's log, and mount it writable",
    r"Address already in use": "stop what listens there (`ss -ltnp` shows it), or change postgresql.listen",
    r"Permission denied|Operation not permitted": "give the user who runs Rivha the right to it",
    r"too many clients|remaining connection slots": "end some connections, or raise max_connections",
    r"max_wal_senders|[Aa]ll replication slots are in use": "raise max_wal_senders and max_replication_slots (`rivhactl edit-config`)",
    r"requested WAL segment \S+ has already been removed": "`rivhactl reinit` this node, or give it an archive (restore_command)",
    r"Connection refused|No route to host|timeout expired|timed out": "is that server up, its connect_address right, and its port open?",
    r"could not translate host name|Name or service not known": "correct the host's name (connect_address of that node), or the DNS",
}


def advice(text: str) -> str:
    """What to do about it; "" when the text says nothing that is known here."""
    for pattern, what in _KNOWN.items():
        if found := re.search(pattern, text):
            return what.format(it=found.groupdict().get("it") or "the user")
    return ""


def brief(what: str, output: str = "") -> str:
    """One line: what was tried, and the line of its output that tells most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = next((found[0] for line in lines if (found := _TELLING.search(line))), lines[-1] if lines else "")
    return ": ".join(" ".join(part.split()) for part in (what, told) if part)


def advised(text: str, about: str = "") -> str:
    """The text with the advice behind it, if there is one for it (or for `about`, the longer text that it was taken from)."""
    what = advice(text) or advice(about)
    return f"{text}; {what}" if what else text

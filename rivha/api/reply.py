"""An HTTP answer as a value: what pages and control return, so that they can be tested without a server."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

JSON = "application/json"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode()


def as_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value, default=str).encode(), JSON)


def as_text(status: int, text: str) -> Reply:
    return Reply(status, text.encode())

"""docs/configuration.md names every key with the default that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from rivha.config.sections import Local, Login, Logins
from rivha.config.shared import Dynamic, DynamicPostgres
from rivha.config.values import inner_model

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (`[^`]+`|-|required) \|", TEXT, re.MULTILINE))


def keys(model, root=""):
    """(path, field) of every key below `model`, without the three users, who have one table, and what local and dynamic share."""
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        if inner is Logins or (model is not Dynamic and root == "postgresql." and name in DynamicPostgres.model_fields):
            continue
        if root == "" and name == "etcd":
            continue
        if inner is None:
            yield f"{root}{name}", field
        else:
            yield from keys(inner, f"{root}{name}.")


def shown(field):
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", (), [], {}):
        return "-"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{int(default) if isinstance(default, float) and default.is_integer() else default}`"


def test_every_key_is_documented_with_its_default():
    expected = {path: shown(field) for model in (Dynamic, Local) for path, field in keys(model)}
    expected |= {f"postgresql.{path}": shown(field) for path, field in DynamicPostgres.model_fields.items()}
    expected |= {path: shown(field) for path, field in Login.model_fields.items()}
    assert {path: ROWS.get(path) for path in expected} == expected
    assert set(ROWS) == set(expected)


def test_every_key_says_why_it_matters():
    for model in (Dynamic, Local, Login):
        assert [path for path, field in keys(model) if not field.description] == []

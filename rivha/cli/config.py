"""rivhactl's commands about the dynamic configuration: show-config and edit-config, and the way in which a change reaches etcd."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.text import Text

from rivha.cli.common import command, confirm, force_option, scope_argument
from rivha.cli.place import Failed, Options, Place, UnreachableError, leader_first, place
from rivha.config import check_patch, complaints, policy
from rivha.dcs.writes import put_config
from rivha.errors import ConfigError
from rivha.model import Cluster, Outcome

Settings = Mapping[str, object]


def as_yaml(config: Settings) -> str:
    return yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True, default_flow_style=False)


def difference(old: Settings, new: Settings) -> dict[str, object]:
    """The patch that makes `new` of `old`: null where something is gone. What both have alike is left to others' changes."""
    patch: dict[str, object] = {key: None for key in old if key not in new}
    for key, value in new.items():
        was = old.get(key)
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            if inner := difference(was, value):
                patch[key] = inner
        elif key not in old or was != value:
            patch[key] = value
    return patch


def combined(first: Settings, second: Settings) -> dict[str, object]:
    """Two patches as one; where both say something, the second does."""
    result = dict(first)
    for key, value in second.items():
        was = result.get(key)
        result[key] = combined(was, value) if isinstance(was, Mapping) and isinstance(value, Mapping) else value
    return result


def patch_of(assignments: tuple[str, ...], parameters: tuple[str, ...]) -> dict[str, object]:
    """`a.b=value` as a nested patch; the value is YAML, null removes. `parameters` stand below postgresql.parameters. Raises UsageError."""
    patch: dict[str, object] = {}
    for text, is_parameter in [*((item, False) for item in assignments), *((item, True) for item in parameters)]:
        path, mark, value = text.partition("=")
        if not mark or not path.strip():
            raise click.UsageError(f"{text!r}: use KEY=VALUE")
        # A PostgreSQL setting may have a dot in its name, which is no level of ours.
        keys = ["postgresql", "parameters", path.strip()] if is_parameter else _levels(path.strip())
        level = patch
        for key in keys[:-1]:
            inner = level.setdefault(key, {})
            if not isinstance(inner, dict):
                raise click.UsageError(f"{text!r}: {key} is given a value and a part of it at once")
            level = inner
        level[keys[-1]] = _parsed(value, text)
    return patch


def _levels(path: str) -> list[str]:
    start = "postgresql.parameters."
    return ["postgresql", "parameters", path.removeprefix(start)] if path.startswith(start) else path.split(".")


def _parsed(value: str, what: str) -> object:
    try:
        return yaml.safe_load(value) if value.strip() else None
    except yaml.YAMLError as error:
        raise click.UsageError(f"{what!r}: the value is no YAML: {error}") from error


def _file(path: str) -> dict[str, object]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: {error}") from error
    return _mapping(text, path)


def _mapping(text: str, what: str) -> dict[str, object]:
    found = _parsed(text, what)
    if not isinstance(found, dict):
        raise click.UsageError(f"{what}: must hold settings, KEY: VALUE")
    return found


async def change_config(here: Place, cluster: Cluster, patch: Settings) -> None:
    """By the first agent that answers, else in etcd directly, under the same checks. Raises Failed."""
    try:
        member, status, text = await here.agents.ask_any(leader_first(cluster), "PATCH", "/config", patch)
    except UnreachableError:
        await _write_config(here, patch)
        return
    if status == 409:
        raise Failed("the configuration was changed by somebody else at the same moment; look at it and try again")
    if status != 200:
        raise Failed(f"{member.name} refused ({status}): {text}")


async def _write_config(here: Place, patch: Settings) -> None:
    cluster = await here.read()
    if cluster.config is None and cluster.config_revision:
        raise Failed("the configuration in etcd cannot be read, so it cannot be changed; --replace through an agent writes a whole one")
    wanted = check_patch(cluster.config or {}, patch)
    outcome = await here.commit(put_config(cluster, wanted))
    if outcome is Outcome.REFUSED:
        raise Failed("the configuration was changed by somebody else at the same moment; look at it and try again")
    if outcome is Outcome.UNKNOWN:
        raise Failed("unknown whether it was written: etcd did not answer; see `rivhactl show-config`")


@click.command("show-config")
@scope_argument
@click.option("-f", "--format", "fmt", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@command
async def show_config(options: Options, scope: str | None, fmt: str) -> None:
    """The dynamic configuration, as it is in etcd."""
    async with place(options, scope) as here:
        cluster = await here.read()
    if cluster.config is None:
        raise Failed("there is no configuration in etcd, or it cannot be read")
    click.echo(json.dumps(cluster.config) if fmt == "json" else as_yaml(cluster.config), nl=fmt == "json")


@click.command("edit-config")
@scope_argument
@click.option("-s", "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting, dots for levels; null removes it.")
@click.option("-p", "--pg", "parameters", multiple=True, metavar="KEY=VALUE", help="A setting of PostgreSQL.")
@click.option("--apply", "applied", metavar="FILE", help="Changes from a YAML file; - is stdin.")
@click.option("--replace", "replaced", metavar="FILE", help="The whole configuration from a YAML file; - is stdin.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show the difference.")
@force_option
@command
async def edit_config(
    options: Options,
    scope: str | None,
    assignments: tuple[str, ...],
    parameters: tuple[str, ...],
    applied: str | None,
    replaced: str | None,
    quiet: bool,
    force: bool,
) -> None:
    """Changes the dynamic configuration: by options, from a file, or in $EDITOR. Shows the difference and asks."""
    async with place(options, scope) as here:
        cluster = await here.read()
        old = dict(cluster.config or {})
        if replaced is not None:
            patch = difference(old, _file(replaced))
        elif assignments or parameters or applied is not None:
            patch = combined(_file(applied) if applied is not None else {}, patch_of(assignments, parameters))
        else:
            edited = click.edit(as_yaml(old), extension=".yaml", require_save=False)
            patch = difference(old, _mapping(edited or "", "the edited text"))
        try:
            wanted = check_patch(old, patch)
        except ConfigError as error:
            raise Failed(f"nothing is changed:\n{error}") from error
        if wanted == old:
            click.echo("Not changed")
            return
        if not quiet:
            show_difference(as_yaml(old), as_yaml(wanted))
        for note in notes(old, wanted, cluster):
            click.echo(f"Note: {note}")
        confirm("Apply these changes?", force=force)
        await change_config(here, cluster, patch)
        click.echo("Configuration changed")


def notes(old: Settings, wanted: Settings, cluster: Cluster) -> list[str]:
    """What the operator may not expect of the change: keys without effect, and commits that would wait for nobody."""
    before = complaints(old)
    found = [text for text in complaints(wanted) if text not in before]
    p = policy(wanted)
    if p.synchronous_mode != "off" and p.synchronous_mode_strict and len(cluster.members) < 2:
        found.append("synchronous_mode_strict: there is no standby; every commit will wait until there is one")
    return found


def show_difference(old: str, new: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colours = {"-": "red", "+": "green", "@": "cyan"}
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), "now", "then", lineterm=""):
        console.print(Text(line, style=colours.get(line[:1], "")))


COMMANDS: tuple[click.Command, ...] = (show_config, edit_config)

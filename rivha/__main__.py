"""`rivha CONFIG.yml`: the agent's command line. Reads arguments and configuration, starts the log, hands over to `rivha.agent.main.run`.

Nothing here decides anything about the cluster. Exit codes stand in docs/operations.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from rivha import __version__, frugal  # before anything that imports structlog

with frugal.importing():
    from rivha.config import Config, load
    from rivha.errors import CannotRun, ConfigError
    from rivha.log import Logging

OK, MISTAKES, USAGE, AS_ROOT = 0, 1, 2, 8


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.generate_sample_config is not None:
        return sample(options.generate_sample_config)
    if options.config is None and not any(name.startswith(("RIVHA_", "PATRONI_")) for name in os.environ):
        parser().error("name a configuration file, or set RIVHA_SCOPE, RIVHA_NAME and so on in the environment")
    try:
        config = load(options.config, os.environ)
    except ConfigError as error:
        return listed(error.mistakes, ())
    if options.validate_config:
        return validate(config)
    return run(config)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="rivha", description="Keeps a PostgreSQL cluster available: the agent of one node.")
    found.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file, or a directory of them; else the environment alone counts")
    found.add_argument("--version", action="version", version=f"rivha {__version__}")
    action = found.add_mutually_exclusive_group()
    action.add_argument("--validate-config", action="store_true", help="list every mistake in CONFIG, and exit with 1 if there is one")
    action.add_argument(
        "--generate-sample-config",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write an example to FILE, which must not exist, or to the screen",
    )
    found.add_argument("-i", "--ignore-listen-port", action="store_true", help="for Patroni's scripts; ports in use are never a mistake")
    return found


def validate(config: Config) -> int:
    """Everything that is wrong goes to stderr, one per line; the verdict is the exit code."""
    from rivha.config.check import check

    if os.geteuid() == 0:
        say("checked as root, who may read and write everything; check as the user who will run the agent, too")
    return listed(check(config), config.warnings)


def listed(mistakes: Sequence[str], warnings: Sequence[str]) -> int:
    for warning in warnings:
        if not any(mistake.startswith(warning.partition(";")[0]) for mistake in mistakes):
            say(f"warning: {warning}")
    for mistake in mistakes:
        say(f"mistake: {mistake}")
    if mistakes:
        say(f"the configuration has {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}")
        return MISTAKES
    sys.stdout.write("the configuration is valid\n")
    return OK


def run(config: Config) -> int:
    """The agent, until it is asked to end. A CannotRun is logged, and its exit code is ours."""
    if os.geteuid() == 0:
        say(
            "rivha does not run as root, because PostgreSQL refuses to: start it as the user who owns the data directory "
            "(systemd: User=postgres; by hand: setpriv --reuid=postgres --regid=postgres --init-groups rivha CONFIG)"
        )
        return AS_ROOT
    try:
        logging = Logging(config.log)
    except OSError as error:
        return listed([f"log.dir: {config.log.dir} cannot be written: {error.strerror or error}"], ())
    with frugal.importing():
        import structlog

        from rivha.agent.main import run as run_agent

    # What was imported stays: without this every full collection goes through it again, and holds up the loop for 20 ms.
    gc.collect()
    gc.freeze()
    logging.start()
    try:
        run_agent(config, logging, lambda: load(config.source, os.environ))
    except CannotRun as error:
        structlog.get_logger(__name__).critical(str(error), data_dir=config.postgres.data_dir)
        return error.exit_code
    else:
        return OK
    finally:
        logging.stop()


def sample(path: str) -> int:
    from rivha.config.sample import SAMPLE

    if path == "-":
        sys.stdout.write(SAMPLE)
        return OK
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(SAMPLE)
    except OSError as error:
        say(f"{path}: {error.strerror or error}")
        return MISTAKES
    return OK


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())

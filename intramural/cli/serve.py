"""``intramural serve``: the service over a workspace, until it is told to stop."""

import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from intramural.cli.options import JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import note, print_json, say
from intramural.errors import CommandRefused
from intramural.workspace import Workspace

if TYPE_CHECKING:
    from intramural.service import Service
    from privacy.signing import VerifyKey

_CLOSING_SECONDS = 30.0
"""For a worker to record what broke off and to close its stores, once its time to drain is over."""


def serve(
    workspace: WorkspaceOption = None,
    release: Annotated[
        str, typer.Option("--release", metavar="ID", help="Release to serve, or latest.")
    ] = "latest",
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="Folder of the base model; by default the demonstration's.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Public key that must have signed the release; by default release-key.pub.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings of the service; by default service.toml of the workspace, if it is there.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes that answer on the port.")
    ] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, and do not serve.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Serve a release to applications.

    The service speaks OpenAI's API, shows the model placeholders instead of personal data, restores
    them in the answer, and records every call in the audit log before it is answered.

    Opens policy, release, API keys, audit log and models, and refuses to start where one of them
    does not verify. Every call needs an API key; see `intramural keys create`. Stop it with Ctrl-C
    or SIGTERM: answers under way get time to end. Prompts are never logged. With --json, one
    JSON object tells the address once it listens.

    With --workers, several processes answer on one port; each loads its models, and one that dies is
    replaced. They share audit log, keys and promotions; limits they share over redis_url, without
    which they refuse to start unless separate_limits is set.

    Settings come from the file and, over it, from variables INTRAMURAL_SERVICE_<KEY>. With --check,
    all faults of settings, policy, certificates, release and keys are listed at once; no model is
    loaded and nobody is asked over the network.

    \b
    Example:
      intramural serve --workspace intramural-demo --port 8080
      intramural serve --check --config service.toml
    """
    from api.metrics_shared import SharedFigures
    from api.server import BackgroundServer, listen
    from api.settings import load_settings
    from intramural.service import open_service
    from intramural.stores import settings_file
    from intramural.workers import fork_workers
    from privacy.signing import VerifyKey

    found = replace(find_workspace(workspace), settings=config)
    trusted = VerifyKey.load(key) if key is not None else None
    if check:
        _check(found, release, trusted, workers, json_output)
        return
    settings = load_settings(settings_file(found))
    with _terminated_cleanly(), ExitStack() as stack:
        _check_address(host, port, encrypted=settings.tls.certificate is not None)
        stack.enter_context(_logging(as_json=settings.log_json))
        worker, listener, figures = None, None, None
        if workers > 1:
            settings.check_workers(workers)
            folder = stack.enter_context(_scratch())
            listener = listen(host, port)
            worker = fork_workers(
                workers, patience=settings.drain_seconds + _CLOSING_SECONDS, say=note
            )
            figures = SharedFigures(folder, worker.number)
        service = stack.enter_context(
            open_service(
                found,
                release=release,
                model=model,
                trusted=trusted,
                settings=settings,
                figures=figures,
                progress=lambda step: note(f"opening the {step} …"),
            )
        )
        server = stack.enter_context(BackgroundServer(service.app, host, port, settings, listener))
        if worker is None or (worker.number == 0 and not worker.replaces):
            _announce(service, server.base_url, found, workers, json_output)
        if worker is not None:
            worker.ready()
        threading.Event().wait()


def _check(
    workspace: Workspace,
    release: str,
    trusted: "VerifyKey | None",
    workers: int,
    json_output: bool,
) -> None:
    """Raises typer.Exit with code 1 where something is wrong."""
    from intramural.service_check import check_service

    faults = check_service(workspace, release=release, trusted=trusted, workers=workers)
    if json_output:
        print_json({"valid": not faults, "faults": [asdict(fault) for fault in faults]})
    elif not faults:
        say("The configuration has no fault that can be seen without starting.")
    for fault in faults:
        note(f"error: {fault.key}: {fault.message}")
    if faults:
        raise typer.Exit(1)


def _announce(
    service: "Service", url: str, workspace: Workspace, workers: int, json_output: bool
) -> None:
    if json_output:
        facts = {
            "listening": url,
            "release": service.release.id,
            "policy": service.policy.digest,
            "workspace": str(workspace.root),
            "workers": workers,
        }
        print_json(facts)
    else:
        say(f"Serving release {service.release.id} at {url}/v1 (documentation at {url}/docs)")
        say("Create a key for an application, in another terminal:")
        role = "app" if "app" in service.policy.roles else next(iter(service.policy.roles))
        say(
            f"  intramural keys create --workspace {shlex.quote(str(workspace.root))} "
            f"--principal my-app --role {role}"
        )
        say("Press Ctrl-C to stop.")
    sys.stdout.flush()
    from intramural.ledgers import check_ledgers

    for check in check_ledgers(workspace, service.policy, [service.release]):
        for fault in check.faults:
            note(f"warning: {check.department}: {fault}. /v1/budgets will answer 503")


def _check_address(host: str, port: int, *, encrypted: bool) -> None:
    """Fail before the models are loaded, not after.

    Raises:
        CommandRefused: nobody may listen there now.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise CommandRefused(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another with --host and --port"
        ) from None
    if not encrypted and host not in ("127.0.0.1", "::1", "localhost"):
        note(
            f"warning: {host} is reachable by others and keys travel in the clear; "
            "put a proxy with TLS in front, or set tls.certificate and tls.key"
        )


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM is how a service is meant to end: everything is closed, the exit code is 0."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the workers; the parent, which made it, takes it away."""
    made_by, folder = os.getpid(), Path(tempfile.mkdtemp(prefix="intramural-workers-"))
    try:
        yield folder
    finally:
        if os.getpid() == made_by:
            shutil.rmtree(folder)


@contextmanager
def _logging(*, as_json: bool) -> Iterator[None]:
    """Our own loggers to standard error, no other's: a foreign message may quote what it works on."""
    from api.logs import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else plain)
    silent = logging.NullHandler()
    loggers = [logging.getLogger(name) for name in ("api", "intramural", "policies", "privacy")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    logging.getLogger().addHandler(silent)
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            logger.removeHandler(handler)
        logging.getLogger().removeHandler(silent)

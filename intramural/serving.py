"""Puts the service's engine together: where releases are answered, and how they follow promotions."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intramural.parts import service_key, store_key
from intramural.stores import channels_place
from intramural.workspace import Workspace
from privacy.release import VerifiedRelease

if TYPE_CHECKING:
    from api.channels import Channel
    from api.channels_table import ChannelStore
    from api.engines.base import Engine
    from api.engines.settings import EngineSettings
    from api.engines.switching import SwitchingEngine
    from api.releases import Releases

OpenEngine = Callable[[VerifiedRelease], "Engine"]


@dataclass(frozen=True)
class Backend:
    """Where releases are answered: opens and closes the engine of one.

    ``beside`` serves models that are no releases, if any.
    """

    open: OpenEngine
    close: "Callable[[str, Engine], None]" = lambda release, engine: None
    beside: "Engine | None" = None


@contextmanager
def open_channels(workspace: Workspace) -> "Iterator[ChannelStore]":
    """The workspace's promotions; made where there are none. Several processes may have them open.

    Raises:
        TamperedStore, StoreBusy, StoreUnavailable: the database cannot be used.
        KeyUnusable: its signing key is unusable or missing.
    """
    from api.channels_table import ChannelStore

    place = channels_place(workspace)
    with closing(ChannelStore(place, store_key(place, service_key(workspace)))) as store:
        yield store


def promoted(workspace: Workspace, alias: str) -> str | None:
    """The stable release under the alias, or ``None`` where nothing was promoted yet."""
    from privacy.store.reading import store_exists

    if not store_exists(channels_place(workspace)):
        return None
    with open_channels(workspace) as store:
        channel = store.channels().get(alias)
        return None if channel is None else channel.stable


@contextmanager
def open_backend(settings: "EngineSettings", model: Callable[[], Path]) -> Iterator[Backend]:
    """Where the settings say that releases are answered.

    Args:
        settings: of the engine.
        model: folder of the base model; asked for only where it runs in this process.

    Raises:
        EngineError: no server can be asked.
    """
    if settings.upstream is None:
        from api.engines.weights import SharedWeights

        local, weights = settings.local, SharedWeights()

        def open_local(release: VerifiedRelease) -> "Engine":
            import torch

            from api.engines.transformers_local import TransformersEngine

            if local.threads:
                torch.set_num_threads(local.threads)
            if release.adapter_config.get("task_type") == "SEQ_CLS":
                from api.engines.encoder_local import TransformersEncoder

                return TransformersEncoder(model(), release, weights=weights)
            return TransformersEngine(
                model(),
                release,
                dtype=getattr(torch, local.dtype),
                device=local.device,
                batch=local.batch,
                batch_tokens=local.batch_tokens,
                merge=local.adapters == "merged",
                weights=weights,
            )

        yield Backend(open_local)
        return
    from api.engines.upstream import UpstreamEngine
    from api.errors import EngineError

    upstream, there = UpstreamEngine(settings.upstream), settings.upstream

    def open_there(release: VerifiedRelease) -> "Engine":
        if release.personal:
            raise EngineError(
                f"{release.id} has personal adapters of {', '.join(sorted(release.personal))}, and "
                "they are put on top of a release in this process only: serve with the local "
                "engine, or take them out of the workspace's folder `personal`"
            )
        upstream.load(release.id, there.path_of(release.path))
        return upstream

    upstream.start()
    try:
        yield Backend(open_there, lambda release, engine: upstream.unload(release), upstream)
    finally:
        upstream.close()


@contextmanager
def following(
    workspace: Workspace,
    engine: "SwitchingEngine",
    releases: "Releases",
    *,
    default: "Mapping[str, Channel]",
    find: Callable[[str], VerifiedRelease],
    told: "Callable[[Mapping[str, Channel]], None]",
) -> Iterator[Callable[[], bool]]:
    """Serve what is promoted, inside the block. Gives a check: promotions are being read.

    Raises:
        Exception: what stands for a name now cannot be served.
    """
    from api.rollout import Rollout

    with open_channels(workspace) as store:
        rollout = Rollout(store, find, engine, releases, default=default, told=told)
        rollout.start()
        try:
            yield lambda: rollout.current
        finally:
            rollout.close()

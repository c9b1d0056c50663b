"""Releases that come and go while the service runs. Each answer ends on the release it began with.

A release comes and goes together with the departments' own adapters on top of it. Each of them is an
engine of its own, so nothing is ever shared between answers of two departments.
"""

import threading
from collections.abc import Callable, Iterator

from api.engines.base import (
    Classes,
    Engine,
    GenerationRequest,
    GenerationResult,
    Item,
    Vectors,
    whole,
)
from api.engines.held import Held
from api.engines.together import encoder
from api.errors import EngineError, UnknownModel
from privacy.release import VerifiedRelease, personal_id

Open = Callable[[VerifiedRelease], Engine]
"""An engine that serves this release, or one for a department (:meth:`VerifiedRelease.of`), under its
id; raises EngineError. May take long."""
Close = Callable[[str, Engine], None]
"""Lets go of the engine of a release that nobody asks any more."""


class _Loaded:
    """``engines``: by model id; that of the release itself, which alone can be asked by name, first."""

    def __init__(self, shared: str, engines: dict[str, Engine]) -> None:
        self.engine = engines[shared]
        self.engines = engines
        self.answers = 0
        self.leaving = False


class SwitchingEngine:
    """Args:
    open_engine: makes the engine of a release.
    close_engine: called once a release was taken out and its last answer has ended.
    beside: serves models that are no releases, if any.
    """

    def __init__(
        self,
        open_engine: Open,
        close_engine: Close = lambda release, engine: None,
        beside: Engine | None = None,
    ) -> None:
        self._open = open_engine
        self._close = close_engine
        self._beside = beside
        self._lock = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}

    def load(self, release: VerifiedRelease) -> None:
        """Serve a release too. Answers under way and other releases wait for nothing.

        Raises:
            EngineError: it cannot be served.
        """
        own = {personal_id(release.id, name): name for name in sorted(release.personal)}
        wanted = {release.id: "", **own}
        with self._lock:
            there = self._loaded.get(release.id)
            if there is not None and there.engines.keys() == wanted.keys():
                there.leaving = False
                return
        if there is not None:
            raise EngineError(
                f"{release.id} is served with other personal adapters now; start the service anew"
            )
        engines: dict[str, Engine] = {}
        try:
            for name, department in wanted.items():
                engines[name] = self._open(release.of(department) if department else release)
        except BaseException:
            self._close_all(engines)
            raise
        with self._lock:
            self._loaded[release.id] = _Loaded(release.id, engines)

    def unload(self, release: str) -> None:
        """Begin nothing more on a release; it goes when its last answer has ended."""
        with self._lock:
            there = self._loaded.get(release)
            if there is None:
                return
            there.leaving = True
        self._settle(release, there)

    def loaded(self) -> list[str]:
        """Ids of the releases that can answer."""
        with self._lock:
            return [name for name, there in self._loaded.items() if not there.leaving]

    def models(self) -> list[str]:
        """See :meth:`api.engines.base.Engine.models`."""
        with self._lock:
            engines = [there.engine for there in self._loaded.values() if not there.leaving]
        if self._beside is not None:
            engines.append(self._beside)
        return list(dict.fromkeys(name for engine in engines for name in engine.models()))

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See :meth:`api.engines.base.Engine.generate`."""
        return whole(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See :meth:`api.engines.base.Engine.stream`."""
        engine, let_go = self._hold(request.model)
        try:
            items = engine.stream(request)
        except BaseException:
            let_go()
            raise
        return Held(items, let_go)

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """See :meth:`api.engines.base.Encoder.embed`."""
        engine, let_go = self._hold(model)
        try:
            return encoder(engine, "embeddings").embed(model, texts)
        finally:
            let_go()

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """See :meth:`api.engines.base.Encoder.classify`."""
        engine, let_go = self._hold(model)
        try:
            return encoder(engine, "classes").classify(model, texts)
        finally:
            let_go()

    def _hold(self, model: str) -> tuple[Engine, Callable[[], None]]:
        release = model.partition("+")[0]
        with self._lock:
            there = self._loaded.get(release)
            if there is not None and not there.leaving and model in there.engines:
                there.answers += 1
                return there.engines[model], lambda: self._let_go(release, there)
        if self._beside is not None:
            return self._beside, lambda: None
        raise UnknownModel("this release is not served now")

    def _let_go(self, release: str, there: _Loaded) -> None:
        with self._lock:
            there.answers -= 1
        self._settle(release, there)

    def _settle(self, release: str, there: _Loaded) -> None:
        with self._lock:
            if not there.leaving or there.answers or self._loaded.get(release) is not there:
                return
            del self._loaded[release]
        self._close_all(there.engines)

    def _close_all(self, engines: dict[str, Engine]) -> None:
        for name, engine in engines.items():
            self._close(name, engine)

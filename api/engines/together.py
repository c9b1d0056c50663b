"""Several engines behind one: each model is answered by the engine that serves it."""

from collections.abc import Iterator, Sequence

from api.engines.base import (
    Classes,
    Encoder,
    Engine,
    GenerationRequest,
    GenerationResult,
    Item,
    Unsupported,
    Vectors,
)
from api.errors import UnknownModel


class Together:
    """Args:
    engines: in the order in which they are asked; the first model of the first is the default.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)

    def models(self) -> list[str]:
        """The ids of all."""
        return list(dict.fromkeys(name for engine in self._engines for name in engine.models()))

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See :meth:`api.engines.base.Engine.generate`."""
        return self._of(request.model).generate(request)

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See :meth:`api.engines.base.Engine.stream`."""
        return self._of(request.model).stream(request)

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """See :meth:`api.engines.base.Encoder.embed`."""
        return encoder(self._of(model), "embeddings").embed(model, texts)

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """See :meth:`api.engines.base.Encoder.classify`."""
        return encoder(self._of(model), "classes").classify(model, texts)

    def _of(self, model: str) -> Engine:
        for engine in self._engines:
            if model in engine.models():
                return engine
        raise UnknownModel("no engine serves this model")


def encoder(engine: Engine, what: str) -> Encoder:
    """The engine as an encoder.

    Raises:
        Unsupported: it is none.
    """
    if not isinstance(engine, Encoder):
        raise Unsupported("model", f"the model makes text, no {what}")
    return engine

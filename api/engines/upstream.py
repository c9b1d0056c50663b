"""An OpenAI-compatible server as an engine, or several equal ones.

What goes there was redacted before: the port promises it. A request is sent again only where no
server can have begun it: the connection failed, or the server said 429 or 503. Redirects are not
followed, and addresses that belong to no public host need a setting. What a server says about an
error may quote the prompt, so none of it is passed on.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from api.engines.base import (
    Classes,
    EngineBusy,
    GenerationRequest,
    GenerationResult,
    Item,
    Unsupported,
    Vectors,
    whole,
)
from api.engines.held import Held
from api.engines.replicas import Replica, Replicas
from api.engines.settings import UpstreamSettings
from api.engines.upstream_net import guarded_transport
from api.engines.upstream_wire import body_for, items_of, path_for
from api.errors import ContextTooLong, EngineError, UnknownModel
from api.tracing import sent_on

_AGAIN = frozenset({429, 503})
_MOST_ERROR_BYTES = 65_536
_MOST_ANSWER_BYTES = 64 << 20
_CONTEXT = re.compile(r"maximum context length is (\d{1,9})")
_PROMPT = re.compile(
    r"(\d{1,9}) (?:input tokens|in the messages|in your prompt|tokens from the input)"
)
_WRONG_LENGTH = re.compile(r"context.{0,20}length|max_tokens.{0,60}too large", re.IGNORECASE)


class UpstreamEngine:
    """Args:
    settings: where the servers are and how patient to be.
    transport: stands in for the network in tests.
    clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._replicas = Replicas(
            settings.urls, failures=settings.failures, rest=settings.rest_seconds, clock=clock
        )
        self._names = dict(settings.models)
        self._adapters: dict[str, str] = {}  # releases that were loaded, and their paths
        headers = {"accept-encoding": "identity"}
        if settings.api_key is not None:
            headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._client = httpx.Client(
            transport=transport or guarded_transport(settings),
            timeout=httpx.Timeout(settings.read_seconds, connect=settings.connect_seconds),
            headers=headers,
            follow_redirects=False,
            trust_env=False,
        )
        self._stop = threading.Event()
        self._checker: threading.Thread | None = None

    # --- the port ---------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Those that a server could answer for now."""
        return [
            name for name, theirs in list(self._names.items()) if self._replicas.available(theirs)
        ]

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """See :meth:`api.engines.base.Engine.generate`."""
        return whole(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """See :meth:`api.engines.base.Engine.stream`. Headers have arrived when this returns.

        Raises:
            EngineBusy: no server is free; tells when to come back.
        """
        theirs = self._name(request.model)
        body = body_for(request, theirs, self._settings.kind)
        try:
            replica, response = self._send(theirs, path_for(request), body)
        except ContextTooLong as error:
            room = error.limit - error.prompt_tokens
            if not request.fit or error.prompt_tokens < 1 or not 1 <= room < request.max_tokens:
                raise
            body["max_tokens"] = room
            replica, response = self._send(theirs, path_for(request), body)
        items = self._items(replica, response, request)
        return Held(items, lambda: self._done(replica, response))

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """See :meth:`api.engines.base.Encoder.embed`."""
        theirs = self._name(model)
        replica, response = self._send(
            theirs, "/v1/embeddings", {"model": theirs, "input": list(texts)}
        )
        try:
            answer = json.loads(_read(response, _MOST_ANSWER_BYTES))
            data = sorted(answer["data"], key=lambda one: one["index"])
            vectors = tuple(_unit([float(x) for x in one["embedding"]]) for one in data)
            used = int(answer["usage"]["prompt_tokens"])
        except httpx.HTTPError as error:
            raise self._broken(replica, error) from None
        except (ValueError, KeyError, TypeError):
            raise EngineError("the model server's embeddings cannot be read") from None
        finally:
            self._done(replica, response)
        if len(vectors) != len(texts):
            raise EngineError("the model server left out embeddings")
        self._replicas.worked(replica)
        return Vectors(vectors, used)

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """Not in OpenAI's API."""
        raise Unsupported("model", "models on another server have no classes")

    # --- health -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Check the servers now and then, in a thread, until :meth:`close`."""
        self.check()
        self._checker = threading.Thread(target=self._check_on, name="upstream-check", daemon=True)
        self._checker.start()

    def close(self) -> None:
        """Let go of the servers; answers under way break off."""
        self._stop.set()
        if self._checker is not None:
            self._checker.join(self._settings.connect_seconds + 1)
        self._client.close()

    def check(self) -> None:
        """Ask every server which models it has, and load what a restarted one lost."""
        for replica in self._replicas.all:
            found = self._ask_models(replica)
            if found is not None and self._settings.lora:
                for name, path in list(self._adapters.items()):
                    if name not in found and self._post_adapter(replica, name, path):
                        found |= {name}
            self._replicas.checked(replica, found)

    # --- releases ---------------------------------------------------------------------------------

    def load(self, release: str, path: str) -> None:
        """Load a release's adapter into every server; it is served under its own id.

        Raises:
            EngineError: a server that answers would not; it then serves no server.
        """
        if not self._settings.lora:
            if release not in self._names:
                raise EngineError(
                    f"no model of the servers stands for {release}: name it in "
                    "engine.upstream.models, or set engine.upstream.lora"
                )
            return
        reached = 0
        for replica in self._replicas.all:
            found = self._ask_models(replica)
            if found is None:
                self._replicas.failed(replica)
                continue  # the health check loads it once the server is back
            if release not in found and not self._post_adapter(replica, release, path):
                self.unload(release)
                raise EngineError(f"a model server refused to load {release}")
            self._replicas.checked(replica, found | {release})
            reached += 1
        if not reached:
            raise EngineBusy("no model server can be reached", retry_after=5)
        self._adapters[release] = path
        self._names[release] = release

    def unload(self, release: str) -> None:
        """Take a release's adapter out of every server; one that cannot be reached is left."""
        if not self._settings.lora:
            return
        self._names.pop(release, None)
        self._adapters.pop(release, None)
        for replica in self._replicas.all:
            try:
                self._client.post(
                    f"{replica.url}/v1/unload_lora_adapter", json={"lora_name": release}
                )
            except httpx.HTTPError:
                continue

    # --- sending ----------------------------------------------------------------------------------

    def _name(self, model: str) -> str:
        try:
            return self._names[model]
        except KeyError:
            raise UnknownModel("no model server serves this model") from None

    def _send(
        self, theirs: str, path: str, body: Mapping[str, Any]
    ) -> tuple[Replica, httpx.Response]:
        """A server that began to answer with 200, and its answer; both are the caller's to end."""
        tried: list[Replica] = []
        attempt = 0
        while True:
            attempt += 1
            replica = self._next(theirs, tried)
            try:
                request = self._client.build_request(
                    "POST", replica.url + path, json=dict(body), headers=sent_on()
                )
                response = self._client.send(request, stream=True)
            except httpx.PoolTimeout:
                self._replicas.give_back(replica)
                raise EngineBusy(
                    "all connections to the model servers are in use", retry_after=1
                ) from None
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._replicas.give_back(replica)
                self._replicas.failed(replica)
                tried.append(replica)
                if attempt == self._settings.attempts:
                    raise EngineBusy(
                        f"the model server cannot be reached ({type(error).__name__})",
                        retry_after=max(1, int(self._settings.rest_seconds)),
                    ) from None
                continue
            except httpx.HTTPError as error:
                # The request may have been begun: it is not sent again.
                self._replicas.give_back(replica)
                raise self._broken(replica, error) from None
            except BaseException:
                self._replicas.give_back(replica)
                raise
            if response.status_code == 200:
                return replica, response
            wait = self._refused(replica, response, body)
            tried.append(replica)
            all_tried = len(tried) >= len(self._replicas.all)
            too_long = all_tried and wait > self._settings.wait_seconds
            if attempt == self._settings.attempts or too_long:
                raise EngineBusy("the model servers are busy", retry_after=max(1, math.ceil(wait)))
            if all_tried:
                self._stop.wait(wait)

    def _next(self, theirs: str, tried: list[Replica]) -> Replica:
        try:
            return self._replicas.take(theirs, tried)
        except EngineBusy:
            if not tried:
                raise
        tried.clear()
        return self._replicas.take(theirs)

    def _refused(
        self, replica: Replica, response: httpx.Response, body: Mapping[str, Any]
    ) -> float:
        """Seconds to wait for a 429 or 503; raises for everything else."""
        status = response.status_code
        try:
            told = b"" if status in _AGAIN else _read(response, _MOST_ERROR_BYTES)
        except httpx.HTTPError:
            told = b""
        finally:
            response.close()
            self._replicas.give_back(replica)
        if status in _AGAIN:
            wait = _retry_after(response.headers.get("retry-after"))
            self._replicas.rest(replica, min(wait, self._settings.rest_seconds))
            return wait
        if status >= 500:
            self._replicas.failed(replica)
        else:
            self._replicas.worked(replica)
        if status in (400, 413, 422):
            raise _bad_request(
                told.decode("utf-8", "replace"),
                status,
                int(body.get("max_tokens", 0)),
                self._settings.context_length,
            )
        if status == 404:
            raise UnknownModel("the model server has no such model")
        if 300 <= status < 400:
            raise EngineError(f"the model server redirects (HTTP {status}); name its last URL")
        raise EngineError(f"the model server refused the request (HTTP {status})")

    def _items(
        self, replica: Replica, response: httpx.Response, request: GenerationRequest
    ) -> Iterator[Item]:
        try:
            yield from items_of(response.iter_lines(), request)
        except httpx.HTTPError as error:
            raise self._broken(replica, error) from None
        except EngineError:
            self._replicas.failed(replica)
            raise
        self._replicas.worked(replica)

    def _broken(self, replica: Replica, error: httpx.HTTPError) -> EngineError:
        self._replicas.failed(replica)
        return EngineError(f"the model server broke off ({type(error).__name__})")

    def _done(self, replica: Replica, response: httpx.Response) -> None:
        try:
            response.close()
        finally:
            self._replicas.give_back(replica)

    # --- the servers' other routes ----------------------------------------------------------------

    def _ask_models(self, replica: Replica) -> frozenset[str] | None:
        try:
            answer = self._client.get(
                f"{replica.url}/v1/models", timeout=self._settings.connect_seconds
            )
            if answer.status_code != 200:
                return None
            return frozenset(str(one["id"]) for one in answer.json()["data"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None

    def _post_adapter(self, replica: Replica, release: str, path: str) -> bool:
        # Ids are digests of the content: a name never stands for another adapter, and none is
        # loaded in place of another.
        try:
            answer = self._client.post(
                f"{replica.url}/v1/load_lora_adapter",
                json={"lora_name": release, "lora_path": path},
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 or (
            answer.status_code == 400 and "already" in answer.text.lower()
        )

    def _check_on(self) -> None:
        while not self._stop.wait(self._settings.check_seconds):
            self.check()


def _read(response: httpx.Response, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)[:most]


def _retry_after(value: str | None) -> float:
    """Seconds; a date or nothing counts as one."""
    return float(value) if value is not None and value.isascii() and value.isdigit() else 1.0


def _bad_request(told: str, status: int, max_tokens: int, context: int) -> EngineError:
    if _WRONG_LENGTH.search(told):
        limit, prompt = _CONTEXT.search(told), _PROMPT.search(told)
        return ContextTooLong(
            int(prompt[1]) if prompt else 0,
            max_tokens,
            int(limit[1]) if limit else context,
        )
    return EngineError(f"the model server cannot read the request (HTTP {status})")


def _unit(vector: list[float]) -> tuple[float, ...]:
    norm = math.sqrt(sum(x * x for x in vector))
    if not math.isfinite(norm) or norm == 0:
        raise ValueError("no direction")
    return tuple(x / norm for x in vector)

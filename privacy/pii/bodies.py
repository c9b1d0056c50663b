"""Every text of a request and of an answer in OpenAI's form, and the same body with others.

Knows which fields are machinery (roles, ids, schema keywords) and takes everything else for text:
what is unknown is looked at. Numbers in tool arguments and schemas are looked at too, where they
have as many digits as a telephone number. Changes nothing by itself and knows no detector.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import regex

from privacy.pii.errors import CannotRedact, LimitExceeded

MOST_DEPTH: Final = 64
"""Deepest nesting of a body, and of JSON inside one of its strings."""

MOST_PIECES: Final = 200_000
"""Most texts of a body."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOKEN: Final = regex.compile(r"[A-Za-z0-9_.:/+-]{0,128}")
# Never text, as long as they look like a word of a protocol.
_MACHINERY: Final = _words(
    """
    call_id detail effort encoding_format finish_reason format generate id modalities mode model
    object prompt_cache_retention quality reasoning_effort role service_tier size status syntax
    system_fingerprint tool_call_id tool_choice truncation type verbosity voice
    """
)
_SETTINGS: Final = _words(
    """
    best_of created created_at frequency_penalty index logit_bias max_completion_tokens
    max_output_tokens max_tokens min_p n presence_penalty repetition_penalty seed temperature top_k
    top_logprobs top_p usage
    """
)
_PEOPLE: Final = {
    "user": "USER_HANDLE",
    "safety_identifier": "USER_HANDLE",
    "prompt_cache_key": "USER_HANDLE",
}
_NAMED: Final = frozenset({"function", "json_schema", "tool_choice", "custom", "tools", "tool"})
_JSON_SOURCE: Final = frozenset({"arguments"})
_SCHEMAS: Final = frozenset({"parameters", "schema", "input_schema"})
_OPAQUE: Final = _words(
    """
    audio document file image image_file image_url input_audio input_file input_image input_video
    video video_url
    """
)
_SUBSCHEMAS: Final = _words(
    """
    additionalItems additionalProperties allOf anyOf contains else if items not oneOf prefixItems
    propertyNames then unevaluatedItems unevaluatedProperties
    """
)
_NAMED_SCHEMAS: Final = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_KEYWORDS: Final = _words(
    """
    $anchor $dynamicAnchor $dynamicRef $id $ref $schema contentEncoding contentMediaType
    dependentRequired deprecated exclusiveMaximum exclusiveMinimum format maxItems maxLength
    maxProperties maximum minItems minLength minProperties minimum multipleOf nullable pattern
    readOnly required strict type uniqueItems writeOnly
    """
)
# Fields of OpenAI's requests; what else a body holds is the caller's own, machinery or not.
_FIELDS: Final = _words(
    """
    audio function_call functions include input instructions messages modalities model
    parallel_tool_calls prediction prompt reasoning response_format store stream stream_options
    text tool_choice tools web_search_options
    """
)
_LEAST_DIGITS: Final = 6
_LONGEST_LEAD: Final = 40
_JSON: Final = regex.compile(
    r'"(?:[^"\\]|\\.)*+"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[\[\]{}:,]', regex.DOTALL
)


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A text of a body.

    Attributes:
        text: the text, or the digits of a number.
        lead: words that tell what it is, such as ``"phone: "``; for looking at, not a part of it.
        number: it is a number in JSON.
        entity: it is of this kind as a whole, whatever it looks like.
    """

    text: str
    lead: str = ""
    number: bool = False
    entity: str | None = None


Change = Callable[[Piece], Any]
"""What stands in the place of a piece: a text, or for a number a text or the JSON of a number."""


@dataclass(frozen=True, slots=True, repr=False)
class RawNumber:
    """JSON source of a number that stands for another one."""

    source: str


class Walker:
    """Goes through one body. Reaches the texts in the same order every time."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._count = 0

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body with its texts changed; the one given stays as it is.

        Raises:
            LimitExceeded: it nests deeper, or has more texts, than the limits allow.
            CannotRedact: it holds images, sound or files, which nobody can look into.
        """
        made: dict[str, Any] = self._object(body, "", 0)
        return made

    def json_source(self, source: str) -> str:
        """JSON source with its strings, keys and long numbers changed; all else byte for byte.

        What is no JSON is one text.
        """
        _check_depth(source)
        try:
            json.loads(source)
        except (ValueError, RecursionError):
            return str(self._piece(Piece(source)))
        parts: list[str] = []
        done, lead = 0, ""
        tokens = list(_JSON.finditer(source))
        for token, following in zip(tokens, [*tokens[1:], None], strict=True):
            text = token.group()
            if text[0] == '"':
                is_key = following is not None and following.group() == ":"
                value = json.loads(text)
                if is_key:
                    lead = _lead(value)
                made = self._piece(Piece(value, "" if is_key else lead))
                new = text if made == value else json.dumps(made, ensure_ascii=False)
            elif text[0] in "-0123456789":
                new = self._number_source(text, lead)
            else:
                continue
            parts += [source[done : token.start()], new]
            done = token.end()
        return "".join([*parts, source[done:]])

    def _number_source(self, text: str, lead: str) -> str:
        made = self._number(text, lead)
        if isinstance(made, RawNumber):
            return made.source
        return json.dumps(made, ensure_ascii=False) if isinstance(made, str) else text

    def _number(self, text: str, lead: str) -> Any:
        """The text for a number, or None where it stays."""
        if sum(character.isdigit() for character in text) < _LEAST_DIGITS:
            return None
        made = self._piece(Piece(text, lead, number=True))
        return None if made == text else made

    def _piece(self, piece: Piece) -> Any:
        self._count += 1
        if self._count > MOST_PIECES:
            raise LimitExceeded(
                f"the request holds more than {MOST_PIECES:,} texts; send it in parts"
            )
        return self._change(piece) if piece.text else piece.text

    def _object(self, given: Mapping[str, Any], parent: str, depth: int) -> dict[str, Any]:
        _check(depth)
        kind = given.get("type")
        if parent == "content" and isinstance(kind, str) and kind in _OPAQUE:
            raise CannotRedact(
                f"personal data cannot be looked for in a part of type {kind!r}; send its text"
            )
        made: dict[str, Any] = {}
        for key, value in given.items():
            if key in ("prompt", "input") and _holds_numbers(value):
                raise CannotRedact(f"{key} holds token ids, which cannot be looked into; send text")
            if key == "name":
                made[key] = self._name(value, given, parent, depth)
            elif key in _PEOPLE and isinstance(value, str):
                made[key] = self._piece(Piece(value, entity=_PEOPLE[key]))
            elif key in _JSON_SOURCE and isinstance(value, str):
                made[key] = self.json_source(value)
            elif key == "content" and given.get("role") in ("tool", "function"):
                made[key] = self._tool_result(value, depth)
            elif key in _SCHEMAS and isinstance(value, Mapping):
                made[key] = self._schema(value, depth + 1)
            elif key == "metadata" and isinstance(value, Mapping):
                made[key] = self._free(value, "", depth + 1)
            elif key in _SETTINGS:
                made[key] = value
            elif depth == 0 and key not in _FIELDS | _MACHINERY:
                made[key] = self._free(value, _lead(key), depth + 1)
            else:
                made[key] = self._any(value, key, depth + 1)
        return made

    def _any(self, value: Any, key: str, depth: int) -> Any:
        _check(depth)
        if isinstance(value, str):
            machinery = key in _MACHINERY and _TOKEN.fullmatch(value)
            return value if machinery else self._piece(Piece(value))
        if isinstance(value, Mapping):
            return self._object(value, key, depth)
        if isinstance(value, list | tuple):
            return [self._any(one, key, depth + 1) for one in value]
        return value

    def _name(self, value: Any, owner: Mapping[str, Any], parent: str, depth: int) -> Any:
        if not isinstance(value, str):
            return self._any(value, "name", depth + 1)
        called = parent in _NAMED or owner.get("role") in ("tool", "function")
        if called or "arguments" in owner or "parameters" in owner:
            return value if _TOKEN.fullmatch(value) else self._piece(Piece(value))
        if "role" in owner:
            return self._piece(Piece(value, entity="PERSON"))
        return self._piece(Piece(value, "name: "))

    def _tool_result(self, value: Any, depth: int) -> Any:
        """What a tool said is JSON more often than not."""
        if _is_json(value):
            return self.json_source(value)
        return self._any(value, "content", depth + 1)

    def _free(self, value: Any, lead: str, depth: int) -> Any:
        """JSON values of the caller's own: keys, strings and long numbers are all looked at."""
        _check(depth)
        if isinstance(value, str):
            return self._piece(Piece(value, lead))
        if isinstance(value, Mapping):
            made = {}
            for key, inner in value.items():
                new = self._piece(Piece(key))
                while new in made:
                    # Two keys that are masked alike are still two.
                    new += "'"
                made[new] = self._free(inner, _lead(key), depth + 1)
            return made
        if isinstance(value, list | tuple):
            return [self._free(inner, lead, depth + 1) for inner in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            new = self._number(repr(value), lead)
            if isinstance(new, RawNumber):
                return json.loads(new.source)
            return value if new is None else new
        return value

    def _schema(self, value: Any, depth: int) -> Any:
        """A JSON schema: what it says to the model is looked at, what it demands stays."""
        _check(depth)
        if isinstance(value, list | tuple):
            return [self._schema(inner, depth + 1) for inner in value]
        if not isinstance(value, Mapping):
            return value
        made: dict[str, Any] = {}
        for key, inner in value.items():
            if key in _NAMED_SCHEMAS and isinstance(inner, Mapping):
                made[key] = {name: self._schema(one, depth + 2) for name, one in inner.items()}
            elif key in _SUBSCHEMAS:
                made[key] = self._schema(inner, depth + 1)
            elif key in _KEYWORDS:
                made[key] = inner
            else:
                made[key] = self._free(inner, "", depth + 1)
        return made


Restore = Callable[[str], str]


def restored(
    body: Mapping[str, Any], text: Restore, source: Restore, *, json_answers: bool = False
) -> dict[str, Any]:
    """An answer with ``text`` applied to its texts and ``source`` to JSON source in them.

    JSON source are arguments of tool calls, what tools said in JSON, and with ``json_answers`` the
    content of messages. Log-probabilities are left out: they hold placeholders in pieces.

    Raises:
        LimitExceeded: it nests deeper than the limit allows.
    """

    def walk(value: Any, key: str, depth: int, as_json: bool) -> Any:
        _check(depth)
        if isinstance(value, str):
            if key in _MACHINERY and _TOKEN.fullmatch(value):
                return value
            return source(value) if as_json or key in _JSON_SOURCE else text(value)
        if isinstance(value, Mapping):
            of_tool = value.get("role") in ("tool", "function")
            return {
                name: None
                if name == "logprobs"
                else walk(
                    inner,
                    name,
                    depth + 1,
                    name in ("content", "text")
                    and (json_answers or as_json or (of_tool and _is_json(inner))),
                )
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [walk(inner, key, depth + 1, as_json) for inner in value]
        return value

    made: dict[str, Any] = walk(body, "", 0, False)
    return made


def wants_json(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for an answer that is JSON."""
    formats = [body.get("response_format"), body.get("text")]
    if isinstance(formats[1], Mapping):
        formats[1] = formats[1].get("format")
    return any(
        isinstance(one, Mapping) and one.get("type") in ("json_object", "json_schema")
        for one in formats
    )


def _is_json(value: Any) -> bool:
    """Whether it is JSON source of an object or a list; as :meth:`Walker.request` reads what a tool said."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lead(key: str) -> str:
    return f"{key}: " if len(key) <= _LONGEST_LEAD else ""


def _check(depth: int) -> None:
    if depth > MOST_DEPTH:
        raise LimitExceeded(f"the body nests deeper than {MOST_DEPTH} levels; flatten it")


def _check_depth(source: str) -> None:
    """Before it is parsed, as the parser recurses. Raises LimitExceeded."""
    depth = 0
    for token in _JSON.finditer(source):
        mark = token.group()
        depth += (mark in "[{") - (mark in "]}")
        _check(depth)

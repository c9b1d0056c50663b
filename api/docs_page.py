"""The OpenAPI document as one plain page: no script, nothing from any other host."""

from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; font-size: 1.1rem; }
h2 b { display: inline-block; min-width: 4rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #eee; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } a { color: #8bf; } }
"""


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI 3.1 document."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    body = "".join(_operations(document))
    schemas = "".join(_schemas(document))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{title}</title><link rel="stylesheet" href="/docs/style.css"></head><body>'
        f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a> (OpenAPI '
        f"{escape(document['openapi'])}).</p>{body}{schemas}</body></html>"
    )


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><b>{escape(method.upper())}</b> <code>{escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
            body = operation.get("requestBody")
            if body is not None:
                schema = next(iter(body["content"].values()))["schema"]
                yield f"<p>Body: {_type(schema)}</p>"
            for status, answer in operation["responses"].items():
                found = [
                    _type(one["schema"])
                    for one in answer.get("content", {}).values()
                    if one.get("schema")
                ]
                yield f"<p>{escape(status)}: {' or '.join(found) or escape(answer['description'])}</p>"


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        yield f'<h2 id="{escape(name)}">{escape(name)}</h2>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        required = schema.get("required", [])
        yield "<table><tr><th>field</th><th>type</th><th></th></tr>"
        for field, one in schema.get("properties", {}).items():
            star = " (required)" if field in required else ""
            yield (
                f"<tr><td><code>{escape(field)}</code>{star}</td><td>{_type(one)}</td>"
                f"<td>{escape(one.get('description', ''))}</td></tr>"
            )
        yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    """A short HTML name for a schema."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")) + _bounds(schema))


def _bounds(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "minLength": "length ≥",
        "maxLength": "length ≤",
    }
    found = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    return f" ({', '.join(found)})" if found else ""

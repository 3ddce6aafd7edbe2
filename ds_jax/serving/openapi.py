"""The description of the interface by HTTP, as OpenAPI has it."""

from collections.abc import Sequence
from typing import Any

from ds_jax.runtime import versions
from ds_jax.serving.limits import Limits
from ds_jax.serving.speech import RATES

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def describe(classes: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Returns the description, as JSON, of a server of models that tell some classes apart."""
    seconds = {"type": "number", "minimum": 0, "default": 0}
    answer = {
        "prediction": {"type": "string", "enum": [*classes]},
        "probabilities": {
            "type": "object",
            "properties": {
                name: {"type": "number", "minimum": 0, "maximum": 1} for name in classes
            },
            "required": [*classes],
            "additionalProperties": False,
        },
    }
    window = {"start": {"type": "number"}, "end": {"type": "number"}, **answer}
    recording = {
        "seconds": {"type": "number", "description": "The length of the recording."},
        **answer,
        "windows": {"type": "array", "minItems": 1, "items": _object(window)},
    }
    health = {"status": {"const": "ok"}}
    health |= {name: {"type": "integer"} for name in ("listeners", "answers", "dispatches")}
    low, high = RATES
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ds_jax",
            "version": versions.program(),
            "description": (
                "Recognises emotions in speech. A token, where the server has one, goes into the "
                "header Authorization as 'Bearer TOKEN'. /listen is a WebSocket: the first message "
                'is text such as {"rate": 16000, "pictures": false}, with "token" from a browser; '
                f"the rate is {low} to {high} Hz. Then binary messages hold samples, 16-bit "
                "little-endian and mono, as they come from the microphone, each at most "
                f'{limits.message_bytes} bytes, and the text {{"type": "end"}} ends them. The '
                'server answers in JSON: {"type": "ready", "classes"}, {"type": "speech", "start"} '
                'when somebody begins to speak, {"type": "utterance", "start", "end", '
                '"prediction", "probabilities"} when an utterance has ended, {"type": "unusable", '
                '"start", "end", "reason"}, {"type": "end"}, and {"error"} before it closes.'
            ),
        },
        "paths": {
            "/predict": {
                "post": {
                    "summary": "Judges a recording as --mode=predict does.",
                    "parameters": [
                        {
                            "name": "window",
                            "in": "query",
                            "description": (
                                "Seconds; 0 takes the windows of the training, or the recording "
                                f"whole. A window or whole recording has at most {limits.piece:g} "
                                f"s, and a recording {limits.recording:g} s."
                            ),
                            "schema": seconds | {"maximum": limits.piece},
                        },
                        {
                            "name": "hop",
                            "in": "query",
                            "description": "Seconds between the starts of windows; 0: window.",
                            "schema": seconds | {"maximum": limits.recording},
                        },
                    ],
                    "requestBody": {
                        "required": True,
                        "description": f"A recording, at most {limits.upload_bytes} bytes.",
                        "content": {"audio/*": {}, "application/octet-stream": {}},
                    },
                    "security": [{}, {"token": []}],
                    "responses": {
                        "200": _response("The answer.", _object(recording)),
                        "400": _response("A parameter is impossible.", _PROBLEM),
                        "401": _response("The token is wrong or missing.", _PROBLEM),
                        "403": _response("A page of another server asked.", _PROBLEM),
                        "408": _response("The recording came too slowly.", _PROBLEM),
                        "413": _response("The recording is too large.", _PROBLEM),
                        "415": _response("The body is a form.", _PROBLEM),
                        "421": _response("The server has another name.", _PROBLEM),
                        "422": _response("The recording cannot be judged.", _PROBLEM),
                        "503": _response("The server is busy.", _PROBLEM),
                    },
                }
            },
            "/healthz": {
                "get": {
                    "summary": "Tells that the server listens, and how much it has answered.",
                    "responses": {"200": _response("It listens.", _object(health))},
                }
            },
        },
        "components": {
            "schemas": {"Problem": _object({"error": {"type": "string"}})},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}

"""OpenAPI document of the receiver of callbacks. Serves nothing."""

from __future__ import annotations

from typing import Any

from pika_async import __version__

__all__ = ["callback_document"]


def callback_document(max_body_bytes: int) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a receiver, relative to its public URL.

    :param max_body_bytes: the longest accepted body, in bytes.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callbacks",
            "version": __version__,
            "description": "Notifications of settled tasks. A body is a hint: the task is polled.",
        },
        "paths": {
            "/callbacks/{token}": {
                "parameters": [
                    {
                        "name": "token",
                        "in": "path",
                        "required": True,
                        "description": "The secret of one submission: 32 random bytes in base64url.",
                        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
                    }
                ],
                "post": {
                    "operationId": "receiveCallback",
                    "summary": "Notify of one task",
                    "security": [],
                    "requestBody": {
                        "description": f"Any content, at most {max_body_bytes} bytes.",
                        "required": False,
                        "content": {"application/json": {"schema": {"type": "object"}}, "*/*": {"schema": {}}},
                    },
                    "responses": {
                        "202": {"description": "The token is known and the callback is accepted. No body."},
                        "404": {"description": "Anything else, without a reason. No body."},
                    },
                },
            }
        },
    }

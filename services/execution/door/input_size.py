"""How many tokens a request makes a model read, estimated before it is sent: by its bytes, but for pictures and links.

A picture has more bytes than it costs, and what is only linked to has hardly any. Only what stands where an API has
pictures is one: a text that begins like a picture is a text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

IMAGE_TOKENS: Final = 5_000
"""What a picture costs at most: by its size in pixels, and no provider more than this."""
FILE_TOKENS: Final = 150_000
"""What is reserved for a document that is only linked to, or kept at its provider: some hundred pages, as text and
pictures."""

_BYTES_A_TOKEN: Final = 4
_MARKS: Final = re.compile(rb"image|file|document|inline_?data", re.IGNORECASE)
"""What stands in each request that has more than text."""
_CALLS: Final = ("tool_use", "server_tool_use")
_VALUES: Final = frozenset({"args", "response", "parameters", "input_schema"})
"""Where a request has values of the agent's own, which a model reads as text whatever they look like."""


def input_tokens(body: bytes, fields: Mapping[str, Any]) -> int:
    """Estimate the tokens of a request, whose `body` is `fields`."""
    text, others = len(body), 0
    for part in _parts(fields) if _MARKS.search(body) else ():
        if (data := _picture(part)) is not None:
            text -= len(data)
            others += min(len(data) // _BYTES_A_TOKEN, IMAGE_TOKENS)
        else:
            others += _linked_tokens(part)
    return -(-max(0, text) // _BYTES_A_TOKEN) + others


def _parts(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a request that an API may see as a part of what is said to the model."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict) and one.get("type") not in _CALLS:
            yield one
            waiting += (each for name, each in one.items() if name not in _VALUES)
        elif isinstance(one, list):
            waiting += one


def _picture(part: Mapping[str, Any]) -> str | None:
    """Return the picture that a part of a request is, as base64; None for another part."""
    match part:
        case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
            return data
        case {"type": "input_image", "image_url": str(url)} | {"type": "image_url", "image_url": {"url": str(url)}}:
            return url if url.startswith("data:image/") else None
        case {"inlineData": {"data": str(data)} as inline} | {"inline_data": {"data": str(data)} as inline}:
            return data if _is_image(inline) else None
    return None


def _linked_tokens(part: Mapping[str, Any]) -> int:
    """Return what a part of a request costs at most that leads to something; 0 for another part."""
    match part:
        case {"type": "image", "source": {"type": "url" | "file"}} | {"type": "input_image" | "image_url"}:
            return IMAGE_TOKENS
        case {"type": "document" | "container_upload", "source": {"type": "url" | "file"}}:
            return FILE_TOKENS
        case {"type": "input_file" | "file"} if _is_link(part) or _is_link(part.get("file")):
            return FILE_TOKENS
        case {"fileData": dict(linked)} | {"file_data": dict(linked)}:
            return IMAGE_TOKENS if _is_image(linked) else FILE_TOKENS
    return 0


def _is_image(data: Mapping[str, Any]) -> bool:
    return str(data.get("mimeType", data.get("mime_type"))).startswith("image/")


def _is_link(part: object) -> bool:
    return isinstance(part, dict) and any(isinstance(part.get(name), str) for name in ("file_id", "file_url"))

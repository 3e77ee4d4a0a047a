"""A provider of models for the benches: it answers each request with a stream of the Messages API.

    python -m bench.kit.model_provider 100 20

writes its port, and streams 100 events of text, with 20 ms between them. The query of a request may say otherwise:
`?events=10&pause=0`.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit


def answer(events: int) -> list[bytes]:
    """Return the events of an answer, as they are sent."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": usage}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello "}}
    parts: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        *[text] * events,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": events}},
        {"type": "message_stop"},
    ]
    lines = [f"event: {part['type']}\ndata: {json.dumps(part)}\n\n".encode() for part in parts]
    return [b"%x\r\n%b\r\n" % (len(line), line) for line in lines]


class Provider:
    def __init__(self, events: int, pause_s: float) -> None:
        self._events = events
        self._pause_s = pause_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                asked = parse_qs(urlsplit(head.split(" ", 2)[1]).query)
                length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length"))
                await reader.readexactly(int(length.split(":")[1]))
                await self._answer(
                    writer,
                    int(asked.get("events", [self._events])[0]),
                    float(asked.get("pause", [self._pause_s])[0]),
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, events: int, pause_s: float) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in answer(events):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write(b"0\r\n\r\n")


async def main(events: int, pause_s: float) -> None:
    server = await asyncio.start_server(Provider(events, pause_s).serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))

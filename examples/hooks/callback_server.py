"""A server that Boatyard calls during jobs: it tells agents the house rules, and guards what is pushed.

    python examples/hooks/callback_server.py --token-file token --protected ci/ --rules "Write a test for every change."

    boatyard hook create --event pre --callback http://127.0.0.1:7490 --token @token
    boatyard hook create --event before --stage push --callback http://127.0.0.1:7490 --token @token

The gateway calls loopback only if BOATYARD_GATEWAY_WEBHOOK_ALLOW=127.0.0.1 allows it. A server that others can reach
needs TLS: `server.add_secure_port`, and https:// in the hook's URL.
"""

import argparse
import asyncio
import hmac
import signal
from pathlib import Path
from typing import Any

import grpc
from boatyard.gateway.v1 import hook_pb2
from boatyard.hook.v1 import callback_pb2, callback_pb2_grpc

REMEMBERED = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class HouseRules(callback_pb2_grpc.HookCallbackServiceServicer):
    def __init__(self, token: str, rules: str, protected: list[str]) -> None:
        self.expected = f"Bearer {token}".encode()
        self.rules = rules
        self.protected = protected
        self.answers: dict[str, callback_pb2.CallHookResponse] = {}

    async def CallHook(  # noqa: N802 - the contract's name
        self, request: callback_pb2.CallHookRequest, context: Context
    ) -> callback_pb2.CallHookResponse:
        shown = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(str(shown).encode(), self.expected):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is not the token of the hook")
        # The same call may come again: it gets the same answer as the first time, and nothing is done twice.
        if request.call_id not in self.answers:
            self.answers[request.call_id] = self.answer(request)
            print(f"{request.call_id}: {request.job.job_id}", flush=True)
            while len(self.answers) > REMEMBERED:
                del self.answers[next(iter(self.answers))]
        return self.answers[request.call_id]

    def answer(self, request: callback_pb2.CallHookRequest) -> callback_pb2.CallHookResponse:
        if request.event == hook_pb2.Hook.EVENT_PRE:
            return callback_pb2.CallHookResponse(prompt_addition=self.rules, labels={"rules": "told"})
        if (request.event, request.stage) == (hook_pb2.Hook.EVENT_BEFORE, "push"):
            changed = [file.path for file in request.job.output.files_changed]
            touched = [path for path in changed if path.startswith(tuple(self.protected))]
            if touched:
                names = ", ".join(touched)
                return callback_pb2.CallHookResponse(
                    veto=callback_pb2.CallHookResponse.Veto(reason=f"agents do not change {names}")
                )
            return callback_pb2.CallHookResponse(note=f"changed files: {len(changed)}")
        return callback_pb2.CallHookResponse()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:7490")
    parser.add_argument("--token-file", type=Path, required=True, help="a file with the hook's token")
    parser.add_argument("--rules", default="", help="text to add to agents' prompts")
    parser.add_argument("--protected", action="append", default=[], help="paths that agents may not change")
    options = parser.parse_args()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = HouseRules(options.token_file.read_text().strip(), options.rules, options.protected)
    callback_pb2_grpc.add_HookCallbackServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(options.listen)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    print(f"listening on {options.listen.rpartition(':')[0]}:{port}", flush=True)
    await stopping.wait()
    await server.stop(grace=1)


if __name__ == "__main__":
    asyncio.run(main())

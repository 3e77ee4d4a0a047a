"""One call of a server by gRPC: boatyard.hook.v1.HookCallbackService, which its owner implements."""

import asyncio
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
from boatyard.gateway.v1 import hook_pb2, job_pb2
from boatyard.hook.v1 import callback_pb2 as pb
from boatyard.hook.v1.callback_pb2_grpc import HookCallbackServiceStub
from google.protobuf.json_format import Parse

from services.common.rpc.rules import Rules
from services.lifecycle.model.hook_answers import HookAnswer, veto
from services.lifecycle.webhooks.addresses import Address, AllowList, NotAllowed, resolve
from services.lifecycle.webhooks.retries import CallFailed, TryFailed

_RULES: Final = Rules()
_MAX_ANSWER_BYTES: Final = 64 << 10
_MAX_WORDS: Final = 512
_TRIED_AGAIN: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@dataclass(frozen=True, slots=True)
class Callback:
    """The call of a server. `call_id` is the same for all tries, whoever makes them; `timeout` is that of each try.

    `event` is the contract's, without prefix; `document` is the job in the contract's JSON form.
    """

    call_id: str
    url: str
    token: bytes
    hook_id: str
    event: str
    stage: str
    document: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What a server answered, and its note for people."""

    said: HookAnswer
    note: str
    tries: int = 1


async def try_callback(call: Callback, allowed: AllowList, number: int) -> CallbackAnswer:
    """Make one try of a call. Raises TryFailed, CallFailed."""
    try:
        async with asyncio.timeout(call.timeout):
            return await _ask(call, allowed, number)
    except NotAllowed as refused:
        raise CallFailed(str(refused), number) from refused
    except TimeoutError as error:
        raise TryFailed(f"no answer within {call.timeout:g} s") from error
    except OSError as error:
        raise TryFailed(f"no connection: {error or type(error).__name__}") from error
    except grpc.aio.AioRpcError as error:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TryFailed(f"no answer within {call.timeout:g} s") from error
        words = (error.details() or "")[:_MAX_WORDS]
        said = f"answered {code.name}: {words}" if words else f"answered {code.name}"
        raise (TryFailed(said) if code in _TRIED_AGAIN else CallFailed(said, number)) from error


async def _ask(call: Callback, allowed: AllowList, number: int) -> CallbackAnswer:
    request = pb.CallHookRequest(
        call_id=call.call_id,
        hook_id=call.hook_id,
        event=hook_pb2.Hook.Event.Value(f"EVENT_{call.event}"),
        stage=call.stage,
        job=Parse(call.document, job_pb2.Job(), ignore_unknown_fields=True),
    )
    url = httpx2.URL(call.url)
    addresses = await resolve(url, allowed)
    credentials = None if url.scheme == "http" else grpc.ssl_channel_credentials(await asyncio.to_thread(authorities))
    async with _channel(url, addresses[(number - 1) % len(addresses)], credentials) as channel:
        answer: pb.CallHookResponse = await HookCallbackServiceStub(channel).CallHook(
            request,
            timeout=call.timeout,
            metadata=(("authorization", f"Bearer {call.token.decode()}"),),
        )
    vetoed = veto(answer.veto.reason) if answer.HasField("veto") else None
    return CallbackAnswer(
        HookAnswer(vetoed, answer.prompt_addition, dict(answer.labels), answer.ask), answer.note, number
    )


def answer_complaint(said: HookAnswer) -> str | None:
    """Return what is wrong with an answer by the contract, whoever gave it; None when nothing is."""
    answer = pb.CallHookResponse(prompt_addition=said.prompt_addition, labels=said.labels, ask=said.ask)
    return "; ".join(f"{path} {text}" for path, text in _RULES.violations(answer)) or None


def _channel(url: httpx2.URL, address: Address, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Open a channel to the address that was checked; the name is used for :authority, SNI and the certificate."""
    target = f"ipv{address.version}:{f'[{address}]' if address.version == 6 else address}:{url.port or _port(url)}"
    options: list[tuple[str, Any]] = [
        ("grpc.default_authority", url.netloc.decode()),
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.enable_retries", 0),  # we retry ourselves, with one id
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, [*options, ("grpc.ssl_target_name_override", url.host)])


def _port(url: httpx2.URL) -> int:
    return 443 if url.scheme == "https" else 80


@cache
def authorities() -> bytes | None:
    """Read the certificates that this system trusts, like webhooks; without such a file gRPC uses its own."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file else None

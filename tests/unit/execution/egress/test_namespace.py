"""The sockets inside a namespace whose owner sets up its loopback late."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from services.execution.egress.namespace import listen_inside

# In namespaces of its own: sets up the loopback when told, as a sandbox does, and then asks and connects.
_INSIDE = """
import ctypes, fcntl, os, socket, struct
assert ctypes.CDLL(None).unshare(0x50000000) == 0
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("unshared", flush=True)
input()
address = struct.pack("=HH4s8x", socket.AF_INET, 0, bytes((127, 0, 0, 1)))
fcntl.ioctl(control, 0x8916, struct.pack("16s16s8x", b"lo", address))
fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"lo", 0x41))
input()
control.settimeout(20)
control.connect(("127.0.0.1", 53))
control.send(b"question")
print(control.recv(99).decode(), flush=True)
with socket.create_connection(("192.0.2.1", 80), 20) as connection:
    print(connection.recv(99).decode())
"""


def test_the_loopback_is_waited_for_and_its_address_stays_the_first() -> None:
    command = [sys.executable, "-c", _INSIDE]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as inside,
        ThreadPoolExecutor() as pool,
    ):
        assert inside.stdin is not None
        assert inside.stdout is not None
        try:
            assert inside.stdout.readline() == "unshared\n"
            listening = pool.submit(listen_inside, inside.pid, 3128, must_capture=True)
            with suppress(TimeoutError):
                listening.exception(0.3)  # it cannot be done yet
            inside.stdin.write("set it up\n")
            proxy, names = listening.result(20)
            with proxy, names:
                proxy.settimeout(20)
                names.settimeout(20)
                inside.stdin.write("ask\n")
                question, client = names.recvfrom(99)
                names.sendto(question.replace(b"question", b"answer"), client)
                connection, _ = proxy.accept()
                with connection:
                    assert connection.getsockname() == ("192.0.2.1", 80)
                    connection.sendall(b"hello")
                assert inside.stdout.read() == "answer\nhello\n"
        finally:
            inside.kill()

"""Programs that resist being ended. Each prints `ready` when it has done its worst."""

import textwrap

KINDS: dict[str, str] = {
    "a daemon by double fork and setsid": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3): os.close(fd)
                rest()
            os._exit(0)
        os.wait()
        ready()
        rest()""",
    "ignores every signal that can be ignored": """
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork(): ready()
        rest()""",
    "hops: forks, renames itself, and exits, for ever": """
        if os.fork():
            ready()
            rest()
        name = 0
        while True:
            if os.fork(): os._exit(0)
            os.setsid()
            name += 1
            open("/proc/self/comm", "w").write(f"hop{name}")""",
    "stops itself and its children": """
        if os.fork() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
        ready()
        os.kill(os.getpid(), signal.SIGSTOP)""",
    "writes while it dies": """
        def die(*_):
            while True: os.write(1, b"not yet\\n" * 100)
        signal.signal(signal.SIGTERM, die)
        ready()
        rest()""",
    "closes everything it has": """
        if os.fork() == 0:
            os.closerange(0, 4096)
            rest()
        ready()
        os.closerange(0, 4096)
        rest()""",
    "holds standard output open in a grandchild": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: rest()
            os._exit(0)
        ready()
        rest()""",
    "becomes another program, under another name and without its environment": """
        if os.fork() == 0:
            os.execve("/bin/sleep", ["[kworker/0:1]", "600"], {})
        ready()
        rest()""",
    "kills its siblings and its group": """
        for _ in range(3):
            if os.fork() == 0: rest()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            os.write(writing, b"!")
            rest()
        os.read(reading, 1)
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.killpg(0, signal.SIGTERM)
        ready()
        rest()""",
    "forks in its handler of SIGTERM": """
        def more(*_):
            for _ in range(20):
                if os.fork() == 0:
                    os.setsid()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    rest()
        signal.signal(signal.SIGTERM, more)
        ready()
        rest()""",
    "gives its children to others, in many steps": """
        for depth in range(8):
            if os.fork():
                if depth: os._exit(0)
                break
            os.setsid()
        if depth == 0: ready()
        rest()""",
    "many threads and processes that trace each other's end": """
        import threading
        for _ in range(5):
            if os.fork() == 0:
                for _ in range(5): threading.Thread(target=rest).start()
                rest()
        ready()
        rest()""",
    "waits where signals do not reach it: a parent in vfork": """
        import subprocess
        ready()
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 600 & exec sleep 600"], close_fds=False)
        rest()""",
}

THOUSAND = """
        for number in range(1000):
            if os.fork() == 0:
                os.setsid()
                rest()
        ready()
        rest()"""

_HEAD = """
import os, signal, sys, time
def ready(): os.write(1, b"ready\\n")
def rest():
    while True: time.sleep(600)
"""


def program(body: str, *, then_exit: bool = False) -> list[str]:
    """Return the argv of a program; with `then_exit` its first process ends by itself soon after."""
    body = textwrap.dedent(body)
    if then_exit:
        ignore = "signal.signal(signal.SIGTERM, signal.{})\n"
        child = ignore.format("SIG_DFL") + body
        head = ignore.format("SIG_IGN") + "if os.fork() == 0:\n"
        body = head + textwrap.indent(child, "    ") + "\ntime.sleep(0.2)\nos._exit(0)\n"
    return ["python3", "-c", _HEAD + body]

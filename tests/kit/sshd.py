"""OpenSSH's own server on this machine, with keys of its own, for root's account, that can be told what goes wrong.

Its client is told of its host key by a program in ssh's place, because ssh reads the list of known hosts of the account
that runs it. Only root can start it.
"""

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRAM: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_ANSWERS_WITHIN_SECONDS: Final = 20

# What a session does in place of what it is asked to, as a program of sh: `run` does what it is asked to.
FAULTS: Final = {
    "": "run",
    "refuses by a rule": "echo 'FATAL: R any repo.git tester DENIED by fallthru' >&2; exit 1",
    "has no such repository": "echo \"fatal: '/a.git' does not appear to be a git repository\" >&2; exit 128",
    "closes": "exit 255",
    "says nothing": "exec sleep 600",
    "is cut": "run | {{ dd bs=1 count={bytes} 2>/dev/null; kill -9 0; }}",
    "falls silent": "run | {{ dd bs=1 count={bytes} 2>/dev/null; head -c 1 | grep -q '' && exec sleep 600; }}",
    "breaks off": "dd bs=1 count={bytes} 2>/dev/null | run",
    "does it and closes": "run >/dev/null 2>&1; exit 255",
    "is slow": "run | {{ for _ in 1 2 3 4 5; do dd bs={bytes} count=1 2>/dev/null; sleep 0.5; done; cat; }}",
}


def _make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


class SshServer:
    """Serves what its account may read, at `url(path)`, to whoever has `key`.

    `programs` is a directory with git, and an ssh that knows the server; it runs what lies there.
    `does` changes what it does with commands that hold `at`, from then on: a name of FAULTS, and after how many bytes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = _free_port()
        self.host_key = _make_key(directory / "host_key")
        public = _make_key(directory / "user_key")
        self.key = (directory / "user_key").read_text()
        self.another_key = _make_key(directory / "another_key")
        self.another_private_key = (directory / "another_key").read_text()
        (directory / "authorized_keys").write_text(public + "\n")
        self.programs = directory / "programs"
        self.programs.mkdir()
        (self.programs / "git").symlink_to(shutil.which("git") or "git")
        ssh = f'#!/bin/sh\nexec /usr/bin/ssh -o UserKnownHostsFile={directory}/known_hosts "$@"\n'
        (self.programs / "ssh").write_text(ssh)
        (self.programs / "ssh").chmod(0o755)
        self.is_known_by(self.host_key)
        self.does("")

    def url(self, path: Path) -> str:
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}{path}"

    def is_known_by(self, host_key: str) -> None:
        """Have clients expect this key of the server; empty is none."""
        known = f"[127.0.0.1]:{self.port} {host_key}\n" if host_key else ""
        (self._directory / "known_hosts").write_text(known)

    def does(self, fault: str, after_bytes: int = 0, at: str = "git-") -> None:
        broken = FAULTS[fault].format(bytes=after_bytes)
        lines = (
            "#!/bin/sh",
            f'run() {{ PATH={shlex.quote(str(self.programs))}:$PATH sh -c "$SSH_ORIGINAL_COMMAND"; }}',
            f'echo "$SSH_ORIGINAL_COMMAND" >> {shlex.quote(str(self._directory / "asked"))}',
            f'case "$SSH_ORIGINAL_COMMAND" in *{shlex.quote(at)}*) {broken} ;; *) run ;; esac',
        )
        (self._directory / "session").write_text("\n".join(lines) + "\n")

    def asked(self) -> list[str]:
        """Return the commands that it was asked to run, since the last call."""
        path = self._directory / "asked"
        commands = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return commands

    def config(self) -> str:
        return f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {self._directory}/host_key
            AuthorizedKeysFile {self._directory}/authorized_keys
            PidFile none
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            AcceptEnv GIT_PROTOCOL
            ForceCommand sh {self._directory}/session
        """


@contextmanager
def ssh_server(directory: Path) -> Iterator[SshServer]:
    """Serve inside of the block. `directory` is for its keys."""
    server = SshServer(directory)
    config = directory / "sshd_config"
    config.write_text(server.config())
    command = [PROGRAM or "sshd", "-D", "-e", "-f", str(config)]
    # It wants a directory that only its package's service makes. Its sessions end with it.
    inside = f"mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec {shlex.join(command)}"
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside]
    with (directory / "log").open("wb") as log, subprocess.Popen(apart, stderr=log) as process:
        try:
            _wait_until_it_answers(server.port, process)
            yield server
        finally:
            process.kill()  # it heeds no other signal while it waits for its child


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _ANSWERS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("sshd does not answer")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port

"""Repositories of any size, the same on every machine: text files with sizes distributed as in real repositories."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

_EPOCH = 1_700_000_000
_LONGEST = 400_000
_CHANGED = 20


def generate(path: Path, files: int, commits: int) -> None:
    """Make a bare repository of `files` files (median 3.6 kB, mean 7.5 kB); each further commit changes 20 of them."""
    rng = random.Random(files)
    pool = _text(rng)
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    git = ["git", f"--git-dir={path}"]
    feed = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert feed.stdin
    names = _names(rng, files)
    changes = [names, *(rng.sample(names, _CHANGED) for _ in range(commits - 1))]
    for number, changed in enumerate(changes):
        feed.stdin.write(
            b"commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 1\nc\n" % (_EPOCH + 60 * number)
        )
        for name in changed:
            content = _content(rng, pool)
            feed.stdin.write(b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(content), content))
    feed.stdin.close()
    assert feed.wait() == 0
    subprocess.run([*git, "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    subprocess.run([*git, "repack", "-adq"], check=True)


def _text(rng: random.Random) -> bytes:
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz_", k=rng.randint(2, 12))) for _ in range(5000)]
    text = b" ".join(rng.choices(words, k=200_000))
    return b"\n".join(text[start : start + 60] for start in range(0, len(text), 60))


def _names(rng: random.Random, files: int) -> list[bytes]:
    def endless() -> Iterator[bytes]:
        number = 0
        while True:
            folder = b"/".join(b"d%d" % rng.randrange(12) for _ in range(rng.randint(1, 4)))
            for _ in range(rng.randint(3, 30)):
                number += 1
                yield b"%s/f%d.py" % (folder, number)

    names = endless()
    return [next(names) for _ in range(files)]


def _content(rng: random.Random, pool: bytes) -> bytes:
    size = min(int(rng.lognormvariate(8.2, 1.2)), _LONGEST)
    start = rng.randrange(len(pool) - _LONGEST)
    return b"%d\n" % rng.getrandbits(64) + pool[start : start + size]

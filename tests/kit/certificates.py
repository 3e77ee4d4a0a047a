"""CAs that a test makes for itself, and their certificates."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """The paths of a certificate's files."""

    certificate: Path
    key: Path


class Authority:
    """A CA and the certificates that it has signed, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *names: str, into: str) -> Files:
        """Sign a certificate for names or addresses."""
        signed = self._ca.issue_cert(*names)
        files = Files(self._directory / f"{into}.pem", self._directory / f"{into}.key")
        chain = b"".join(blob.bytes() for blob in signed.cert_chain_pems)
        replace(files.certificate, chain)
        replace(files.key, signed.private_key_pem.bytes())
        return files


def replace(path: Path, content: bytes) -> None:
    """Replace a file atomically, as a renewal of certificates should."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)

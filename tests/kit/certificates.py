"""Certificates of CAs that a test makes for itself."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """Where the files of a certificate stand."""

    certificate: Path
    key: Path


class Authority:
    """A CA, and what it has signed, under a directory of its own."""

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
    """Put a file in the place of another at once, as who renews certificates should."""
    aside = path.with_suffix(".new")
    aside.write_bytes(content)
    aside.rename(path)

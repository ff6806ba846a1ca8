"""A certificate authority that lives as long as its directory, for servers that speak TLS."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.servers import MissingPrerequisite

DAYS = "2"


class Certificate(NamedTuple):
    """Files in PEM form."""

    certificate: Path
    key: Path
    both: Path
    """Key and certificate in one file, as Kafka reads them."""


class Authority:
    """Issues certificates that are good for 127.0.0.1 alone."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        """Makes the authority, by OpenSSL 3 on the command line. Raises MissingPrerequisite where it is not there."""
        self._directory = directory
        self.file = directory / f"{name}.pem"
        """The authority's own certificate: what a client trusts."""
        self._key = directory / f"{name}.key"
        _openssl(
            *(
                "req",
                "-x509",
                *_NEW_KEY,
                "-keyout",
                self._key,
                "-out",
                self.file,
                "-days",
                DAYS,
                "-subj",
                f"/CN={name}",
            ),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )

    def issue(self, name: str) -> Certificate:
        """A certificate for a server or a client whose subject is CN=name."""
        issued = Certificate(*(self._directory / f"{name}.{suffix}" for suffix in ("crt", "key", "pem")))
        _openssl(
            *("req", "-x509", "-CA", self.file, "-CAkey", self._key, *_NEW_KEY, "-keyout", issued.key),
            *("-out", issued.certificate, "-days", DAYS, "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"),
        )
        issued.both.write_bytes(issued.key.read_bytes() + issued.certificate.read_bytes())
        return issued


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise MissingPrerequisite("openssl is not on the PATH: install OpenSSL 3 (Debian: openssl).")
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl ended with status {done.returncode}:\n{done.stderr}")

"""A PostgreSQL server of one's own: a cluster in a temporary directory, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "open sesame"


def binaries() -> Path:
    """Where the server's programs lie; CI has them, and says so where it has not."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    if os.environ.get("CI"):
        pytest.fail("CI without PostgreSQL: apt-get install postgresql")
    pytest.skip("NOT TESTED with PostgreSQL: its server is not installed (Debian: apt-get install postgresql)")


@contextmanager
def server() -> Iterator[str]:
    """The address of a server, as `user@host:port/database`, while it runs."""
    programs, user = binaries(), _user()
    with tempfile.TemporaryDirectory(prefix="segfocal-postgres-") as folder:  # tmp_path is closed to other users
        data, password = Path(folder, "data"), Path(folder, "password")
        password.write_text(PASSWORD)
        if user:
            for path in (folder, password):
                shutil.chown(path, user)
        made = [programs / "initdb", "--pgdata", data, "--username", "ours", "--auth", "scram-sha-256", "--pwfile", password, "--no-sync"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(process, port, Path(folder, "log"))
            yield f"ours@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # without waiting for those that are connected
            process.wait(30)


def _user() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while b"ready to accept connections" not in log.read_bytes():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

"""PostgreSQL and an S3 server for the tests, on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

SECRET = "a-secret"
PATIENCE_S = 60
# Small, safe and forgetful.
_POSTGRES = ("fsync=off", "shared_buffers=32MB", "max_connections=500", "listen_addresses=127.0.0.1")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Services:
    """Their ports; each test asks for a database and a bucket of its own."""

    postgres: int
    s3: int
    number: count = field(default_factory=lambda: count(1))

    def database(self):
        import psycopg

        name = f"site{next(self.number)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._address(name).replace("postgresql:", "postgresql+psycopg:")

    def _address(self, name):
        return f"postgresql://opengps:{SECRET}@127.0.0.1:{self.postgres}/{name}"

    @property
    def s3_environment(self):
        """What a process must know to reach the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3}",
        }

    def bucket(self):
        """The address of a new, empty bucket."""
        name = f"site{next(self.number)}"
        self._s3().mkdir(name)
        return f"s3://{name}/opengps"

    def files(self, address):
        """All files below an address of a bucket."""
        return self._s3().find(address)

    def _s3(self):
        import s3fs

        address = self.s3_environment["AWS_ENDPOINT_URL"]
        options = {"endpoint_url": address, "skip_instance_cache": True, "use_listings_cache": False}
        return s3fs.S3FileSystem(key="tests", secret=SECRET, **options)


@contextmanager
def running():
    """Start both; skip the test if PostgreSQL is missing: tests/opengps/debian.sh installs it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([*map(str, binaries[-1:]), os.environ["PATH"]])
    programs = [shutil.which(name, path=path) for name in ("initdb", "postgres")]
    if not all(programs):
        pytest.skip("PostgreSQL is not installed; run tests/opengps/debian.sh")
    initdb, postgres = programs
    with ExitStack() as stack:
        # PostgreSQL does not run as root, nor in a folder of root's.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opengps-")))
        owner = "postgres" if os.getuid() == 0 else None
        if owner:
            shutil.chown(folder, owner, owner)
        ports = [free_port() for _ in range(2)]
        _start_postgres(stack, initdb, postgres, folder, owner, ports[0])
        _start(stack, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[1]))
        for port in ports:
            _await(port)
        yield Services(*ports)


def _start_postgres(stack, initdb, postgres, folder, owner, port):
    password, data = folder / "password", folder / "data"
    password.write_text(SECRET)
    password.chmod(0o644)
    options = ("--username=opengps", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8")
    command = [initdb, "-D", str(data), *options, "--locale=C.UTF-8", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=owner, cwd=folder)
    settings = [word for each in _POSTGRES for word in ("-c", each)]
    _start(stack, postgres, "-D", str(data), "-p", str(port), "-k", str(folder), *settings, user=owner)


def _start(stack, *command, user=None):
    process = subprocess.Popen(
        command,
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )

    def stop():
        # SIGINT: PostgreSQL does not wait for open connections.
        process.send_signal(2)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()

    stack.callback(stop)


def _await(port):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")

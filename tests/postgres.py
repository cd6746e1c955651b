"""A PostgreSQL server of the tests' own: real, on a free port, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from dags.local.ports import HOST, free_port

SERVER = "postgres"
PASSWORD = "p@ss/word"  # has to be escaped in an address

# A test server may lose everything with the machine.
OPTIONS = f"-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses={HOST}"


def binaries() -> Path:
    """Return the newest folder that holds a PostgreSQL server.

    Raises:
        RuntimeError: there is none.
    """
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True
    ) or [Path(path) for path in (shutil.which("initdb"),) if path]
    if not found:
        raise RuntimeError(
            "the tests of the serving store start a PostgreSQL server (14 or newer), and there is none below "
            "/usr/lib/postgresql nor on the PATH. Debian, Ubuntu: sudo apt-get install postgresql"
        )
    return found[0].parent


class Server:
    """A cluster in a new folder. Root starts it as the user `postgres`: the server refuses to run as root."""

    def __init__(self) -> None:
        self.bin = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="meander-postgres-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run(
            "initdb", "-D", self.data, "-U", SERVER, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E",
            "UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        self.start()

    def run(self, program: str, *arguments: object) -> None:
        """Run one of the server's programs, or another one, as the server's user, to its end."""
        ours = self.bin / program
        done = subprocess.run(
            [*self.as_user, str(ours if ours.exists() else program), *map(str, arguments)],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}")

    def start(self) -> None:
        options = f"{OPTIONS} -c port={self.port} -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once; who is connected is thrown out."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, user: str = SERVER, password: str = PASSWORD, database: str = "postgres", more: str = "") -> str:
        """Return the address for a user."""
        quoted = password.replace("/", "%2F").replace("@", "%40")
        return f"postgresql://{user}:{quoted}@{HOST}:{self.port}/{database}{more}"

    def connect(self, **more: object) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the administrator."""
        return psycopg.connect(self.url(), autocommit=True, **more)

"""Which ports processes listen on, and which of these can be reached from other machines."""

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

LISTENS = "0A"


def family(pid: int | None = None) -> Iterator[psutil.Process]:
    """Yield a process, this one by default, and all that descend from it."""
    process = psutil.Process(pid or os.getpid())
    yield process
    yield from process.children(recursive=True)


def doors(processes: Iterable[psutil.Process]) -> set[tuple[str, int, str]]:
    """Return (address, port, command) of each TCP socket on which one of these processes waits for calls.

    Of a process of somebody else the kernel tells nothing, and this would be an error.
    """
    found = set()
    for process in processes:
        # It may have ended meanwhile.
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError):
            command = " ".join(process.cmdline())
            found |= {(address, port, command) for address, port in listening(process.pid)}
    return found


def listening(pid: int) -> Iterator[tuple[str, int]]:
    """Yield where a process listens, in its own network: psutil would look into ours."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if socket := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                inodes.add(socket[1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS and inode in inodes:
                address, port = local.split(":")
                words = (bytes.fromhex(address[i : i + 8]) for i in range(0, len(address), 8))
                raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
                yield str(ipaddress.ip_address(raw)), int(port, 16)


def open_to_others(processes: Iterable[psutil.Process]) -> set[tuple[str, int, str]]:
    """Return those of them that are not on this machine's loopback addresses."""
    return {door for door in doors(processes) if not on_loopback(door[0])}


def on_loopback(address: str) -> bool:
    """Tell whether nobody but this machine reaches an address; Java writes IPv4 ones as IPv6.

    >>> [on_loopback(one) for one in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.0.0.1")]
    [True, True, True, False, False, False]
    """
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback

"""Which ports processes listen on, and which of these can be reached from other machines."""

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# By table of the kernel, the state of a socket that takes what anybody sends: a TCP socket that listens, and a UDP one
# that talks to no single other end.
OPEN = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


def family(pid: int | None = None) -> Iterator[psutil.Process]:
    """Yield a process, this one by default, and all that descend from it."""
    process = psutil.Process(pid or os.getpid())
    yield process
    yield from process.children(recursive=True)


def doors(processes: Iterable[psutil.Process]) -> set[tuple[str, int, str]]:
    """Return (address, port, command) of each TCP or UDP socket on which one of these processes waits for calls.

    Of a process of somebody else the kernel tells nothing, and this would be an error.
    """
    found = set()
    # By network: to read one for each process would be most of the work of an Airflow that waits.
    tables: dict[str, dict[str, tuple[str, int]]] = {}
    for process in processes:
        # It may have ended meanwhile.
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError):
            entry = Path(f"/proc/{process.pid}")
            network = str((entry / "ns" / "net").readlink())
            if network not in tables:
                tables[network] = listening(entry / "net")
            for socket in sockets(entry / "fd") & tables[network].keys():
                found.add((*tables[network][socket], " ".join(process.cmdline())))
    return found


def sockets(descriptors: Path) -> set[str]:
    """Return the numbers of the sockets among the files that a process has open."""
    found = set()
    for link in descriptors.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if socket := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                found.add(socket[1])
    return found


def listening(network: Path) -> dict[str, tuple[str, int]]:
    """Return {number of a socket: (address, port)} of what listens in a network, which need not be ours."""
    found = {}
    for table, is_open in OPEN.items():
        for line in (network / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == is_open:
                address, port = local.split(":")
                words = (bytes.fromhex(address[i : i + 8]) for i in range(0, len(address), 8))
                raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
                found[inode] = str(ipaddress.ip_address(raw)), int(port, 16)
    return found


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

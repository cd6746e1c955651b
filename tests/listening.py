"""Which ports processes listen on, and which of these can be reached from other machines."""

import ipaddress
import os
from collections.abc import Iterable, Iterator

import psutil


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
        try:
            command = " ".join(process.cmdline())[:100]
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port, command))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
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

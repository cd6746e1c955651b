"""Let the server that TensorFlow opens for a training on several machines take calls of these machines only.

    with only_peers(["10.0.0.1:7001", "10.0.0.2:7001"], index=0):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()

TensorFlow listens on every interface, without a password, and whoever reaches it reads and writes files as this process
can. No setting changes that: `0.0.0.0:` is a constant of its library (seen in 2.21). But Linux lets a process put a
filter on its own socket (SO_ATTACH_FILTER, socket(7)), which drops packets before anybody answers them. So a thread
looks for the socket from before TensorFlow opens it, and within milliseconds gives it a filter that accepts packets of
the workers' machines alone. A stranger whose connection was quicker ends the training.

Some kernels ask for CAP_NET_ADMIN (seen: one of 6.18), and other systems have no such filter. A warning then says that
the port is open. Other users of these machines are never kept off. docs/production.md says what else has to guard it.
"""

import ctypes
import ipaddress
import logging
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("meander")

LOOK_SECONDS = 0.005
OPEN = (
    "TensorFlow's server on port %d is open to every machine that reaches this one, which may read and write files "
    "through it: the system lets this process put no filter on it (%s). Let a firewall or a NetworkPolicy admit the "
    "machines of the training alone, see docs/production.md"
)

# socket(7); Python has no name for it.
SO_ATTACH_FILTER = 26
# Instructions of a filter, from linux/bpf_common.h: load a byte or a word, and, jump, jump if equal, return.
LOAD_BYTE, LOAD_WORD, AND, JUMP, EQUAL, RETURN = 0x30, 0x20, 0x54, 0x05, 0x15, 0x06
IP_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets from here count from the beginning of the packet's IP header
ACCEPT, DROP = 0xFFFFFFFF, 0
LISTENS = "0A"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@contextmanager
def only_peers(addresses: Sequence[str], index: int) -> Iterator[None]:
    """While a server opens, watch for its socket, and close it to all but the machines of these addresses.

    Args:
        addresses: `host:port` of each worker.
        index: which of them is this process.

    Raises:
        RuntimeError: there is no such socket, or somebody else was connected before it was closed to others.
    """
    hosts = {address.rsplit(":", 1)[0] for address in addresses}
    allowed = {ipaddress.ip_address(info[4][0]) for host in hosts for info in socket.getaddrinfo(host, None)}
    # Debian lets the name of a machine stand for 127.0.1.1, and a call to that comes from 127.0.0.1.
    if ipaddress.ip_address("127.0.1.1") in allowed:
        allowed.add(ipaddress.ip_address("127.0.0.1"))
    port = int(addresses[index].rsplit(":", 1)[1])
    opened = threading.Event()
    guard = threading.Thread(target=_guard, args=(port, allowed, opened), daemon=True)
    guard.start()
    try:
        yield
    finally:
        opened.set()
        guard.join()
    try:
        if not _close_to_others(port, allowed):
            raise RuntimeError(f"TensorFlow does not listen on port {port} of this process, so it cannot be guarded")
    except OSError as error:
        log.warning(OPEN, port, error)
        return
    strangers = {str(peer) for state, peer, _ in _sockets(port) if state != LISTENS and peer not in allowed}
    if strangers:
        raise RuntimeError(f"{', '.join(sorted(strangers))} connected to the training, and is not one of its machines")


def _guard(port: int, allowed: set[Address], opened: threading.Event) -> None:
    with suppress(OSError):  # who waits for the server is told
        while not opened.wait(LOOK_SECONDS) and not _close_to_others(port, allowed):
            pass


def _close_to_others(port: int, allowed: set[Address]) -> bool:
    """Put a filter on each socket of this process that listens on a port, and tell whether there is one."""
    wanted = {f"socket:[{inode}]" for state, _, inode in _sockets(port) if state == LISTENS}
    attached = False
    for link in Path("/proc/self/fd").iterdir() if wanted else ():
        try:
            descriptor = os.dup(int(link.name)) if str(link.readlink()) in wanted else None
        except OSError:  # closed since the folder was listed
            continue
        if descriptor is not None:
            with socket.socket(fileno=descriptor) as server:
                _attach(server, allowed)
            attached = True
    return attached


def _attach(server: socket.socket, allowed: set[Address]) -> None:
    instructions = peer_filter(allowed)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    program = struct.pack("HP", len(instructions), ctypes.addressof(code))
    server.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def peer_filter(allowed: set[Address]) -> list[tuple[int, int, int, int]]:
    """Return a classic BPF program that accepts packets from these addresses: (code, jump if, jump if not, operand)."""
    four = [int(one) for one in sorted(allowed, key=int) if one.version == 4]
    six = [int(one) for one in sorted(allowed, key=int) if one.version == 6]
    v4 = [(LOAD_WORD, 0, 0, IP_HEADER + 12)]
    for number in four:
        v4 += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ACCEPT)]
    v4.append((RETURN, 0, 0, DROP))
    v6 = []
    for number in six:
        for word in range(4):
            v6.append((LOAD_WORD, 0, 0, IP_HEADER + 8 + 4 * word))
            # Where a word differs: on to what follows the `return` of this address.
            v6.append((EQUAL, 0, 7 - 2 * word, number >> (96 - 32 * word) & 0xFFFFFFFF))
        v6.append((RETURN, 0, 0, ACCEPT))
    v6.append((RETURN, 0, 0, DROP))
    version = [(LOAD_BYTE, 0, 0, IP_HEADER), (AND, 0, 0, 0xF0), (EQUAL, 1, 0, 0x40), (JUMP, 0, 0, len(v4))]
    return version + v4 + v6


def _sockets(port: int) -> Iterator[tuple[str, Address, str]]:
    """Yield state, address of the other end and inode of each TCP socket of a port of this machine: proc_pid_net(5)."""
    for table in ("tcp", "tcp6"):
        file = Path("/proc/self/net", table)
        if table == "tcp6" and not file.exists():
            continue  # a kernel without IPv6
        for line in file.read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port:
                yield fields[3], _address(fields[2].rsplit(":", 1)[0]), fields[9]


def _address(text: str) -> Address:
    """Return an address as the kernel writes it: words in the byte order of this machine.

    >>> _address("0100007F"), _address("0000000000000000FFFF00000100007F")
    (IPv4Address('127.0.0.1'), IPv4Address('127.0.0.1'))
    """
    raw = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    return getattr(address, "ipv4_mapped", None) or address

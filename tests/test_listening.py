"""What the tests call a door is one: they find what listens, on any interface, and nothing else."""

import socket
import subprocess
import sys

import pytest

from tests.listening import doors, family, open_to_others


@pytest.mark.parametrize(
    ("family_of", "address", "is_open"),
    [
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET6, "::1", False),
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET6, "::", True),
    ],
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_what_listens_is_found_in_a_child_too(family_of, address, is_open, kind):
    is_tcp = kind == socket.SOCK_STREAM
    # Of the other two, nothing comes in: a TCP socket that does not listen, and a UDP one that talks to one other end.
    code = (
        "import socket\n"
        f"s = socket.socket({int(family_of)}, {int(kind)}); s.bind(({address!r}, 0)); {is_tcp} and s.listen()\n"
        f"tcp = socket.socket({int(family_of)}); tcp.bind(({address!r}, 0))\n"
        f"udp = socket.socket({int(family_of)}, {int(socket.SOCK_DGRAM)}); udp.connect(({address!r}, 9))\n"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        port = int(child.stdout.readline())
        found = {(where, number) for where, number, command in doors(family()) if command.endswith("input()")}
        assert found == {(address, port)}
        assert ((address, port) in {door[:2] for door in open_to_others(family())}) == is_open
        child.communicate("\n")

"""A server that listens on all interfaces takes calls of the machines of its training only.

The server is a plain one; that of TensorFlow is tested in test_launch_hosts.py. Loopback addresses stand for machines:
Linux has all of 127.0.0.0/8.
"""

import ipaddress
import socket
import struct
import subprocess
import sys
from contextlib import suppress

import pytest

from model.training.peers import only_peers, peer_filter
from tests.waiting import until

PATIENCE = 1.0  # for an answer that never comes; one that comes takes microseconds


def server():
    """Return a server on all interfaces as gRPC opens one: IPv6, and IPv4 through it; and its port."""
    listens = socket.socket(socket.AF_INET6)
    listens.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listens.bind(("::", 0))
    return listens, listens.getsockname()[1]


def answers(port, caller, called="127.0.0.1"):
    """Tell whether the server answers a call from an address."""
    with socket.socket(socket.AF_INET6 if ":" in caller else socket.AF_INET) as client:
        client.settimeout(PATIENCE)
        client.bind((caller, 0))
        try:
            client.connect((called, port))
        except TimeoutError:
            return False
        return True


def test_machines_of_the_training_get_an_answer_and_others_none():
    listens, port = server()
    with listens:
        with only_peers([f"127.0.0.2:{port}", f"127.0.0.3:{port}"], 0):
            listens.listen()
        assert [answers(port, f"127.0.0.{n}") for n in (2, 3, 1, 4)] == [True, True, False, False]
        assert not answers(port, "::1", "::1")


def test_machines_may_be_named_by_ipv6():
    listens, port = server()
    with listens:
        with only_peers([f"::1:{port}"], 0):
            listens.listen()
        assert answers(port, "::1", "::1")
        assert not answers(port, "127.0.0.1")


def test_a_machine_whose_name_is_127_0_1_1_may_call_itself():
    listens, port = server()
    with listens:
        with only_peers([f"127.0.1.1:{port}", f"127.0.0.3:{port}"], 0):
            listens.listen()
        assert answers(port, "127.0.0.1", "127.0.1.1")
        assert not answers(port, "127.0.0.2", "127.0.1.1")


def test_the_door_closes_while_the_server_still_waits_for_the_others():
    listens, port = server()
    # Who calls before the guard has looked is a stranger, and is told of at the end.
    with listens, suppress(RuntimeError), only_peers([f"127.0.0.2:{port}"], 0):
        listens.listen()
        until("the guard to have seen the socket", lambda: not answers(port, "127.0.0.4"))
        assert answers(port, "127.0.0.2")


def test_a_stranger_who_was_quicker_ends_the_training():
    listens, port = server()
    with listens:
        listens.listen()
        refused = pytest.raises(RuntimeError, match=r"^127\.0\.0\.1 connected to the training, and is not one of its")
        with socket.create_connection(("127.0.0.1", port)), refused, only_peers([f"127.0.0.2:{port}"], 0):
            pass


def test_a_server_that_cannot_be_found_is_not_taken_for_one_that_is_guarded():
    refused = pytest.raises(RuntimeError, match="does not listen on port 1 of this process")
    with refused, only_peers(["127.0.0.2:1"], 0):
        pass


def run(program, source):
    """Run a filter on the IP header of a packet from an address, by what the kernel's filter.rst says of each code."""
    address = ipaddress.ip_address(source)
    four, six = b"\x45" + bytes(11) + address.packed, b"\x60" + bytes(7) + address.packed
    packet = (four if address.version == 4 else six) + bytes(32)
    at, value = 0, 0
    while True:
        code, jump, jump_else, operand = program[at]
        at += 1
        if code == 0x06:
            return bool(operand)
        if code == 0x30:
            value = packet[operand - 0xFFF00000]
        elif code == 0x20:
            (value,) = struct.unpack_from(">I", packet, operand - 0xFFF00000)
        elif code == 0x54:
            value &= operand
        elif code == 0x05:
            at += operand
        else:
            assert code == 0x15
            at += jump if value == operand else jump_else


def test_the_filter_of_many_machines_lets_each_through_and_none_of_their_neighbours():
    four = [f"10.1.{n}.7" for n in range(200)]  # more than one jump could skip
    six = [f"fd00::{n:x}:7" for n in range(1, 201)]
    program = peer_filter({ipaddress.ip_address(one) for one in four + six})
    assert all(run(program, source) for source in four + six)
    for source in ("10.1.0.8", "10.1.200.7", "0.0.0.0", "fd00::7", "fd00::c9:7", "fd01::1:7", "fd00::1:7:0", "::"):
        assert not run(program, source), source
    assert len(program) < 4096, "the kernel takes no longer one"


def test_where_the_kernel_refuses_a_warning_says_that_the_port_is_open():
    """Some kernels let nobody without rights put a filter on a socket; where the tests run as root, nobody tries."""
    code = (
        "import encodings.idna, os, socket\n"
        "from model.training.peers import only_peers\n"
        "os.geteuid() or os.setuid(65534)\n"
        "listens = socket.socket(); listens.bind(('', 0)); port = listens.getsockname()[1]\n"
        "with only_peers([f'127.0.0.2:{port}'], 0): listens.listen()\n"
        "client = socket.socket(); client.settimeout(1)\n"
        "print('open' if client.connect_ex(('127.0.0.1', port)) == 0 else 'closed', port)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    state, port = done.stdout.split()
    warning = f"TensorFlow's server on port {port} is open to every machine that reaches this one"
    assert (state == "open") == (warning in done.stderr), done.stdout + done.stderr

"""Ports for servers that are about to start."""

import socket
from itertools import islice
from random import SystemRandom

# Below what Linux (32768 up) and others (49152 up) give to outgoing connections: one of those could take a port
# between our look and the server's start.
CHOICE = range(20_000, 30_000)


def is_free(host: str, port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return different free ports of the loopback address, chosen at random so that parallel runs do not meet.

    Raises:
        OSError: there are not so many.
    """
    order = SystemRandom().sample(CHOICE, len(CHOICE))
    found = list(islice((port for port in order if is_free("127.0.0.1", port)), count))
    if len(found) < count:
        raise OSError(f"fewer than {count} ports are free between {CHOICE.start} and {CHOICE.stop - 1}")
    return found


def free_port() -> int:
    """Return one free port of the loopback address."""
    return free_ports(1)[0]

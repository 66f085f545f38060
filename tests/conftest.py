"""No test may use the network, and no script that a test starts; and a run without a disk."""
import socket

import pytest


class NoNetwork(socket.socket):
    def connect(self, *_):
        raise AssertionError("a test wants to use the network")
    connect_ex = connect


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket, "socket", NoNetwork)
    monkeypatch.setattr(socket, "getaddrinfo", NoNetwork.connect)
    for name in ("http_proxy", "https_proxy"):      # for processes: a proxy where nobody listens
        monkeypatch.setenv(name, "http://127.0.0.1:9")


class RunWithoutDisk:
    """What the loops ask of a runs.Run, if nothing is to be saved and nothing stops."""
    stopped = False

    def __init__(self):
        self.rows = {}          # table -> rows
        self.parts = None       # of the last loop: model, optimizer, ...

    def loop(self, name, n_steps, *parts, leave=True):
        self.parts = parts
        yield from range(n_steps)

    def record(self, table, rows):
        self.rows.setdefault(table, []).extend(rows)


@pytest.fixture
def run():
    return RunWithoutDisk()

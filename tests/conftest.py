"""No test may use the network, and no script that a test starts."""
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

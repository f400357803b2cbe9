"""Where a playlist is: asked of servers that may be hostile."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from relayd.media.place import PLACE_LIMIT, find_place
from tests.support.static_server import StaticServer


@pytest.fixture
def endless() -> Iterator[str]:
    """Redirects with a body without an end."""
    yield from serve(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", b"x" * 65536, 0.0)


@pytest.fixture
def dripping() -> Iterator[str]:
    """Sends a letter of a header now and then."""
    yield from serve(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.2)


def serve(head: bytes, piece: bytes, wait: float) -> Iterator[str]:
    stop = threading.Event()

    def answer(link: socket.socket) -> None:
        with link:
            link.recv(4096)
            try:
                link.sendall(head)
                while not stop.wait(wait):
                    link.sendall(piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            answers.append(threading.Thread(target=answer, args=(link,)))
            answers[-1].start()

    answers: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/list.m3u8"
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in answers:
        each.join()


def test_the_body_of_a_redirection_is_not_read(endless: str) -> None:
    assert find_place(endless, {}).url.endswith("/elsewhere")


def test_headers_that_come_letter_by_letter_are_given_up(dripping: str) -> None:
    began = time.monotonic()
    assert find_place(dripping, {}).url == dripping
    assert time.monotonic() - began < 5 * PLACE_LIMIT


def test_redirections_are_followed_but_not_to_other_protocols_nor_for_ever() -> None:
    with StaticServer() as site:
        site.files = {
            "/one": f"302 {site.url('/folder/two')}",
            "/folder/two": "302 three",
            "/folder/three": "here",
            "/file": "302 file:///etc/passwd",
            "/ftp": "302 ftp://127.0.0.1:1/it",
            "/circle": "302 /back",
            "/back": "302 /circle",
        }
        assert find_place(site.url("/one"), {}).url == site.url("/folder/three")
        assert find_place(site.url("/one", login="me:word@"), {}).url == site.url(
            "/folder/three", login="me:word@"
        )
        for path in ("/file", "/ftp"):
            assert find_place(site.url(path), {}).url == site.url(path)
        site.asked.clear()
        find_place(site.url("/circle"), {})
        assert len(site.asked) < 10


def test_a_proxy_of_the_options_is_asked_and_not_the_server() -> None:
    with StaticServer({"http://nowhere.invalid/it": "302 http://nowhere.invalid/there"}) as proxy:
        options = {"http_proxy": proxy.url("")}
        assert (
            find_place("http://nowhere.invalid/it", options).url == "http://nowhere.invalid/there"
        )
    assert [path for path, _ in proxy.asked] == [
        "http://nowhere.invalid/it",
        "http://nowhere.invalid/there",
    ]

"""Every part of uvicorn that our two servers override or look into.

pyproject.toml allows no version above the newest one these passed on.
"""

import inspect
import socket

import pytest
import uvicorn
from uvicorn.server import ServerState


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application without an answer."""


@pytest.fixture
def server() -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(nothing, log_config=None))


def test_the_overridden_methods_are_called_by_serve(server: uvicorn.Server) -> None:
    source = inspect.getsource(uvicorn.Server)
    for call in ("self.capture_signals()", "self.main_loop()", "self.startup(sockets"):
        assert call in source
    assert inspect.iscoroutinefunction(server.main_loop)
    assert inspect.iscoroutinefunction(server.startup)
    assert list(inspect.signature(server.startup).parameters) == ["sockets"]


async def test_a_tick_says_whether_to_end(server: uvicorn.Server) -> None:
    assert not await server.on_tick(1)
    server.should_exit = True
    assert await server.on_tick(1)


def test_connections_and_tasks_are_found_where_they_are_aborted(server: uvicorn.Server) -> None:
    assert isinstance(server.server_state, ServerState)
    assert server.server_state.connections == set()
    assert server.server_state.tasks == set()


async def test_serving_takes_sockets_that_are_bound_already(server: uvicorn.Server) -> None:
    assert "sockets" in inspect.signature(server.serve).parameters
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server.should_exit = True
        await server.serve(sockets=[bound])

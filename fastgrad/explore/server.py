"""The server of the page: bokeh's, on this machine alone unless told otherwise."""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING

import psutil

from fastgrad.report.figures import require

if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL, ALL = "127.0.0.1", "0.0.0.0"
KEPT_MS = 2000  # of a page that was closed, which has some 6 MB; its address brings it back


def serve(address: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve pages until Ctrl-C.

    Parameters
    ----------
    address : str
        Of the interface; 0.0.0.0 for all.
    port : int
        0 for a free one.
    ready : callable
        Called with the page's address once it is served.

    Raises
    ------
    ModuleNotFoundError
        Without bokeh, with the command that installs it.
    OSError
        If the port is taken, or the address is none of this machine.
    """
    require("bokeh", "explore", "explore:")
    from bokeh.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import Server

    from fastgrad.explore.page import Page

    def open_page(document: object) -> None:
        Page(document)

    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)  # it warns of every page closed while it draws
    try:
        port = _bindable(address, port)
        server = Server(
            {"/": Application(FunctionHandler(open_page))},
            address=address,
            port=port,
            allow_websocket_origin=[f"{host}:{port}" for host in _hosts(address)],
            unused_session_lifetime_milliseconds=KEPT_MS,
            check_unused_sessions_milliseconds=KEPT_MS,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port: {port} is taken, expected a free one, or 0") from None
        raise OSError(f"address: {address} can't be served ({error.strerror or error})") from None
    server.start()
    host = LOCAL if address == ALL else address
    try:
        ready(f"http://{host}:{server.port}/")
        server.io_loop.start()
    except KeyboardInterrupt:
        pass  # that is how it ends
    finally:
        server.stop()


def _bindable(address: str, port: int) -> int:
    """Return the port, or a free one for 0: bokeh takes the origins of pages before it binds one of its own choice."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        tried.bind((address, port))
        return int(tried.getsockname()[1])


def _hosts(address: str) -> set[str]:
    """Names by which a browser may ask: pages of other origins are refused."""
    if address != ALL:
        return {address, "localhost"}
    found = {of.address for several in psutil.net_if_addrs().values() for of in several if of.family == socket.AF_INET}
    return {"localhost", socket.gethostname(), *found}

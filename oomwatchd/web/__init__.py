"""HTTP: metrics, health and pages.

>>> server = HttpServer(open_listeners("127.0.0.1", 10053), App(registry, health))
>>> server.start()
"""

from oomwatchd.web.access import Access
from oomwatchd.web.app import App, Health
from oomwatchd.web.lanes import Later
from oomwatchd.web.listening import adopt_listeners, open_listeners, open_unix_listener
from oomwatchd.web.messages import Request, Response
from oomwatchd.web.server import HttpServer

__all__ = [
    "Access",
    "App",
    "Health",
    "HttpServer",
    "Later",
    "Request",
    "Response",
    "adopt_listeners",
    "open_listeners",
    "open_unix_listener",
]

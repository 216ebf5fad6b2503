"""REST and the page's own routes, asked without a server.

What they rest on is imported when it is asked for, since every process of tests reads this file.
"""

import pytest


def client_of(service, limits=None):
    """A client of all that a server over `service` answers, at home unless told otherwise."""
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.testclient import TestClient

    from backend import rest
    from backend.limits import AT_HOME
    from ui import routes
    from ui.guard import Guard

    limits = AT_HOME if limits is None else limits
    about = rest.serving(service, limits)
    about["routes"] = [*routes.page_routes(service, limits), *about["routes"]]
    return TestClient(FastAPI(**about, middleware=[Middleware(Guard)]))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A home full of results, one of them hostile; no jobs run."""
    from backend.service import Service
    from tests.page_results import PAYLOADS, fill

    home = fill(tmp_path_factory.mktemp("home"), PAYLOADS[0])
    with Service(home, run_jobs=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(service):
    """Asks `service`."""
    with client_of(service) as opened:
        yield opened

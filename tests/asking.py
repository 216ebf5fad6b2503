"""REST and the page's own routes, asked without a server."""

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from backend import rest
from backend.limits import AT_HOME
from ui import routes
from ui.guard import Guard


def client_of(service, limits=AT_HOME):
    about = rest.serving(service, limits)
    about["routes"] = [*routes.page_routes(service, limits), *about["routes"]]
    return TestClient(FastAPI(**about, middleware=[Middleware(Guard)]))

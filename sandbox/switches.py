"""Faults of the parts that are not providers (Stripe, mail, Slack): the same book with one target."""

import random
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sandbox.faults import BadFaultError, Fault, FaultBook

NARROWING = {"types": "type", "paths": "path"}


class Switches(FaultBook):
    """The faults in force for one part; `params.types` and `params.paths` narrow what a fault concerns."""

    def __init__(self, rng: random.Random, target: str, kinds: Mapping[str, str]) -> None:
        super().__init__(rng)
        self._target = target
        self.targets = {target: ()}
        self.kinds = dict(kinds)

    def put(self, wanted: Mapping[str, Any]) -> Fault:
        """Put one fault in force, in place of an earlier one of its kind; raises BadFaultError with what is allowed."""
        return self.add({**wanted, "provider": self._target, "call": "*"})

    def strike(self, *kinds: str, **subject: str) -> Fault | None:
        """Return the fault that strikes this subject (its event type, its path), counted down; else None."""
        for fault in list(self._faults):
            if fault.kind in kinds and _concerns(fault, subject):
                return self.take(self._target, "*", fault.kind)
        return None


def _concerns(fault: Fault, subject: Mapping[str, str]) -> bool:
    for param, attribute in NARROWING.items():
        names = fault.names(param)
        if names and not any(subject.get(attribute, "").startswith(name) for name in names):
            return False
    return True


def fault_routes(path: str, switches: Switches) -> APIRouter:
    """The control routes of one part's faults: GET shows them, PUT puts one in force, DELETE ends them all."""
    router = APIRouter(prefix=path)

    @router.get("", response_model=None)
    async def shown() -> Response:
        return JSONResponse({"faults": switches.as_json(), "kinds": switches.kinds, "struck": switches.struck})

    @router.put("", response_model=None)
    async def put(request: Request) -> Response:
        try:
            switches.put(orjson.loads(await request.body()))
        except (BadFaultError, orjson.JSONDecodeError, TypeError) as error:
            return JSONResponse({"detail": str(error)}, 422)
        return await shown()

    @router.delete("", response_model=None)
    async def clear() -> Response:
        switches.clear()
        return await shown()

    return router

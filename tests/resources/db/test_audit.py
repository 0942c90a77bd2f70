"""A look by hand is one row of the audit, however long it was and however it ended."""

import pytest
from sqlalchemy import Engine

from esim.errors import InvalidInput, Refused
from resources.db.audit import Operator, actions, audited_look, looker
from tests.resources.db.shop import NOW


def told(engine: Engine) -> list[tuple[str, str, dict[str, object]]]:
    with engine.connect() as conn:
        return [(each.actor, each.reason, dict(each.details)) for each in actions(conn)]


def test_a_look_is_kept_with_its_first_sentences_and_how_many_more_there_were(engine: Engine) -> None:
    with audited_look(engine, looker("mia", " ", NOW), "ledger check", "ledger") as look:
        look.found += [f"sentence {n}" for n in range(103)]
    [(actor, reason, details)] = told(engine)
    assert (actor, reason) == ("operator:mia", "not said")
    assert details["found"] == [*(f"sentence {n}" for n in range(100)), "and 3 more"]
    assert details["changes"] == []


def test_a_look_that_breaks_off_says_so_and_keeps_its_error_for_whoever_looked(engine: Engine) -> None:
    def breaks_off() -> None:
        with audited_look(engine, looker("mia", "I wondered", NOW), "reconcile", "books") as look:
            look.changes.append("one thing mended")
            raise Refused("not now")

    with pytest.raises(Refused, match="not now"):
        breaks_off()
    assert told(engine) == [
        ("operator:mia", "I wondered", {"found": ["broke off: Refused"], "changes": ["one thing mended"]})
    ]


def test_nobodys_look_is_not_kept_and_somebody_must_have_a_name(engine: Engine) -> None:
    nobody: Operator | None = None
    with audited_look(engine, nobody, "reconcile", "books") as look:
        look.found.append("a clock looked")
    with pytest.raises(InvalidInput, match="say who acts"):
        looker(" ", "why", NOW)
    assert told(engine) == []

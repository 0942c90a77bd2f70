"""Pricing rules as versioned rows: a change ends one rule and adds the next; none is ever edited."""

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from esim.errors import InvalidInput, NotFound
from esim.pricing import BASIS_POINTS, PriceEnding, PricingRule, RuleScope
from resources.db.tables import pricing_rules

_MAX_MARKUP_BP = 100 * BASIS_POINTS
_MAX_FEE_BP = BASIS_POINTS // 2


def rules_in_force(conn: Connection) -> list[PricingRule]:
    """Return the rules in force now, oldest first."""
    t = pricing_rules
    query = select(t).where(t.c.valid_from <= func.now(), or_(t.c.valid_to.is_(None), t.c.valid_to > func.now()))
    return [_rule(row) for row in conn.execute(query.order_by(t.c.rule_id))]


def add_rule(conn: Connection, rule: PricingRule, *, note: str, by: str) -> PricingRule:
    """Put a rule in force, ending the one with the same scope and target; return it with its new id.

    Raises:
        InvalidInput: a figure or target that cannot be meant; `field` names it.
    """
    check_rule(rule)
    t = pricing_rules
    same = (t.c.scope == rule.scope.value, t.c.target == rule.target, t.c.valid_to.is_(None))
    conn.execute(update(t).where(*same).values(valid_to=func.now()))
    values = {name: getattr(rule, name) for name in PricingRule.__slots__ if name != "rule_id"}
    statement = insert(t).values(**{**values, "scope": rule.scope.value, "ending": rule.ending.value})
    return _rule(conn.execute(statement.values(note=note, created_by=by).returning(t)).one())


def end_rule(conn: Connection, rule_id: int) -> None:
    """Take a rule out of force; the global rule stays, because every package needs one.

    Raises:
        NotFound: no such rule is in force.
        InvalidInput: it is the last global rule.
    """
    rules = {rule.rule_id: rule for rule in rules_in_force(conn)}
    if rule_id not in rules:
        raise NotFound(f"no pricing rule {rule_id} is in force")
    globals_left = [r for r in rules.values() if r.scope is RuleScope.GLOBAL and r.rule_id != rule_id]
    if rules[rule_id].scope is RuleScope.GLOBAL and not globals_left:
        raise InvalidInput("the last global pricing rule cannot be ended; add another one instead", field="scope")
    conn.execute(update(pricing_rules).where(pricing_rules.c.rule_id == rule_id).values(valid_to=func.now()))


def check_rule(rule: PricingRule) -> None:
    """Refuse a rule whose figures cannot be meant.

    Raises:
        InvalidInput: `field` names the figure.
    """
    limits = {
        "markup_bp": _MAX_MARKUP_BP,
        "payment_fee_bp": _MAX_FEE_BP,
        "markup_micros": 1_000_000_000,
        "min_margin_micros": 1_000_000_000,
        "payment_fee_micros": 100_000_000,
    }
    for name, most in limits.items():
        if not 0 <= getattr(rule, name) <= most:
            raise InvalidInput(f"{name} of {getattr(rule, name)} is not 0 to {most}", field=name)
    if rule.scope is RuleScope.DATA_BAND:
        low, dash, high = rule.target.partition("-")
        if not dash or not all(part == "" or part.isdecimal() for part in (low, high)):
            raise InvalidInput(f"data band {rule.target!r} is not min-max in MB, such as 1000-5000", field="target")
    elif not rule.target or (rule.scope is RuleScope.GLOBAL) != (rule.target == "*"):
        raise InvalidInput(f"target {rule.target!r} does not fit scope {rule.scope}", field="target")


def _rule(row: Row[tuple[object, ...]]) -> PricingRule:
    values = {name: getattr(row, name) for name in PricingRule.__slots__}
    return PricingRule(**{**values, "scope": RuleScope(row.scope), "ending": PriceEnding(row.ending)})

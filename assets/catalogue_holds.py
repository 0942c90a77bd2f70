"""What a fresh catalogue must pass before it replaces the provider's last good one.

fresh + last good -> `judge` -> `Judgement`: either the whole catalogue is held (the last good one stays on sale), or it
is taken, and single offers whose cost jumped are quarantined with their reason. It compares figures, never fetches.
"""

from dataclasses import dataclass

import polars as pl

from assets.offer_frames import JUDGED
from assets.price_expressions import usd_micros_of
from esim.pricing import Rates

MAX_SHRINKAGE_PERCENT = 20
MAX_MEDIAN_MOVE_PERCENT = 30
MAX_JUMP = 3  # times the last trusted cost
MAX_REJECTED_PERCENT = 50
MIN_PLANS_TO_JUDGE_REJECTS = 20
MIN_COMMON_PERCENT = 10  # below this share of known ids, packages are compared instead of ids
MAX_PEER_RATIO = 10  # a provider ten times dearer or cheaper than all others counts in other units
MIN_PEERS = 50
CHECKS = ("units", "shrinkage", "median_cost", "cost_jumps")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict: its name, whether it passed, and a sentence with the figures."""

    check: str
    passed: bool
    text: str
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judged catalogue: `held_reason` is empty when it may replace the last good one."""

    offers: pl.DataFrame
    findings: tuple[Finding, ...]
    moves: pl.DataFrame

    @property
    def held_reason(self) -> str:
        """Why the whole catalogue is held; empty when it is not."""
        return "; ".join(finding.text for finding in self.findings if finding.blocking and not finding.passed)

    @property
    def quarantined(self) -> int:
        """How many single offers are quarantined."""
        return self.offers.get_column("excluded_reason").count()


def judge(
    fresh: pl.DataFrame,
    rejected: int,
    last_good: pl.DataFrame | None,
    peers: pl.DataFrame,
    rates: Rates,
    *,
    accept: bool = False,
) -> Judgement:
    """Compare a fresh catalogue with the last good one (None at the first sync) and with what others ask.

    `peers` is the median landed cost per package at other providers (`package_id`, `peer` in micro-USD). `accept` is a
    person's word that the figures are right: nothing is held or quarantined, unless there is nothing to sell; plans
    that cannot be sold still stay out.
    """
    if fresh.is_empty():
        findings = unread(f"none of {rejected} plans can be sold")
        return Judgement(_with_quarantine(fresh, _moves(fresh, None, rates)), findings, pl.DataFrame())
    trusted = None if last_good is None or last_good.is_empty() else last_good
    moves = _moves(fresh, trusted, rates)
    jumps = _jumps(moves).clear() if accept else _jumps(moves)
    if accept:
        judged = [Finding(check, True, "accepted by a person") for check in ("units", "shrinkage", "median_cost")]
    elif trusted is None:
        first = "the first catalogue: nothing to compare with"
        judged = [_units(fresh, rejected, peers, rates)]
        judged += [Finding("shrinkage", True, first), Finding("median_cost", True, first)]
    else:
        judged = [_units(fresh, rejected, peers, rates), _shrinkage(fresh, trusted)]
        judged.append(_median(fresh, trusted, moves, rates))
    judged.append(Finding("cost_jumps", jumps.is_empty(), f"{jumps.height} offers quarantined", blocking=False))
    return Judgement(_with_quarantine(fresh, jumps), tuple(judged), moves)


def unchanged(fresh: pl.DataFrame) -> Judgement:
    """Return the judgement on a catalogue that is the last good one over again, with nothing quarantined."""
    text = f"{fresh.height} plans, all as in the last good catalogue"
    nothing = {name: pl.lit(None, dtype=kind) for name, kind in JUDGED.items() if name not in fresh.columns}
    findings = tuple(Finding(check, True, text) for check in CHECKS)
    return Judgement(fresh.with_columns(**nothing).select(list(JUDGED)), findings, pl.DataFrame())


def unread(failure: str) -> tuple[Finding, ...]:
    """Return the findings where there is no catalogue to judge."""
    others = (Finding(check, False, "not judged: there is no catalogue", blocking=False) for check in CHECKS[1:])
    return (Finding("units", False, failure), *others)


def _units(fresh: pl.DataFrame, rejected: int, peers: pl.DataFrame, rates: Rates) -> Finding:
    plans = fresh.height + rejected
    if plans >= MIN_PLANS_TO_JUDGE_REJECTS and rejected * 100 > plans * MAX_REJECTED_PERCENT:
        return Finding("units", False, f"{rejected} of {plans} plans are rejected; its units may have changed")
    shared = (
        _in_usd(fresh.select("package_id", "cost_micros", "cost_currency"), rates)
        .join(peers, on="package_id")
        .drop_nulls(("peer", "usd"))
    )
    if shared.height >= MIN_PEERS:
        ratio = shared.select((pl.col("usd") * 100 // pl.col("peer")).median()).item()
        if ratio * MAX_PEER_RATIO < 100 or ratio > 100 * MAX_PEER_RATIO:
            text = f"its costs are {ratio / 100:.2f} times those of other providers for the same packages"
            return Finding("units", False, f"{text}; its units may have changed")
    return Finding("units", True, f"{fresh.height} of {plans} plans have sane sizes, terms and costs")


def _shrinkage(fresh: pl.DataFrame, trusted: pl.DataFrame) -> Finding:
    text = f"{fresh.height} plans after {trusted.height}"
    passed = fresh.height * 100 >= trusted.height * (100 - MAX_SHRINKAGE_PERCENT)
    return Finding("shrinkage", passed, text if passed else f"the catalogue shrank by over 20 %: {text}")


def _median(fresh: pl.DataFrame, trusted: pl.DataFrame, moves: pl.DataFrame, rates: Rates) -> Finding:
    if moves.height * 100 < trusted.height * MIN_COMMON_PERCENT:
        moves = _package_moves(fresh, trusted, rates)
    if moves.is_empty():
        return Finding("median_cost", True, "no plan or package is in both catalogues")
    percent = moves.select((pl.col("usd") * 100 / pl.col("trusted_usd")).median()).item() - 100
    text = f"the median cost moved by {percent:+.1f} % over {moves.height} plans"
    return Finding("median_cost", abs(percent) <= MAX_MEDIAN_MOVE_PERCENT, text)


def _jumps(moves: pl.DataFrame) -> pl.DataFrame:
    """Return the moves to quarantine: rises over threefold; falls to under a third that stand alone.

    Real providers do cut a whole destination to a sixth from one month to the next. Such a cut shows in the
    destination's other plans too; a row that slipped in a price sheet shows in its own series only.
    """
    rose = pl.col("usd") > MAX_JUMP * pl.col("trusted_usd")
    fell = pl.col("usd") * MAX_JUMP < pl.col("trusted_usd")
    cut = pl.col("usd") * 10 <= pl.col("trusted_usd") * 7
    others = pl.len().over("coverage_key") - 1
    others_cut = cut.sum().over("coverage_key") - 1
    alone = (others == 0) | (others_cut * 3 < others)
    return moves.filter(rose | (fell & alone))


def _moves(fresh: pl.DataFrame, trusted: pl.DataFrame | None, rates: Rates) -> pl.DataFrame:
    """Return what every offer of both catalogues costs now and cost when it was last trusted, in micro-USD."""
    now = _in_usd(fresh.select("offer_id", "coverage_key", "cost_micros", "cost_currency"), rates)
    if trusted is None:
        return now.clear().with_columns(trusted_micros=pl.lit(0), trusted_currency=pl.lit(""), trusted_usd=pl.lit(0))
    then = trusted.select(
        "offer_id",
        pl.coalesce("trusted_cost_micros", "cost_micros").alias("cost_micros"),
        pl.coalesce("trusted_cost_currency", "cost_currency").alias("cost_currency"),
    )
    before = _in_usd(then, rates).rename(
        {"usd": "trusted_usd", "cost_micros": "trusted_micros", "cost_currency": "trusted_currency"}
    )
    return now.join(before, on="offer_id").drop_nulls(("usd", "trusted_usd")).filter(pl.col("trusted_usd") > 0)


def _package_moves(fresh: pl.DataFrame, trusted: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    def cheapest(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        costs = _in_usd(frame.select("package_id", "cost_micros", "cost_currency"), rates)
        return costs.drop_nulls("usd").group_by("package_id").agg(pl.col("usd").min().alias(name))

    both = cheapest(fresh, "usd").join(cheapest(trusted, "trusted_usd"), on="package_id")
    return both.filter(pl.col("trusted_usd") > 0)


def _with_quarantine(fresh: pl.DataFrame, jumps: pl.DataFrame) -> pl.DataFrame:
    def dollars(column: str) -> pl.Expr:
        cents = pl.col(column) // 10_000
        return pl.concat_str(cents // 100, pl.lit("."), (cents % 100).cast(pl.String).str.zfill(2))

    reason = pl.concat_str(pl.lit("cost jumped from USD "), dollars("trusted_usd"), pl.lit(" to USD "), dollars("usd"))
    quarantine = jumps.select(
        "offer_id",
        excluded_reason=reason,
        trusted_cost_micros=pl.col("trusted_micros").cast(pl.Int64),
        trusted_cost_currency=pl.col("trusted_currency"),
    )
    joined = fresh.join(quarantine, on="offer_id", how="left", maintain_order="left")
    return joined.select(list(JUDGED)).cast(JUDGED)  # type: ignore[arg-type]  # polars' stubs want selectors


def _in_usd(frame: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    known = {currency: rates.micros_of(currency) for currency in ("USD", *rates.usd_micros)}
    rate = pl.col("cost_currency").replace_strict(known, default=None, return_dtype=pl.Int64)
    return frame.with_columns(usd=usd_micros_of(pl.col("cost_micros"), rate))

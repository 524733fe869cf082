"""`seatrial compare accept`: a slowdown that doesn't fail for a while, with the reason for it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import click

from . import ui


@click.command("accept")
@click.argument("name")
@click.option("--up-to", type=ui.Percent(), required=True, help="The slowdown that is accepted, such as 8%.")
@click.option("--reason", required=True, help="Why; it stands in the file and in every report.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The last day of it.")
@click.option("--days", type=click.IntRange(1), help="So many days from today, instead. [30]")
@click.option("--base", default="", metavar="ID", help="Only against the base with this artifact; a report names it.")
def command(name: str, up_to: float, reason: str, until: datetime | None, days: int | None, base: str) -> None:
    """Accept a slowdown of the benchmark NAME until it expires.

    Writes an entry into seatrial.accept.toml, which you commit: who reviews the change reviews it too. A slowdown that
    is proven to be larger still fails, and so does every one after the last day.

    \b
    seatrial compare accept lite0 --up-to 8% --reason "attention block, decided on Monday" --days 14
    """
    from ..core.errors import UsageError
    from ..devices.accept import FILE, Acceptance, append, today
    from .gate_cases import entries

    if until and days:
        raise UsageError("--until and --days", "both are given", "give one")
    last: date = until.date() if until else today() + timedelta(days=days or 30)
    if last < today():
        raise UsageError(f"--until {last}", "that day is over", "give a later one")
    if not up_to:
        raise UsageError("--up-to 0%", "that accepts nothing", "give the slowdown of the report, such as 8%")
    known = [each for entry in entries() for each in entry.names]
    if known and name not in known:
        raise UsageError(f"the benchmark {name}", "seatrial.toml has none of that name", f"known: {', '.join(known)}")
    if not reason.strip():
        raise UsageError("--reason", "it is empty", "say why this is accepted")
    append(Path(FILE), Acceptance(name, 1 + up_to, last, reason, today(), base))
    click.echo(f"{name}: up to {up_to:.1%} slower is accepted until {last}. Commit {FILE}.")

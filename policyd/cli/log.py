"""`policyd log ...`: the auditor's commands, each in a module of its own.

Law: reads the owner's own files; neither a server nor a lock is needed.
"""

from __future__ import annotations

from policyd.cli.lazy import group
from policyd.cli.log_export import export
from policyd.cli.log_query import query, stats
from policyd.cli.log_show import show
from policyd.cli.log_sql import sql
from policyd.cli.log_tail import tail
from policyd.cli.log_verify import verify

app = group("Read the journal of decisions: who asked for what, what was decided, and why.")

app.command("query")(query)
app.command("show")(show)
app.command("stats")(stats)
app.command("sql")(sql)
app.command("export")(export)
app.command("verify")(verify)
app.command("tail")(tail)

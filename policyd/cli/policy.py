"""`policyd policy ...`: the policy author's commands, each in a module of its own."""

from __future__ import annotations

from policyd.cli.lazy import group
from policyd.cli.policy_cases import run
from policyd.cli.policy_check import check
from policyd.cli.policy_compile import compile_
from policyd.cli.policy_diff import diff
from policyd.cli.policy_explain import explain
from policyd.cli.policy_fmt import fmt
from policyd.cli.policy_import import app as importing
from policyd.cli.policy_reach import what_can, who_can
from policyd.cli.policy_replay import replay
from policyd.cli.policy_revisions import revisions
from policyd.cli.policy_shadow import shadow_report
from policyd.cli.policy_suggest import suggest

app = group("Work on policies: check, format, test, explain, compare and import them.")

app.command("check")(check)
app.command("fmt")(fmt)
app.command("test")(run)
app.command("explain")(explain)
app.command("who-can")(who_can)
app.command("what-can")(what_can)
app.command("diff")(diff)
app.command("replay")(replay)
app.command("suggest")(suggest)
app.command("shadow-report")(shadow_report)
app.command("revisions")(revisions)
app.command("compile")(compile_)
app.add_typer(importing, name="import")

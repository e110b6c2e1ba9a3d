"""Cedar text as an author would have written it: a comment that says where it comes from, an id, a policy.

Law: one policy a rule and service, so that the id in a decision leads back to Istio's `rule[i]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from policyd.cedar.policies import MAX_ID_CHARACTERS
from policyd.policy.istio.expression import quoted
from policyd.policy.istio.rule import Matching


def policy_text(comment: str, id_: str, effect: str, matching: Matching, resource: str) -> str:
    """Return the text of one policy, its comment above it."""
    scope = f"{effect} (\n  {matching.principal},\n  {matching.action},\n  {resource}\n)"
    clauses = "".join(f"\n{clause.word} {{ {clause.test.text} }}" for clause in matching.clauses)
    return f"// {comment}\n@id({quoted(policy_id(id_))})\n{scope}{clauses};\n"


def policy_id(wanted: str) -> str:
    """Return the id; one that is too long keeps its beginning and gets a hash, so that it stays unique."""
    if len(wanted) <= MAX_ID_CHARACTERS:
        return wanted
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    return f"{wanted[: MAX_ID_CHARACTERS - len(digest) - 1]}~{digest}"


def file_text(title: str, remarks: Sequence[str], policies: Sequence[str]) -> str:
    """Return a file: its title, a line for each remark, and the policies."""
    head = "".join(f"// {line}\n" for line in (title, *remarks))
    return "\n".join([head, *policies])

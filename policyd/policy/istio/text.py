"""Cedar text as an author would have written it: a comment that says where it comes from, an id, a policy.

Law: one policy a rule and service, so that the id in a decision leads back to Istio's `rule[i]`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from policyd.cedar.policies import MAX_ID_CHARACTERS
from policyd.policy.istio.expression import quoted
from policyd.policy.istio.rule import Matching

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def policy_text(comment: str, id_: str, effect: str, matching: Matching, resource: str) -> str:
    """Return the text of one policy, its comment above it."""
    scope = f"{effect} (\n  {matching.principal},\n  {matching.action},\n  {resource}\n)"
    clauses = "".join(f"\n{clause.word} {{ {clause.test.text} }}" for clause in matching.clauses)
    return f"{_comment(comment)}@id({quoted(policy_id(id_))})\n{scope}{clauses};\n"


def policy_id(wanted: str) -> str:
    """Return the id; one that is too long keeps its beginning and gets a hash, so that it stays unique."""
    if len(wanted) <= MAX_ID_CHARACTERS:
        return wanted
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    return f"{wanted[: MAX_ID_CHARACTERS - len(digest) - 1]}~{digest}"


def file_text(title: str, remarks: Sequence[str], policies: Sequence[str]) -> str:
    """Return a file: its title, a line for each remark, and the policies."""
    head = "".join(map(_comment, (title, *remarks)))
    return "\n".join([head, *policies])


def _comment(line: str) -> str:
    """One line of comment, whatever a file's name has in it: what ends a comment would begin a policy."""
    return f"// {_UNSEEN.sub('?', line)}\n"

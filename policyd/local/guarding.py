"""Who may call applications without a sidecar: policies as gRPC's RBAC filters (gRFC A41), where that is exact.

Law: such an application decides by itself or is refused as proxyless: policyd is never asked there. What is compiled is
what policyd would decide; what gRPC does not look at as policyd is shown it, is not compiled.

Of gRPC's rules only principals are used, in which everything can be asked. Two filters stand in front of the
application: what is refused, and, of the rest, what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from policyd.authz.ruling import Ruling
from policyd.errors import Problem
from policyd.local import expressions
from policyd.local.compile import Compiled, Compiler, Left, Rule
from policyd.local.envoy import FAILED, INCOMPLETE, incomplete
from policyd.local.logic import (
    CALLER,
    HOST,
    METHOD,
    NO,
    PATH,
    SOURCE,
    SOURCE_PORT,
    Affix,
    Atom,
    Constant,
    Every,
    Field,
    Formula,
    Has,
    Not,
    OfUser,
    OneOf,
    Pattern,
    Present,
    Test,
    Within,
    atoms_of,
    every,
    negated,
    some,
)
from policyd.mesh.declaration import Declaration
from policyd.mesh.model import Instance, inbound_listener
from policyd.mesh.proxyless import CODE, declared_at
from policyd.xds.resources.model import Guard
from policyd.xds.resources.proxyless.served import RBAC

# a method as it is in the path of a call; nothing else is one, and of nothing else has its path a second spelling
METHOD_PATH: Final = re.compile("/[A-Za-z0-9_][A-Za-z0-9_.-]{0,511}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")
NO_CALL: Final = " no call"  # as other names of ours: no policy's id begins with a space
# the value of a header as gRPC's specification has it; what is no such text is no call where a pattern looks at it,
# since the engines that gRPC has (RE2, and those of Go and Java) agree about texts alone
TEXT: Final = r"[\x20-\x7e]*"
_OF_CALLS: Final = (CALLER, SOURCE, PATH, HOST, METHOD)  # what is no header
# gRPC has these in another form than they came in, or not at all
_OTHERWISE: Final = frozenset({"te", "content-type", "connection", "keep-alive", "proxy-connection", "upgrade"})
_RESERVED: Final = ("grpc-", "x-envoy-", "x-forwarded-")  # rejected by gRPC, or made by sidecars
_OF_SIDECARS: Final = frozenset({"x-request-id", "forwarded"})
CHANGE: Final = "change the policy, or give the workload a sidecar"


@dataclass(frozen=True, slots=True)
class Guarded:
    """Who may call, by listener; `refused` are the workloads that cannot be proxyless, each with why."""

    guards: Mapping[str, Guard] = field(default_factory=dict)
    refused: tuple[tuple[str, Left | str], ...] = ()
    compiled: Mapping[str, Compiled] = field(default_factory=dict, repr=False, compare=False)
    compiler: Compiler | None = field(default=None, repr=False, compare=False)


def guarded(ruling: Ruling, before: Guarded | None = None) -> Guarded:
    """What a ruling comes to at applications without a sidecar; what was made `before` is taken over."""
    applications = [one for _, one in sorted(ruling.mesh.instances.items()) if one.proxyless]
    if not applications:
        return Guarded()
    before = before or Guarded()
    compiler = Compiler(_alone(ruling), before.compiler)
    guards: dict[str, Guard] = {}
    known: dict[str, Compiled] = {}
    refused: list[tuple[str, Left | str]] = []
    for application in applications:
        for name in _listeners(application):
            found = exact(compiler.compile(ruling.mesh.listeners[name]), ruling)
            refused += [(application.name, why) for why in found.obstacles]
            refused += [(application.name, why) for why in found.left]
            known[name] = found
            if found.is_exact:
                same = name in before.guards and found.content == before.compiled[name].content
                guards[name] = before.guards[name] if same else guard(found)
    return Guarded(guards, tuple(dict.fromkeys(refused)), known, compiler)


def problems(found: Guarded, declaration: Declaration) -> Iterator[Problem]:
    """Why workloads cannot be proxyless: at the policy that prevents it, or where they are declared."""
    for name, why in found.refused:
        if isinstance(why, Left):
            part = f" (`{why.text}`)" if why.text else ""
            message = f"`{name}` cannot be proxyless: gRPC does not decide by {why.why}{part}"
            yield Problem(CODE, message, why.file, why.line, remedy=CHANGE)
        else:
            message = f"`{name}` cannot be proxyless: {why}"
            yield declared_at(declaration, name, message, "change that, or give it a sidecar")


def _alone(ruling: Ruling) -> Ruling:
    """The policies in force without those that are tried, and without other trust domains, by which nobody comes.

    The agent gives an application the roots of its own trust domain alone.
    """
    mesh = ruling.mesh
    return replace(ruling, shadow=None, mesh=replace(mesh, federated=frozenset()) if mesh.federated else mesh)


def _listeners(application: Instance) -> Iterator[str]:
    yield from (inbound_listener(application, port) for port in application.ports)


# ---- what gRPC does not look at as policyd does


def exact(compiled: Compiled, ruling: Ruling) -> Compiled:
    """The same, with the policies left out that gRPC could not decide by."""
    policies = {one.id: one for one in ruling.policy_set.policies}
    left = list(compiled.left)
    for rule in (*compiled.forbids, *compiled.failing, *compiled.permits):
        why = next((said for atom in atoms_of(rule.when) if (said := _otherwise(atom.field))), "")
        if why and not any(one.policy == rule.policy for one in left):
            policy = policies[rule.policy]
            left.append(Left(policy.id, policy.effect, why, "", policy.file, policy.line))
    obstacles = compiled.obstacles
    if compiled.issuers and not obstacles:
        obstacles = ("tokens are taken there, and gRPC verifies none",)
    if ruling.mesh.looks_at_serials:
        obstacles = (*obstacles, "gRPC looks at no list of revoked certificates (`ca.revoke_serials`)")
    return replace(compiled, left=tuple(left), obstacles=obstacles)


def _otherwise(name: Field) -> str:
    if isinstance(name, OfUser):
        return "end users, whose tokens it does not verify"
    if name == SOURCE_PORT:
        return "the port that a call comes from"
    if name in _OF_CALLS:
        return ""
    odd = name in _OTHERWISE | _OF_SIDECARS or name.startswith(_RESERVED) or name.endswith("-bin")
    return f"the header `{name}`, which it has otherwise than a sidecar" if odd else ""


# ---- gRPC's words (config.rbac.v3.RBAC)


def guard(compiled: Compiled) -> Guard:
    """The filters of a listener; of one that is compiled whole only."""
    if not compiled.is_exact:
        raise ValueError(f"`{compiled.listener}` is not decided by its application")
    denied = [
        (INCOMPLETE, incomplete(compiled)),
        (NO_CALL, _no_call(compiled)),
        *_named(compiled.forbids),
        (FAILED, some(*(rule.when for rule in compiled.failing))),
    ]
    return Guard((_filter("denied", "DENY", denied), _filter("allowed", "ALLOW", _named(compiled.permits))))


def _no_call(compiled: Compiled) -> Formula:
    """What is no call of gRPC: a path that names no method, or no text where a pattern looks at a header."""
    rules = (*compiled.forbids, *compiled.failing, *compiled.permits)
    seen = {atom.field for rule in rules for atom in atoms_of(rule.when) if isinstance(atom.test, Pattern)}
    headers = sorted(one for one in seen if isinstance(one, str) and one not in _OF_CALLS)
    method = Atom(PATH, Pattern(METHOD_PATH.pattern), "the path of a method")
    return some(negated(method), *(_no_text(name) for name in headers))


def _no_text(name: str) -> Formula:
    text = Atom(name, Pattern(TEXT), "a text")
    return every(Atom(name, Present(), "is there"), negated(text))


def _named(rules: Sequence[Rule]) -> Iterator[tuple[str, Formula]]:
    yield from ((rule.policy, rule.when) for rule in rules)


def _filter(name: str, action: str, rules: Iterable[tuple[str, Formula]]) -> dict[str, Any]:
    policies = {id_: _policy(when) for id_, when in rules if when != NO}
    config = {"action": action, **({"policies": policies} if policies else {})}
    return {"name": name, "typed_config": {"@type": RBAC, "rules": config}}


def _policy(when: Formula) -> dict[str, Any]:
    return {"permissions": [{"any": True}], "principals": [_principal(when)]}


def _principal(formula: Formula) -> dict[str, Any]:
    match formula:
        case Atom(name, test, _):
            return _test(name, test)
        case Not(part, _):
            return {"not_id": _principal(part)}
        case Every(parts, _):
            return {"and_ids": {"ids": [_principal(one) for one in parts]}}
        case Constant(value):
            return {"any": True} if value else {"not_id": {"any": True}}
        case _:
            return {"or_ids": {"ids": [_principal(one) for one in formula.parts]}}


def _test(name: Field, test: Test) -> dict[str, Any]:
    match test:
        case Within(ranges):
            return _any(_source(one) for one in ranges)
        case OneOf(texts):
            return _any(_asked(name, {"exact": one}) for one in texts)
        case Affix(where, text):
            return _asked(name, {where: text})
        case Pattern(regex):
            return _asked(name, {"safe_regex": {"regex": regex.replace(expressions.ANY_BYTES, TEXT)}})
        case Present():
            # in Go a header without a value is not present, and equal to an empty text
            return {"or_ids": {"ids": [{"header": {"name": name, "present_match": True}}, _asked(name, {"exact": ""})]}}
        case Has():
            raise ValueError("gRPC knows no claims")


def _any(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = list(parts)
    return found[0] if len(found) == 1 else {"or_ids": {"ids": found}}


def _asked(name: Field, match: dict[str, Any]) -> dict[str, Any]:
    if name == CALLER:
        return {"authenticated": {"principal_name": match}}
    if name == PATH:
        return {"url_path": {"path": match}}
    return {"header": {"name": name, "string_match": match}}


def _source(text: str) -> dict[str, Any]:
    address, length = text.split("/")
    return {"direct_remote_ip": {"address_prefix": address, "prefix_len": int(length)}}

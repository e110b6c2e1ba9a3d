"""One tree of errors; each class has a stable `code` that logs and metrics carry.

Law: messages are lower case, without a full stop, with the user's input in backticks and the words of the
domain. A message says what is wrong, `file` and `line` say where, `remedy` says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with an input.

    `file` is a path as the user gave it ("" where there is none); `line` and `column` count from 1, 0 is unknown.
    """

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    remedy: str = ""

    def __str__(self) -> str:
        """`file:line: message; remedy`, in one line."""
        place = self.file
        if place and self.line:
            place += f":{self.line}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class PolicydError(Exception):
    """The root of every error that policyd raises on purpose.

    `remedy` is what the reader can do next; it is shown after the message.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """The message and, where there is one, the remedy."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class InvalidInput(PolicydError):
    """Declared input that is refused, with every problem found in it, at least one."""

    code = "invalid_input"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(PolicydError):
    """A command called in a way that makes no sense, whatever is declared and recorded."""

    code = "usage"


class NotFound(PolicydError):
    """What was named by a name or an id is not there, is several, or is of another kind than was asked for."""

    code = "not_found"


class SpiffeIdError(PolicydError):
    """A text that is no SPIFFE ID."""

    code = "spiffe_id"


class StateError(PolicydError):
    """The state folder is missing, broken, too open, in use or of a newer version."""

    code = "state"


class NotRunning(PolicydError):
    """No server answers for the folder."""

    code = "not_running"


class JournalError(PolicydError):
    """A record could not be kept; what it records must not take effect."""

    code = "journal"


class BrokenRecord(PolicydError):
    """A line of the journal that is no record, or does not follow the one before it."""

    code = "broken_record"


class QuestionError(PolicydError):
    """A question to the journal that is refused, fails, or takes more than it may."""

    code = "question"


class IncompleteRequest(PolicydError):
    """A check that lacks what a decision needs, or contradicts itself: an error, never a decision."""

    code = "incomplete_request"


class UnacceptablePath(PolicydError):
    """A path that has no canonical form; the caller gets 400."""

    code = "unacceptable_path"


class UnacceptableToken(PolicydError):
    """A verified token that proves no user, or more than one; the caller gets 401."""

    code = "unacceptable_token"


class DecisionError(PolicydError):
    """The engine could not decide; the caller gets 503."""

    code = "decision"


class NotCompilable(PolicydError):
    """An expression that a proxy cannot be proven to decide as policyd does."""

    code = "not_compilable"


class TooLate(PolicydError):
    """A check that came too late to be answered in the time that its caller gives; the caller gets 503."""

    code = "too_late"


class ShadowSkipped(PolicydError):
    """The shadow policies were not asked, so that the enforced decision is in time."""

    code = "shadow_skipped"


class IdentityError(PolicydError):
    """A certificate, a key or a request for one that is refused."""

    code = "identity"


class KeyFileError(IdentityError):
    """A key file that is missing, broken or readable by others."""

    code = "key_file"


class CsrError(IdentityError):
    """A certificate signing request that is refused."""

    code = "csr"


class TokenError(IdentityError):
    """A join token that is wrong, used or expired; the message does not say which to the caller."""

    code = "token"


class EntryError(IdentityError):
    """A registration entry that is unsound, or not to be had."""

    code = "entry"


class RevocationError(IdentityError):
    """A revocation that is unsound, or not there."""

    code = "revocation"


class FederationError(IdentityError):
    """Another trust domain's bundle that cannot be had, or is none of it."""

    code = "federation"


class RotationError(IdentityError):
    """A step of a rotation that would cut somebody off, or that does not follow on the last one."""

    code = "rotation"


class IssuanceDenied(IdentityError):
    """The issuance policies, or the registration, do not grant the identity."""

    code = "issuance_denied"


class StreamError(PolicydError):
    """What a proxy sends on an xDS stream that is refused; the stream ends."""

    code = "stream"


class EnvoyError(PolicydError):
    """Envoy is missing, of another version, or would not start."""

    code = "envoy"


class ChildError(PolicydError):
    """A program that was started for the user ended, or never became healthy."""

    code = "child"

"""One decision process: answers checks on a port of its own, under the ruling that the control process hands it.

Law: it holds no key of the authority and no token. It takes a ruling over beside deciding, and answers under the old
one until the new one is whole. It ends with the control process, after what it has begun.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final, NoReturn

import grpc
import structlog

from policyd.audit.journal import Journal
from policyd.audit.record import Entry
from policyd.authz import service as authz
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, add_to_server
from policyd.ca.server_certificate import ServerCertificate
from policyd.config.audit import IncludeSettings
from policyd.errors import JournalError, PolicydError
from policyd.server import link
from policyd.server.check_threads import CheckThreads
from policyd.server.decision_log import DecisionLog
from policyd.server.handover import Takeover
from policyd.server.health import Health
from policyd.server.journal import open_journal
from policyd.server.link import Ended, InForce, Listening, LowerEnd, Opened, Policies, Rule, Setup, Speak, Trouble
from policyd.server.silence import SILENT_PER_PEER, Silence, one_message
from policyd.server.transport import AGE, GRACE_SECONDS, PINGS, bind, credentials
from policyd.server.turns import Outcome, Turns
from policyd.telemetry.counters import TABLE, Counters
from policyd.telemetry.logs import configure_logs
from policyd.telemetry.slots import Slots

OTHER_THREADS: Final = 8  # for questions of health, and for checks that come before the journal is open: those wait
MOST_THREADS: Final = 8 * SILENT_PER_PEER
LOOK_SECONDS: Final = 0.5
SWITCH_SECONDS: Final = 0.001  # what a decision waits at most for the thread that takes a ruling over
OPENING_SECONDS: Final = 0.8  # how long a check waits for the journal; the caller waits for a second

_log = structlog.get_logger("policyd.decider")


class _Identity:
    """The certificate in force."""

    def __init__(self) -> None:
        self.certificate: ServerCertificate | None = None

    def current(self) -> ServerCertificate:
        if self.certificate is None:
            raise PolicydError("no certificate has come yet")
        return self.certificate


class Decider:
    """The parts of a decision process; `run` follows the messages from above until there will be no more."""

    def __init__(self, setup: Setup, upward: LowerEnd, counters: Counters) -> None:
        self._setup = setup
        self._up = upward
        self._counters = counters
        self._identity = _Identity()
        self._takeover = Takeover()
        self._ruling: Ruling | None = None
        self._retired: list[Ruling] = []
        self._journal: Journal | None = None
        self._opened = threading.Event()
        self._trouble = ""
        self._silence = Silence(time.monotonic)
        self._turns: Turns | None = None

    def run(self, stack: ExitStack) -> None:
        """Serve until the control process has gone; raises PolicydError where this process is of no use."""
        journals = stack.enter_context(ExitStack())  # closed after the last check that is under way
        while True:
            match self._up.receive(self._idle, LOOK_SECONDS):
                case link.Identity(certificate):
                    self._identity.certificate = certificate
                case Policies() as some:
                    gc.disable()  # thousands of new objects would have all the old ones looked through
                    self._takeover.take(some)
                case Rule() as rule:
                    self._decide_under(rule)
                case link.Listen():
                    self._listen(stack)
                case link.Open():
                    self._open(journals)
                case Speak(level):
                    configure_logs(json_lines=self._setup.log_json, level=level)
                case Setup():
                    raise PolicydError("a second setup came")

    def _decide_under(self, rule: Rule) -> None:
        new, old = self._takeover.ruling(rule), self._ruling
        if old is not None:
            self._counters.cached(old.engine.stats(), anew=False)
            self._retired.append(old)
        self._counters.ruled(new.revision)
        self._ruling = new
        self._counters.cached(new.engine.stats(), anew=True)
        gc.enable()
        gc.freeze()  # what lives as long as the ruling is not looked through again
        self._up.say(InForce(rule.number, new.revision))

    def _listen(self, stack: ExitStack) -> None:
        turns = self._turns = make_turns(self._silence, self._opened.is_set, self._keep_all)
        options = [("grpc.so_reuseport", 1), *PINGS, *AGE, ("grpc.max_receive_message_length", MAX_CHECK_BYTES)]
        server = grpc.server(turns, options=options)  # type: ignore[arg-type]  # it only submits
        authorizer = Authorizer(
            ruling=lambda: self._ruling,
            record=DecisionLog(self._record, time.monotonic, self._setup.audit.mask),
            metrics=self._counters,
            clock=_now,
            stopwatch=time.perf_counter,
            include=_include(self._setup.audit.include),
        )
        turns.serve(server)
        add_to_server(authorizer, server, one_message)
        health = Health((authz.SERVICE,), self._not_ready, _now)
        server.add_generic_rpc_handlers((health.blocking_handler(),))
        bind(server, self._setup.address, credentials(self._identity, mutual=True))
        server.start()
        stack.callback(turns.shutdown)
        stack.callback(lambda: server.stop(GRACE_SECONDS).wait())
        stack.callback(health.end)
        self._up.say(Listening())

    def _open(self, stack: ExitStack) -> None:
        setup = self._setup
        journal = open_journal(setup.paths, setup.writer, setup.audit, _now, self._counters)
        self._journal = stack.enter_context(journal)
        self._opened.set()
        self._up.say(Opened())

    def _record(self, entry: Entry) -> None:
        """Keep an entry; says above at once where that fails, and where it does so no more."""
        if not self._opened.is_set() and not self._opened.wait(OPENING_SECONDS):
            raise JournalError("the journal is not open yet")
        assert self._turns is not None, "it listens"
        try:
            self._turns.keep(entry)
        except JournalError as error:
            self._tell(error.message)
            raise
        self._tell("")

    def _keep_all(self, entries: Sequence[Entry]) -> list[JournalError | None]:
        assert self._journal is not None, "it is open"
        return self._journal.keep_all(entries)

    def _idle(self) -> None:
        self._silence.look()
        if self._turns is not None:
            self._turns.look()
        if self._journal is not None:
            self._journal.turn()
            self._tell(self._journal.trouble())
        if self._ruling is not None:
            self._counters.cached(self._ruling.engine.stats(), anew=False)
        for _ in range(len(self._retired)):
            old = self._retired.pop(0)
            if _references(old) > _ONE_VARIABLE:  # a check that was begun under it is still being decided
                self._retired.append(old)
            else:
                self._takeover.let_go(old)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._up.say(Trouble(trouble))

    def _not_ready(self) -> str:
        if not self._opened.is_set() or self._ruling is None:
            return "it has not begun yet"
        return self._trouble


def make_turns(
    silence: Silence, ready: Callable[[], bool], keep_all: Callable[[Sequence[Entry]], Sequence[Outcome]]
) -> Turns:
    """Who answers checks in turns, and some threads for what else is asked."""
    others = CheckThreads(OTHER_THREADS, MOST_THREADS)
    return Turns(others, silence, ready=ready, keep_all=keep_all, stopwatch=time.monotonic)


def _include(settings: IncludeSettings) -> Include:
    return Include(frozenset(settings.headers), frozenset(settings.claims))


def _references(value: object) -> int:
    return sys.getrefcount(value)


def _held_by_one_variable() -> int:
    value = object()
    return _references(value)


_ONE_VARIABLE: Final = _held_by_one_variable()  # which is another number in each version of Python


def _now() -> datetime:
    return datetime.now(UTC)


def _end(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # it ends already
    raise Ended


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the descriptors of the link and of the counters, and how many processes count there."""
    descriptor, counters, processes = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the control process ends us in order
    signal.signal(signal.SIGTERM, _end)
    upward = LowerEnd(descriptor)
    try:
        setup = upward.receive(lambda: None, LOOK_SECONDS)
        assert isinstance(setup, Setup), "the first message says who we are"
        configure_logs(json_lines=setup.log_json, level=setup.log_level)
        if setup.core is not None:
            os.sched_setaffinity(0, {setup.core})
        sys.setswitchinterval(SWITCH_SECONDS)
        slots = Slots(TABLE, processes, counters)
        with ExitStack() as stack:
            Decider(setup, upward, Counters(slots, setup.number)).run(stack)
    except Ended:
        return 0
    except PolicydError as error:
        _log.error("decider.failed", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

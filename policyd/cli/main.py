"""`policyd`: the table of commands, and what each way of ending means to the shell.

Law: an expected error is never a traceback. Exit codes (reference/contract): 0 ok or allow, 1 error, 2 deny or a
failed test, 3 invalid input, 64 wrong usage; 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import typer

from policyd.cli.exits import Exit
from policyd.cli.lazy import Entry, LazyGroup
from policyd.cli.output import show_error
from policyd.errors import InvalidInput, NotFound, PolicydError, StateError, UsageError

STDERR: Final = 2
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
GC_THRESHOLD: Final = 20_000  # objects, where 700 are usual
COMMANDS: Final[Mapping[str, Entry]] = {
    "up": Entry("policyd.cli.up", "Run a folder's whole mesh here: server, proxies and applications."),
    "down": Entry("policyd.cli.down", "End what `up` started for a folder."),
    "serve": Entry("policyd.cli.serve", "Run the control plane alone: decisions, certificates, configuration."),
    "restart": Entry("policyd.cli.restart", "Replace the decision processes, without a failed request."),
    "status": Entry("policyd.cli.status", "Show what is running and whether it is ready."),
    "verbosity": Entry("policyd.cli.verbosity", "Change how much a running server says of itself."),
    "top": Entry("policyd.cli.top", "Show live who calls whom, what is denied, and what is slow."),
    "why": Entry("policyd.cli.why", "Say why requests were refused, and what would have let them pass."),
    "traces": Entry("policyd.cli.traces", "The traces of the last while: where a request spent its time."),
    "console": Entry("policyd.cli.console", "Print a link that opens the console in a browser."),
    "check": Entry("policyd.cli.check", "Check a folder without running it: every problem at once."),
    "authorize": Entry("policyd.cli.authorize", "Decide one request from the files alone, and say why."),
    "route": Entry("policyd.cli.route", "Show which way one request goes, from the files alone, and who lets it."),
    "policy": Entry("policyd.cli.policy", "Work on policies: check, format, test, explain, compare and import them."),
    "schema": Entry("policyd.cli.schema", "Print JSON Schemas of the folder's files, for editors."),
    "log": Entry("policyd.cli.log", "Read the journal of decisions."),
    "ca": Entry("policyd.cli.ca", "The certificate authority: join tokens, certificates, roots."),
    "mesh": Entry("policyd.cli.mesh", "The mesh: what it may hold, what is wrong with it, what holds for whom."),
    "proxy": Entry("policyd.cli.proxy", "The proxies: what each was sent, whether it took it, and what it holds."),
    "version": Entry("policyd.cli.version", "Show the version of policyd."),
}
SUMMARY: Final = """A service mesh that can say why.

Envoy proxies carry the requests of your services, Cedar policies decide which may pass, and each decision is
recorded. Try it: `policyd up examples/bookinfo`.

Exit codes: 0 ok or allow, 1 error, 2 deny or a failed test, 3 invalid input, 64 wrong usage.
"""


def root() -> LazyGroup:
    """Return the command `policyd`."""
    return LazyGroup(COMMANDS, name="policyd", help=SUMMARY, context_settings={"help_option_names": ["-h", "--help"]})


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed, as JSON where `--json` is given."""
    as_json = "--json" in arguments
    try:
        code = root().main(args=list(arguments), prog_name="policyd", standalone_mode=False)
        sys.stdout.flush()
    except (InvalidInput, NotFound) as error:
        show_error(error, as_json)
        return Exit.INVALID
    except UsageError as error:
        show_error(error, as_json)
        return Exit.USAGE
    except PolicydError as error:
        show_error(error, as_json)
        return Exit.ERROR
    except typer.TyperException as error:
        _show_usage(error, as_json)
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _leave_output()  # its reader went away, as `head` does
        return Exit.ERROR
    except OSError as error:
        if error.filename is not None or error.errno not in NO_ROOM:  # who writes elsewhere says where
            raise
        _leave_output()
        show_error(StateError(f"the output cannot be written: {(error.strerror or str(error)).lower()}"), as_json)
        return Exit.ERROR
    return code if isinstance(code, int) else Exit.OK


def _leave_output() -> None:
    """Let what is not written go nowhere; the interpreter would complain when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage(error: typer.TyperException, as_json: bool) -> None:
    from policyd.cli.wrong_usage import as_ours, is_help

    show = getattr(error, "show", None)
    if show is not None and is_help(error):
        show()
    else:
        show_error(as_ours(error), as_json)


def _open_what_is_closed() -> None:
    """Lead standard streams that are closed (`>&-`) nowhere: the next file opened would have the number of one."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main() -> NoReturn:
    """Run the command line of this process."""
    # imports make hundreds of thousands of objects that stay: looking through them at each step is a tenth of a start
    gc.set_threshold(GC_THRESHOLD)
    _open_what_is_closed()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""With which exit code a command ends, and when: for the commands that scripts ask, and all that can answer no.

Law: a command that is not in the table never ends with `Exit.DENIED`; tests/cli/test_endings.py drives every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from policyd.cli.exits import Exit

NO_JOURNAL: Final = "The folder has no journal."
NO_ANSWER: Final = "The folder has no journal, or the answer takes more time or memory than it may."
INVALID_FOLDER: Final = "The folder has a problem, or the request is none of its mesh."

EVERY: Final[Mapping[Exit, str]] = MappingProxyType({
    Exit.ERROR: "What it needs cannot be read, or what it says cannot be written, as on a full disk.",
    Exit.USAGE: "It has no such option, an argument is missing, or the folder is not there.",
    Exit.INTERRUPTED: "Ctrl-C ended it before it was done.",
})  # fmt: skip

_ENDINGS: Final[Mapping[str, Mapping[Exit, str]]] = {
    "up": {
        Exit.OK: "All came up; where it ends after the table, each request of checks.yaml got its answer, too.",
        Exit.ERROR: "Something did not come up, or the folder is up already; or it ends after the table, and a request "
        "of checks.yaml got another answer.",
        Exit.INVALID: "The folder has a problem, or declares nothing to run.",
    },
    "status": {
        Exit.OK: "A server answers, whether it is ready or not; `--json` has `ready`.",
        Exit.ERROR: "No server answers for the folder, or it refuses.",
    },
    "why": {
        Exit.OK: "It is explained, or nothing that matches was refused.",
        Exit.ERROR: NO_JOURNAL,
        Exit.INVALID: "The journal has no such decision.",
    },
    "check": {
        Exit.OK: "The folder can be served; warnings do not count.",
        Exit.INVALID: "It has a problem, or one of its cases fails.",
    },
    "authorize": {
        Exit.OK: "Allow.",
        Exit.DENIED: "Deny.",
        Exit.INVALID: INVALID_FOLDER,
    },
    "route": {
        Exit.OK: "The request gets through.",
        Exit.ERROR: "It leads nowhere.",
        Exit.DENIED: "A policy denies it on some way.",
        Exit.INVALID: INVALID_FOLDER,
    },
    "policy check": {
        Exit.OK: "No error, and with `--strict` no warning.",
        Exit.DENIED: "A warning, with `--strict`.",
        Exit.INVALID: "An error.",
    },
    "policy fmt": {
        Exit.OK: "Every file is formatted now; with `--diff` it is shown what would change.",
        Exit.DENIED: "A file is not formatted, with `--check`.",
        Exit.INVALID: "A file is no policy; none was written.",
    },
    "policy test": {
        Exit.OK: "No case failed.",
        Exit.DENIED: "A case failed, or less than `--min-coverage` is covered.",
        Exit.INVALID: "The folder has a problem, or a case is none.",
    },
    "policy explain": {
        Exit.OK: "Allow.",
        Exit.ERROR: "With `--decision` the folder has no journal, with `--proxy` no server answers, or it refuses.",
        Exit.DENIED: "Deny.",
        Exit.INVALID: "The folder has a problem, the request is none of its mesh, or the journal has no such decision.",
    },
    "policy who-can": {
        Exit.OK: "It is told, also that nobody may.",
        Exit.INVALID: "The folder has a problem, the request is none of its mesh, or no such revision is kept.",
    },
    "policy what-can": {
        Exit.OK: "It is told, also that the caller may nothing.",
        Exit.INVALID: "The folder has a problem, the mesh has no such caller, or no such revision is kept.",
    },
    "policy diff": {
        Exit.OK: "No request is answered differently.",
        Exit.ERROR: "A side is `live`, and no server answers.",
        Exit.DENIED: "A request is answered differently; with `--strict` also where other policies answer the same.",
        Exit.INVALID: "A side has a problem, or is no folder and no revision.",
    },
    "policy replay": {
        Exit.OK: "No recorded decision changes.",
        Exit.ERROR: NO_JOURNAL,
        Exit.DENIED: "A recorded decision changes; with `--strict` also where one cannot be decided.",
        Exit.INVALID: "The candidate has a problem.",
    },
    "policy suggest": {
        Exit.OK: "The draft allows all that was observed.",
        Exit.ERROR: NO_JOURNAL,
        Exit.DENIED: "What was allowed would be denied under the draft.",
        Exit.INVALID: "The folder has a problem.",
    },
    "policy shadow-report": {
        Exit.OK: "Every answer would be the same.",
        Exit.ERROR: "No decision was compared, or the folder has no journal.",
        Exit.DENIED: "An answer would change, or the policies that are tried failed.",
    },
    "policy compile": {
        Exit.OK: "It is told what is compiled; with `--strict` it is all of it.",
        Exit.DENIED: "A listener is not compiled whole, with `--strict`.",
        Exit.INVALID: "The folder has a problem, or the mesh has no such service.",
    },
    "schema": {
        Exit.OK: "It is printed, or they are written.",
        Exit.INVALID: "No file of that name has a schema.",
    },
    "log query": {
        Exit.OK: "It is answered, also where no record matches.",
        Exit.ERROR: NO_ANSWER,
    },
    "log stats": {
        Exit.OK: "It is answered, also where no record matches.",
        Exit.ERROR: NO_ANSWER,
    },
    "log sql": {
        Exit.OK: "The statement is answered.",
        Exit.ERROR: "The folder has no journal, or the statement is wrong or takes more time or memory than it may.",
    },
    "log show": {
        Exit.OK: "It is shown.",
        Exit.ERROR: NO_JOURNAL,
        Exit.INVALID: "The journal has no such decision or request.",
    },
    "log verify": {
        Exit.OK: "The journal is whole.",
        Exit.ERROR: "A record does not fit, or the folder has no journal.",
    },
    "log tail": {
        Exit.OK: "The last records are shown, with `--no-follow`; else Ctrl-C ends it.",
        Exit.ERROR: NO_JOURNAL,
    },
    "ca inspect": {
        Exit.OK: "It is shown, true or not.",
        Exit.INVALID: "The file holds nothing of the kind.",
    },
    "ca issue": {
        Exit.OK: "It is issued.",
        Exit.ERROR: "No server answers, it refuses, or the files are there already.",
        Exit.INVALID: "The mesh has no such workload, or the server finds what is asked for not valid.",
    },
    "ca sign": {
        Exit.OK: "It is signed.",
        Exit.ERROR: "No server answers, or it refuses.",
        Exit.INVALID: "The file is no signing request, or one that is not taken; or the mesh has no such workload.",
    },
    "ca verify": {
        Exit.OK: "It is true.",
        Exit.ERROR: "Without `--bundle`: no server answers.",
        Exit.DENIED: "It is not true.",
        Exit.INVALID: "The file proves nobody ever, or the bundle is none.",
    },
    "mesh describe": {
        Exit.OK: "It is told.",
        Exit.INVALID: "The folder has a problem, or the mesh has no service and no workload of that name.",
    },
    "mesh analyze": {
        Exit.OK: "Nothing reaches the failure threshold.",
        Exit.DENIED: "Something that is no error reaches it.",
        Exit.INVALID: "There is an error.",
    },
    "proxy diff": {
        Exit.OK: "The proxy holds what it was sent.",
        Exit.ERROR: "No server answers, it refuses, or the agent does not answer.",
        Exit.DENIED: "It holds something else.",
        Exit.INVALID: "The mesh has no such instance.",
    },
}
ENDINGS: Final[Mapping[str, Mapping[Exit, str]]] = MappingProxyType(
    {command: MappingProxyType(dict(endings)) for command, endings in _ENDINGS.items()}
)

"""Options that many commands share, so that they read and behave alike everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="The mesh's folder. Without it: $POLICYD_DIR, or the nearest folder upwards that has `.policyd`.",
        show_default=False,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="The mesh's folder; without it the one that you are in.", show_default=False),
]
AlsoDir = Annotated[
    Path | None, typer.Option("--dir", help="The same as DIR, as other commands have it.", show_default=False)
]
# one form of a request everywhere: FROM METHOD URL
Caller = Annotated[
    str,
    typer.Argument(
        metavar="FROM",
        help="Who asks: an instance, a service, a service account, a SPIFFE ID, or `anonymous`.",
        show_default=False,
    ),
]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="The HTTP method, as in GET.", show_default=False)]
Url = Annotated[str, typer.Argument(metavar="URL", help="As in http://reviews:9080/reviews/0.", show_default=False)]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        metavar="NAME:VALUE",
        help="A header, as in `end-user: jason`; repeatable.",
        show_default=False,
    ),
]
User = Annotated[
    str,
    typer.Option(
        "--user",
        metavar="ISSUER/SUBJECT",
        help="The end user that a token in the request proves.",
        show_default=False,
    ),
]
Claim = Annotated[
    list[str] | None,
    typer.Option(
        "--claim",
        metavar="NAME=VALUE",
        help="A claim of that token, as in `roles=editor`; repeatable.",
        show_default=False,
    ),
]
Ttl = Annotated[str, typer.Option("--ttl", help="How long it lives, as in `10m` or `1h`.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Shadow = Annotated[
    Path | None,
    typer.Option(
        "--shadow",
        metavar="FOLDER",
        help="A folder of `.cedar` files to try beside the active policies; wins over policyd.yaml.",
        show_default=False,
    ),
]


def named(directory: Path | None, also: Path | None) -> Path:
    """Return the folder that is named as DIR or with `--dir`, absolute, or the nearest one; raises UsageError."""
    from policyd.errors import UsageError
    from policyd.instance import existing

    if directory is not None and also is not None:
        raise UsageError("the folder is given twice", remedy="name it once: as DIR, or with `--dir`")
    return existing(directory or also)


def whole(path: Path | None) -> Path | None:
    """Return a path that was named as seen from here, for who runs elsewhere."""
    return Path(os.path.abspath(path)) if path else None  # noqa: PTH100 - takes `..` out too, so that people know it

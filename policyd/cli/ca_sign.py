"""`policyd ca sign CSR`: a certificate for a key that lies elsewhere, by its signing request.

Law: of a request only the key counts; the name is the workload's that is named here, and a request for another name is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from policyd.cli.ca_inspect import File, material
from policyd.cli.options import Dir, Json


def sign(
    csr: File,
    workload: Annotated[
        str, typer.Option("--workload", help="Whose it is: a workload's name or SPIFFE ID.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the chain here instead of printing it; `-` prints it.", show_default=False),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="How long it lives, as in `10m` or `1h`.", show_default=False)] = "",
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Sign a certificate signing request (PKCS#10, PEM or DER) and print the chain, leaf first, without the root.

    The request proves that its sender holds the key; it may name its SPIFFE ID, and nothing else.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from policyd.cli import output
    from policyd.cli.public_file import STDOUT, put
    from policyd.cli.values import seconds, workload_id
    from policyd.errors import InvalidInput, Problem
    from policyd.instance import folder, server
    from policyd.svid.material import Request
    from policyd.wording import moment

    found = material(csr)
    if not isinstance(found, Request):
        remedy = "make one: `openssl req -new -subj / …`"
        raise InvalidInput([Problem("csr", "is no certificate signing request", str(csr), remedy=remedy)])
    with server(folder(directory)) as client:
        spiffe_id = workload_id(workload, client.status().trust_domain, client.instances())
        with of_request(csr):
            reply = client.issue(str(spiffe_id), found.request.public_bytes(Encoding.DER), seconds(ttl))
    certificates = [x509.load_der_x509_certificate(one) for one in reply.chain]
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
    file = None if out == STDOUT else out
    if file is not None:
        put(file, pem, as_json=as_json)
    leaf = certificates[0]
    ends = leaf.not_valid_after_utc
    if as_json:
        chain = {"chain": pem.decode()} if file is None else {"file": str(file)}
        signed = {"spiffe_id": str(spiffe_id), "serial": f"{leaf.serial_number:032x}", "until": ends.isoformat()}
        output.print_json({**signed, **chain})
        return
    if file is None:
        print(pem.decode(), end="")
    said = f"`{spiffe_id}`, serial {leaf.serial_number:032x}, until {moment(int(ends.timestamp()))}"
    output.show(said, stream=output.stderr())


@contextmanager
def of_request(csr: Path) -> Iterator[None]:
    """What the server finds wrong with a request, which it refuses and records, names the file that it is from."""
    from policyd.errors import InvalidInput

    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(replace(one, file=str(csr)) for one in error.problems) from None

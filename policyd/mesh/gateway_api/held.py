"""What of the Gateway API stands for files: the Secret or ConfigMap `<name>` is the folder `credentials/<name>`.

Law: one of another namespace is `credentials/<namespace>.<name>`. What is not at hand is not said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from policyd.mesh.credentials import FOLDER, CredentialFile, Credentials

PAIR = ("tls.crt", "tls.key")
AUTHORITIES = ("ca.crt",)


def folder_of(name: str, namespace: str | None, own: str) -> str:
    """The folder's name, for who is in the namespace `own`."""
    return name if namespace in (None, own) else f"{namespace}.{name}"


def trouble(folder: str, files: Iterable[str], credentials: Credentials | None) -> str:
    """What is wrong with files of a folder, and what to do; "" where nothing is, or they are not at hand."""
    if credentials is None:
        return ""
    found = (_trouble(f"{FOLDER}/{folder}/{name}", name, credentials) for name in files)
    return next((said for said in found if said), "")


def _trouble(path: str, name: str, credentials: Credentials) -> str:
    file: CredentialFile | None = credentials.get(path)
    if file is None:
        return f"there is no file `{path}`; put it there"
    if file.problem:
        return f"`{path}` {file.problem}" + (f"; {file.remedy}" if file.remedy else "")
    if file.is_list or file.is_key is not name.endswith(".key"):
        return f"`{path}` is another kind of file; put the right one there"
    return ""

"""Compile proto/ into policyd/_pb/ when the package is built or installed for development.

Generated code is not committed: this hook is the only thing that makes it, so it cannot be stale.
"""

from __future__ import annotations

import importlib
import importlib.resources
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
SOURCE = ROOT / "proto"
TARGET = ROOT / "policyd" / "_pb"

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand: python build_protos.py
    BuildHookInterface = object


def compile_protos() -> None:
    """Write one module a proto file, with `policyd._pb` as the import root, so that no name collides."""
    protoc = importlib.import_module("grpc_tools.protoc")
    TARGET.mkdir(exist_ok=True)
    folders = (SOURCE / "policyd" / "v1", SOURCE / "spiffe")
    files = sorted(file for folder in folders for file in folder.glob("*.proto"))
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", *(f"-I{folder}" for folder in folders), f"-I{well_known}"]
    arguments += [f"--{kind}={TARGET}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    status = protoc.main([*arguments, *(file.name for file in files)])
    if status != 0:
        sys.exit(f"protoc failed with status {status}")
    for module in TARGET.glob("*_pb2_grpc.py"):
        text = module.read_text(encoding="utf-8")
        for file in files:
            text = text.replace(f"import {file.stem}_pb2 as", f"from policyd._pb import {file.stem}_pb2 as")
        module.write_text(text, encoding="utf-8")
    (TARGET / "__init__.py").write_text('"""Generated from proto/ by build_protos.py."""\n', encoding="utf-8")


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc,valid-type,unused-ignore]
    """Hatchling's hook: runs before the files of a wheel or an editable install are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the protos; a wheel, unlike an editable install, also carries the shipped policies."""
        compile_protos()
        if version != "editable":
            build_data["force_include"]["policies"] = "policyd/_policies"


if __name__ == "__main__":
    compile_protos()

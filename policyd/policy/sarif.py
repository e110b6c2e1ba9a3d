"""Findings as SARIF 2.1.0 (OASIS, sarif-v2.1.0): what code hosts and editors show beside the lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from policyd.policy.finding_model import RULES, Finding

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """One log with one run; `version` is that of policyd. Paths are relative to the checked folder."""
    codes = list(RULES)
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "policyd", "semanticVersion": version, "rules": _rules()}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, codes.index(one.code)) for one in findings],
            }
        ],
    }


def _rules() -> list[dict[str, Any]]:
    return [
        {
            "id": rule.code,
            "name": "".join(word.capitalize() for word in rule.name.split("-")),
            "shortDescription": {"text": rule.meaning},
            "defaultConfiguration": {"level": rule.severity},
        }
        for rule in RULES.values()
    ]


def _result(one: Finding, index: int) -> dict[str, Any]:
    text = f"{one.message}; {one.remedy}" if one.remedy else one.message
    result: dict[str, Any] = {
        "ruleId": one.code,
        "ruleIndex": index,
        "level": one.severity,
        "message": {"text": text},
    }
    if one.file:
        place: dict[str, Any] = {"artifactLocation": {"uri": quote(one.file)}}
        if one.line:
            place["region"] = _region(one)
        result["locations"] = [{"physicalLocation": place}]
    return result


def _region(one: Finding) -> dict[str, int]:
    """Columns from 1, the last one behind the region (SARIF 3.30)."""
    if not one.column:
        return {"startLine": one.line}
    return {"startLine": one.line, "startColumn": one.column, "endColumn": one.column + one.width}

"""Results of cases as JUnit XML, which build servers show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import groupby

from policyd.policy.cases import Result

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def junit(results: Sequence[Result]) -> str:
    """One suite a file, one test a case."""
    root = ET.Element("testsuites", _counts(results), name="policyd policy test")
    for file, some in groupby(results, key=lambda one: one.case.file):
        of_file = list(some)
        suite = ET.SubElement(root, "testsuite", _counts(of_file), name=_clean(file))
        for one in of_file:
            _case(suite, one)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ['<?xml version="1.0" encoding="UTF-8"?>\n', "\n"]
    )


def _case(suite: ET.Element, one: Result) -> None:
    case = one.case
    asked = {"classname": _clean(case.file), "file": _clean(case.file), "line": str(case.line)}
    element = ET.SubElement(suite, "testcase", asked, name=_clean(case.name), time="0")
    if not one.passed:
        failure = ET.SubElement(element, "failure", message=_clean("; ".join(one.different)), type="case")
        failure.text = _clean(f"{case.file}:{case.line}\n{case.asked}\n" + "\n".join(one.different))


def _counts(results: Sequence[Result]) -> dict[str, str]:
    failed = sum(not one.passed for one in results)
    return {"tests": str(len(results)), "failures": str(failed), "errors": "0"}


def _clean(text: str) -> str:
    """Without what XML cannot say."""
    return _NOT_XML.sub("�", text)

"""A comparison as JUnit XML, which CI servers show: a test case for each gate, or for each score if there are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from cst_bench.reporting.comparison.comparison import Comparison
from cst_bench.reporting.comparison.gates import GateResult
from cst_bench.numbers import number, p_value, signed, signed_ends

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold."""


def junit_xml(found: Comparison, gates: Sequence[GateResult]) -> str:
    """A test suite; each gate that failed is a failure."""
    cases = len(gates) or len(found.scores)
    failures = sum(gate.failed for gate in gates)
    counts = {"tests": str(cases), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", {"name": "cst-bench compare", **counts})
    named = {"name": _clean(f"{found.label} less {found.reference}"), **counts}
    suite = ElementTree.SubElement(root, "testsuite", named)
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", classname="cst-bench.gate", name=_clean(gate.gate.text))
        if gate.failed:
            failure = ElementTree.SubElement(case, "failure", message=_clean(gate.message), type="gate")
            failure.text = _clean(gate.message)
    if not gates:
        for one in found.scores:
            case = ElementTree.SubElement(suite, "testcase", classname="cst-bench.score", name=_clean(one.column.key))
            scale = 100 if one.column.percent else 1
            ElementTree.SubElement(case, "system-out").text = _clean(
                f"{number(one.reference, scale)} to {number(one.score, scale)}: "
                f"{signed(one.difference.difference, scale)} ({signed_ends(one.difference.interval, scale)}), "
                f"p {p_value(one.difference.p)}, n {one.difference.n}, unscored {one.unscored[0]} and {one.unscored[1]}"
                + "".join(f"; {flag}: {found.flags[flag]}" for flag in one.flags)
            )
    said = [*(f"different: {text}" for text in found.different), *(f"not compared: {text}" for text in found.missing)]
    if said:
        ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(said))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)

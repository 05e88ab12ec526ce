"""A comparison as JUnit XML, which CI servers show: a test case for each gate, or for each score if there are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from cst_bench.numbers import number, p_value, signed, signed_ends
from cst_bench.reporting.comparison.comparison import Comparison
from cst_bench.reporting.comparison.gates import GateResult

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow."""


def junit_xml(comparison: Comparison, gates: Sequence[GateResult]) -> str:
    """Return a JUnit test suite; each failed gate is a failure."""
    cases = len(gates) or len(comparison.scores)
    failures = sum(gate.failed for gate in gates)
    counts = {"tests": str(cases), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", {"name": "cst-bench compare", **counts})
    named = {"name": _clean(f"{comparison.label} minus {comparison.baseline}"), **counts}
    suite = ElementTree.SubElement(root, "testsuite", named)
    properties = ElementTree.SubElement(suite, "properties")
    for name, receipt in zip(("baseline", "run"), comparison.receipts, strict=True):
        ElementTree.SubElement(properties, "property", name=f"receipt of {name}", value=receipt or "none")
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", classname="cst-bench.gate", name=_clean(gate.gate.text))
        if gate.failed:
            failure = ElementTree.SubElement(case, "failure", message=_clean(gate.message), type="gate")
            failure.text = _clean(gate.message)
    if not gates:
        for score in comparison.scores:
            case = ElementTree.SubElement(suite, "testcase", classname="cst-bench.score", name=_clean(score.column.key))
            scale = score.column.scale
            ElementTree.SubElement(case, "system-out").text = _clean(
                f"{number(score.baseline, scale)} to {number(score.score, scale)}: "
                f"{signed(score.difference.difference, scale)} ({signed_ends(score.difference.interval, scale)}), "
                f"p {p_value(score.difference.p)}, n {score.difference.n}, "
                f"unscored {score.unscored[0]} and {score.unscored[1]}"
                + "".join(f"; {flag}: {comparison.flags[flag]}" for flag in score.flags)
            )
    notes = [f"different: {text}" for text in comparison.different]
    notes += [f"not compared: {text}" for text in comparison.missing]
    if notes:
        ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(notes))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)

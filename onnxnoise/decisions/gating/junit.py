"""A gate's verdict as JUnit XML, one test case a rule, for the reports of GitLab, Jenkins, GitHub and others."""

from __future__ import annotations

import re
from typing import Literal
from xml.etree import ElementTree

from onnxnoise.decisions.gating.records import GateVerdict, RuleVerdict

Outcome = Literal["pass", "fail", "5"]
"""The outcome that an inconclusive rule counts as, in the words of `--on-inconclusive`."""

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 can't hold, escaped or not."""


def junit_xml(verdict: GateVerdict, on_inconclusive: Outcome = "5") -> str:
    """The verdict as one document: a failed rule is a `failure`, an inconclusive one an `error` unless `on_inconclusive` says
    otherwise.

    Readers differ in what they show: GitLab takes `classname` (the model) for the suite and shows the text of the element, not
    its `message`; so the text has all there is to say. Names are untrusted: characters that XML can't hold are replaced.
    """
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    suite = ElementTree.Element("testsuite", name="onnxnoise gate", tests=str(len(verdict.rules)))
    suite.set("time", f"{sum(verdict.seconds):.3f}")
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("model", f"{verdict.model['name']} {verdict.model['sha256']}"),
        ("dataset", f"{verdict.dataset['name']}, {verdict.dataset['images']} images"),
        ("labels", str(verdict.dataset.get("labels", "data"))),
        ("bn", verdict.bn),
        ("sigma_scope", verdict.sigma_scope),
        ("seed", str(verdict.seed)),
    ):
        ElementTree.SubElement(properties, "property", name=name, value=_held(value))
    for number, rule in enumerate(verdict.rules):
        seconds = verdict.seconds[number] if verdict.seconds else 0.0
        case = ElementTree.SubElement(
            suite, "testcase", classname=_held(verdict.model["name"]), name=_held(rule.name), time=f"{seconds:.3f}"
        )
        found_so_far = ElementTree.SubElement(case, "properties")
        for name, odds in (("e_pass", rule.e_pass), ("e_fail", rule.e_fail)):
            ElementTree.SubElement(found_so_far, "property", name=name, value=f"{odds:.6g}")
        kind = _kind(rule, on_inconclusive)
        if kind:
            counts[f"{kind}s" if kind != "skipped" else kind] += 1
            found = ElementTree.SubElement(case, kind, message=_held(rule.message))
            if kind != "skipped":
                found.set("type", rule.verdict)
            found.text = _held(f"{rule.verdict}: {rule.message}")
        else:
            ElementTree.SubElement(case, "system-out").text = _held(f"{rule.verdict}: {rule.message}")
    for name, count in counts.items():
        suite.set(name, str(count))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _kind(rule: RuleVerdict, on_inconclusive: Outcome) -> Literal["failure", "error", "skipped"] | None:
    if rule.verdict == "inconclusive":
        kinds: dict[Outcome, Literal["failure", "error", "skipped"]] = {
            "pass": "skipped",
            "fail": "failure",
            "5": "error",
        }
        return kinds[on_inconclusive]
    return "failure" if rule.verdict == "fail" else None


def _held(text: str) -> str:
    """The text with a replacement for each character that XML 1.0 can't hold."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

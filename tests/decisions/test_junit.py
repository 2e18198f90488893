"""What a gate tells other tools: JUnit XML, Markdown and workflow commands, whatever names have in them."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from onnxnoise.decisions.gating import github
from onnxnoise.decisions.gating.junit import junit_xml
from onnxnoise.decisions.gating.records import GateVerdict, RuleVerdict
from onnxnoise.records import NoiseSetting, Verdict

HOSTILE = [
    "plain",
    "a ]]> b <script>alert('x')</script> & \"quotes\"",
    "control \x00\x08\x0b\x1b[31m\x7f and \ud800 and \ufffe\uffff",
    "lines\nbroken\r\nand\ttabs",
    "| pipe | `tick` ``` *b* _i_ [l](javascript:x) ![i](http://x/y) <img src=x> #1 @me www.x.y ~~s~~ \\",
    "::error::x %0A::add-mask::y %25, :",
    "\u202eright to left\u2028separator",
    "x" * 300,
    "é 😀 日本",
]


def ruled(name: str, verdict: Verdict) -> RuleVerdict:
    return RuleVerdict(
        name=name,
        verdict=verdict,
        message=f"layer 3 {name}: accuracy / clean 0.5 is below 0.9",
        sweep="single",
        layer="worst",
        level=10.0,
        snr=10.0,
        metric="top1",
        relative_to="clean",
        min=0.9,
        max_drop=None,
        confidence=0.95,
        quantity="accuracy / clean",
        limit=0.9,
        value=0.5,
        low=0.4,
        high=0.6,
        draws=10,
        cells=(),
        e_pass=31.25,
        e_fail=0.5,
    )


def verdict_of(*rules: RuleVerdict, model: str = "net") -> GateVerdict:
    return GateVerdict(
        verdict="fail",
        model={"name": model, "sha256": "c" * 64},
        dataset={"name": model, "images": 1000, "sha256": "d" * 64},
        run_file="run.sqlite",
        rules_file="onnxnoise.toml",
        provider="CPUExecutionProvider",
        noise=NoiseSetting(),
        looks=(5, 10),
        rules=rules,
        warnings=(),
        seconds=(1.5,) * len(rules),
    )


ALL = verdict_of(ruled("good", "pass"), ruled("bad", "fail"), ruled("open", "inconclusive"))


def test_junitparser_reads_each_rule_as_a_test_case(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(junit_xml(ALL), encoding="utf-8")
    report = JUnitXml.fromfile(str(path))
    (suite,) = report
    assert isinstance(suite, TestSuite)
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("onnxnoise gate", 3, 1, 1, 0)
    good, bad, open_ = suite
    assert [case.name for case in (good, bad, open_)] == ["good", "bad", "open"]
    assert {case.classname for case in (good, bad, open_)} == {"net"}
    assert good.is_passed
    assert good.system_out == "pass: layer 3 good: accuracy / clean 0.5 is below 0.9"
    (failure,) = bad.result
    assert isinstance(failure, Failure)
    assert (failure.type, failure.message) == ("fail", ALL.rules[1].message)
    (error,) = open_.result
    assert isinstance(error, Error)
    assert error.text == f"inconclusive: {ALL.rules[2].message}"
    assert (suite.time, good.time) == (4.5, 1.5)
    case = next(ElementTree.parse(path).iter("testcase"))
    evidence = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert evidence == {"e_pass": "31.25", "e_fail": "0.5"}
    properties = {each.name: each.value for each in suite.properties()}
    assert (properties["bn"], properties["seed"]) == ("group", "40")


@pytest.mark.parametrize(("choice", "kind"), [("pass", Skipped), ("fail", Failure), ("5", Error)])
def test_an_inconclusive_rule_is_what_it_counts_as(choice: str, kind: type, tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(junit_xml(ALL, choice), encoding="utf-8")  # type: ignore[arg-type]
    (suite,) = JUnitXml.fromfile(str(path))
    (result,) = list(suite)[2].result
    assert type(result) is kind
    report = JUnitXml.fromfile(str(path))
    stated = [(each.tests, each.failures, each.errors, each.skipped) for each in report]
    report.update_statistics()
    assert [(each.tests, each.failures, each.errors, each.skipped) for each in report] == stated, "counts are right"


def gitlab(text: str) -> list[dict[str, str | None]]:
    """What GitLab takes from a report: https://docs.gitlab.com/ci/testing/unit_test_reports (a subset of JUnit XML).

    testsuites/testsuite/testcase with `classname`, `name`, `time` (a number), and the text of failure, error, skipped or
    system-out; of equal names only the first; less than 30 MB, 500,000 test cases.
    """
    assert len(text.encode()) < 30_000_000
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    cases = root.findall("testsuite/testcase")
    assert len(cases) < 500_000
    assert len({case.get("name") for case in cases}) == len(cases), "names tell cases apart"
    found: list[dict[str, str | None]] = []
    for case in cases:
        assert float(case.attrib["time"]) >= 0
        assert case.attrib["classname"]
        status = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "success")
        output = case.find("system-out" if status == "success" else status)
        assert output is not None
        found.append(
            {"name": case.get("name"), "classname": case.get("classname"), "status": status, "text": output.text}
        )
    return found


def test_gitlab_shows_each_rule_and_why() -> None:
    cases = gitlab(junit_xml(ALL))
    assert [(case["name"], case["status"]) for case in cases] == [
        ("good", "success"),
        ("bad", "failure"),
        ("open", "error"),
    ]
    assert [case["text"] for case in cases] == [f"{rule.verdict}: {rule.message}" for rule in ALL.rules]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_through_xml(name: str, tmp_path: Path) -> None:
    text = junit_xml(verdict_of(ruled(name, "fail"), ruled("other", "pass"), model=name))
    (case, _) = gitlab(text)
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", name)
    assert (case["name"], case["classname"]) == (kept, kept)
    assert kept.replace("\r\n", "\n") in str(case["text"]).replace("\r\n", "\n")
    path = tmp_path / "report.xml"
    path.write_text(text, encoding="utf-8", newline="\n")
    (suite,) = JUnitXml.fromfile(str(path))
    assert next(each.name for each in suite) == kept


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_do_nothing_in_markdown(name: str) -> None:
    text = github.summary(verdict_of(ruled(name, "fail"), model=name))
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("| ❌")]
    assert len(rows) == 1
    cells = rows[0].split("|")
    assert len(cells) == 8, "six cells: no pipe of the name's own"
    shown = unescape(cells[2]).strip()
    visible = re.sub("[\x00-\x1f\x7f\ud800-\udfff\u202e\u2028]", "\ufffd", name)
    assert shown == visible.strip()
    untrusted = re.sub(r"&#\d+;", "", cells[2] + cells[6])
    assert not re.search(r"[!-/:-@\[-`{-~]", untrusted), "no punctuation, so no markup"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_no_workflow_commands(name: str) -> None:
    lines = list(github.commands(verdict_of(ruled(name, "fail"), ruled(name, "pass")), inconclusive_stops=True))
    (line,) = lines
    assert "\n" not in line
    assert "\r" not in line
    parsed = re.fullmatch(r"::error title=([^:,]*)::(.*)", line)
    assert parsed is not None, "the title ends where it should"

    def decoded(text: str) -> str:
        for code, character in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
            text = text.replace(code, character)
        return text

    visible = re.sub("[\x00-\x1f\x7f\ud800-\udfff\u202e\u2028]", "\ufffd", name)
    assert decoded(parsed[1]) == f"fail: {visible}"
    assert visible in decoded(parsed[2])


def test_many_rules_stay_within_limits() -> None:
    many = verdict_of(*(ruled(f"{i} {'é' * 280}", "fail") for i in range(500)))
    assert len(gitlab(junit_xml(many))) == 500
    assert len(github.summary(replace(many, rules=many.rules[:300])).encode()) < 1 << 20

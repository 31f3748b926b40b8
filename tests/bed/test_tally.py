"""The summary of `make test` tells the truth."""

from bed.tally import Tally, not_run, read_junit, summary

JUNIT = """<?xml version="1.0"?>
<testsuite>
 <testcase name="base.A" classname="base.A" status="run"/>
 <testcase name="base.B" classname="base.B" status="fail"><failure message=""/>
  <system-out>x_test.cc:9: Failure
Expected: 1
  Actual: 2
</system-out></testcase>
 <testcase name="host.C" classname="host.C" status="notrun">
  <skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
  <system-out>x_test.cc:3: Skipped
no device-mapper here
</system-out></testcase>
 <testcase classname="tests.e2e.test_x" name="test_y"><error message="setup&#10; said no"/></testcase>
 <testcase classname="tests.e2e.test_x" name="test_z"><skipped message="no real VMM"/></testcase>
</testsuite>
"""


def test_counts_what_ctest_and_pytest_write(tmp_path):
    (tmp_path / "a.xml").write_text(JUNIT)
    tally = read_junit(tmp_path / "a.xml")
    assert tally.passed == 1
    assert tally.failed == ["base.B: Expected: 1 Actual: 2", "tests.e2e.test_x::test_y: setup said no"]
    assert tally.skipped == [
        ("host.C", "no device-mapper here"),
        ("tests.e2e.test_x::test_z", "no real VMM"),
    ]


def test_a_long_cause_is_cut_off(tmp_path):
    (tmp_path / "a.xml").write_text(JUNIT.replace("setup", "x" * 10_000))
    assert len(read_junit(tmp_path / "a.xml").failed[1]) < 600


def test_a_report_that_was_cut_short_counts_nothing(tmp_path):
    (tmp_path / "a.xml").write_text(JUNIT[:200])
    assert read_junit(tmp_path / "a.xml") == Tally()
    assert read_junit(tmp_path / "missing.xml") == Tally()


def test_the_last_line_has_its_exact_form():
    tallies = {"unit": Tally(passed=3, skipped=[("a", "why")]), "e2e": Tally(passed=2).fail("b")}
    lines = summary(tallies, ["VMM: fake"], ["node-a hung"]).splitlines()
    assert lines[-1] == "5 passed, 1 failed, 1 skipped"
    assert (
        "SKIPPED unit: 1 (why): a" in lines
        and "FAILED e2e: b" in lines
        and "NOTE node-a hung" in lines
    )


def test_the_summary_names_what_was_not_run_and_how_to_run_it():
    assert not_run(("unit", "power", "e2e"), ["unit"]) == ['not run: power, e2e; run them with: make test TIERS="power e2e"']
    assert not_run(("unit", "power"), ["power", "unit", "smoke"]) == []

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from meshwake.core.store import LATEST, runs_dir
from meshwake.runner import execution

from tests.support.paths import DOCS
from tests.support.scenarios import SURPRISING, UNKNOWN, small, write

ON_MODEL = ("--lab", "model")
NOT_BROKEN = small(('"holds"', '"broken"'))


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory with the plugin named in its conftest, as in this repository."""
    pytester.makeconftest(
        'pytest_plugins = ["meshwake.pytest_plugin", "meshwake.pytest_plugin.short_options"]'
    )
    # hypothesis' plugin would be imported again by every session within this one: seconds each, and
    # state shared.
    pytester.makeini(
        "[pytest]\naddopts = --strict-markers -p no:hypothesispytest\nfilterwarnings = error\n"
    )
    return pytester


def scenario(
    project: pytest.Pytester, text: str = small(), name: str = "small", below: str = "scenarios"
) -> Path:
    return write(project.path / below, text, name)


def output(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def test_one_item_per_case_with_a_name_that_reads(project: pytest.Pytester) -> None:
    """scenario[lab-version], below its file."""
    scenario(project)
    result = project.runpytest(
        *ON_MODEL, "--istio", "1.27.9", "--istio", "1.28.0", "--collect-only", "-q"
    )
    result.stdout.fnmatch_lines(
        ["scenarios/small.toml::small?model-1.27.9?", "scenarios/small.toml::small?model-1.28.0?"]
    )


def test_only_scenarios_are_collected(project: pytest.Pytester) -> None:
    """Other TOML files are left alone, unless they are named on the command line."""
    elsewhere = scenario(project, below="elsewhere")
    project.runpytest(*ON_MODEL).assert_outcomes()
    project.runpytest(*ON_MODEL, str(elsewhere)).assert_outcomes(passed=1)


def test_as_expected_passes_with_a_row(project: pytest.Pytester) -> None:
    """The table has the case; the reason of the lab is printed; nothing was kept."""
    scenario(project)
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        [r" small +model +\S+ +as expected +none +-", "lab model: chosen with --lab"]
    )
    assert not runs_dir().exists()


def test_a_surprise_fails_with_all_a_person_needs(project: pytest.Pytester) -> None:
    """Finding, evidence, where it lies and the command that repeats it; no traceback."""
    scenario(project, SURPRISING)
    result = project.runpytest(*ON_MODEL, "--seed", "7", "--istio", "1.28.0")
    result.assert_outcomes(failed=1)
    text = output(result)
    for words in (
        "BROKEN: 7 h 59 m of 2 d without mTLS, first on day 1 at 11:59 (known for 1.28, ",
        "surprise (a regression: traffic_flows is BROKEN, expected HOLDS)",
        "expected HOLDS: eight hours are less than half a life",
        "default/client could not reach default/server from ",
        f"evidence: {runs_dir()}",
        "repeat:   meshwake run scenarios/small.toml --lab model --istio 1.28.0 --seed 7",
    ):
        assert words in text
    assert "Traceback" not in text
    assert "plugin.py" not in text


def test_unknown_is_never_a_pass(project: pytest.Pytester) -> None:
    """It fails, and says that it is unknown."""
    scenario(project, UNKNOWN)
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    assert "unknown (valid_certificate_kept is UNKNOWN, expected HOLDS)" in output(result)


def test_a_goal_and_a_fix(project: pytest.Pytester) -> None:
    """The mesh is judged, and not what the scenario expects; also when the settings ask for it."""
    scenario(project, small(('lasts = "8h"', 'lasts = "20h"'), ('"holds"', '"broken"')))
    project.runpytest(*ON_MODEL).assert_outcomes(passed=1)
    result = project.runpytest(*ON_MODEL, "--meshwake-goal", "holds")
    result.assert_outcomes(failed=1)
    assert "goal 'holds' missed (recovers_within is BROKEN" in output(result)
    assert " --goal holds" in output(result)
    both = project.runpytest(*ON_MODEL, "--meshwake-fix", "none", "--meshwake-fix", "wake-guard")
    both.assert_outcomes(failed=1, passed=1)
    both.stdout.re_match_lines([r".* small +model +\S+ +wake-guard +reached "])


def test_a_refused_case_is_skipped_with_its_reason(project: pytest.Pytester) -> None:
    """In pytest's own list of skips and in the table."""
    scenario(project, small(('["model"]', '["process"]')))
    result = project.runpytest(*ON_MODEL, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.re_match_lines(
        [r" small +model +\S+ +refused", r"SKIPPED .* model: the scenario names only process"]
    )


def test_a_bad_file_is_an_error_of_collection(project: pytest.Pytester) -> None:
    """With the reader's message, and an exit code that is not 0."""
    scenario(project, small(('lasts = "8h"', 'lasts = "8"')))
    result = project.runpytest(*ON_MODEL)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["scenarios/small.toml: invalid value '8' for fault?0?.lasts*"])
    assert "Traceback" not in output(result)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--lab", "modl"), "did you mean 'model'"),
        (("--istio", "1.30.99"), "expected a release of clusters/versions.toml"),
        (("--as-class", "F"), "invalid value 'F'"),
        (("--ztunnel", "nowhere"), "--ztunnel nowhere: cannot be read"),
    ],
)
def test_a_wrong_option_is_refused_once(
    project: pytest.Pytester, option: tuple[str, str], words: str
) -> None:
    """Before anything is collected."""
    scenario(project)
    result = project.runpytest(*option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in "\n".join(result.errlines)


def test_a_canary_that_sings(project: pytest.Pytester) -> None:
    """It comes out BROKEN, as it must: the test passes."""
    scenario(
        project,
        small(('lasts = "8h"', 'lasts = "20h"'), ('"holds"', '"broken"')),
        below="scenarios/canary",
    )
    project.runpytest(*ON_MODEL).assert_outcomes(passed=1)


@pytest.mark.parametrize("text", [NOT_BROKEN, small()])
def test_a_canary_that_does_not_come_out_broken(project: pytest.Pytester, text: str) -> None:
    """Whatever its file expects: then the harness is broken, and no other result is worth
    anything."""
    scenario(project, text, below="scenarios/canary")
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    assert "the harness itself is broken" in output(result)


@pytest.mark.slow(reason="starts workers in processes of their own")
def test_with_xdist(project: pytest.Pytester) -> None:
    """The rows of all workers are in one table, and runs of one plan do not get into each other's
    way."""
    for number in range(4):
        scenario(project, name=f"s{number}")
    scenario(project, SURPRISING, "surprise")
    result = project.runpytest_subprocess(*ON_MODEL, "-n", "2")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.re_match_lines([rf" s{number} +model +\S+ +as expected" for number in range(4)])
    assert (runs_dir() / "surprise" / LATEST).exists()


def test_select_and_stop(project: pytest.Pytester) -> None:
    """-k and -x are pytest's own."""
    for name in ("one", "other"):
        scenario(project, SURPRISING, name)
    project.runpytest(*ON_MODEL, "-k", "other").assert_outcomes(failed=1, deselected=1)
    project.runpytest(*ON_MODEL, "-x").assert_outcomes(failed=1)


def test_keep_run(project: pytest.Pytester) -> None:
    """Then as expected is kept too."""
    scenario(project)
    project.runpytest(*ON_MODEL, "--keep-run").assert_outcomes(passed=1)
    assert (runs_dir() / "small" / LATEST).exists()


def test_a_fault_of_ours_shows_where_its_evidence_lies(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the table, and no run lost."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    # By the module that was imported with this file: an inner session forgets those that it loads.
    monkeypatch.setattr(execution, "judge", fail)
    scenario(project)
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    text = output(result)
    assert "this is a fault of meshwake: ZeroDivisionError: by zero" in text
    assert f"evidence: {runs_dir()}" in text


# --- The fixture


MY_WEEK = """
import pytest

def test_my_week(mesh):
    mesh.run(hours=15)
    mesh.suspend(hours=8)
    mesh.run(hours=16)
    assert mesh.outages() == []
    mesh.suspend(hours=8)
    mesh.run(hours=24)
    assert [round(outage["from_world_s"] / 3600) for outage in mesh.outages()] == [56]
    assert mesh.findings()["traffic_flows"].verdict == "BROKEN"
    assert mesh.renewals()[0]["done_world_s"] == 43140
"""


def test_a_timeline_written_in_python(project: pytest.Pytester) -> None:
    """The numbers measured on a real ztunnel: the third day breaks, 55 h 58 min after the start.
    Nothing is kept."""
    project.makepyfile(MY_WEEK)
    project.runpytest(*ON_MODEL).assert_outcomes(passed=1)
    assert not runs_dir().exists()


def test_every_fault_can_be_written(project: pytest.Pytester) -> None:
    """A pause, a step, a freeze, a restart and an outage of the authority, in a world of one's
    own."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.mesh(lifetime="10m", every="1m")
        def test_story(mesh):
            mesh.run(minutes=30)
            mesh.pause(minutes=17, corrected_after_s=25)
            mesh.run(hours=1)
            late_s = [renewal["late_s"] for renewal in mesh.renewals() if renewal["done_world_s"]]
            assert round(late_s[-1]) == 1020
            mesh.restart()
            mesh.run(minutes=10)
            mesh.freeze(minutes=2)
            mesh.step(seconds=1)
            mesh.ca_outage(seconds=20)
            mesh.run(minutes=10)
            assert mesh.findings()["clock_fault_happened"].verdict == "HOLDS"
            late_s = [renewal["late_s"] for renewal in mesh.renewals() if renewal["done_world_s"]]
            assert late_s[-1] < 300
        """
    )
    project.runpytest(*ON_MODEL).assert_outcomes(passed=1)


def test_a_world_of_several_machines(project: pytest.Pytester) -> None:
    """Nodes, a gateway, positional text and numbers; a fault is of one node, or of all."""
    project.makepyfile(
        """
        def test_one_sleeps(mesh):
            mesh.node("east", "default/client")
            mesh.node("west", "default/server")
            mesh.run("2h")
            mesh.suspend("20h", node="west")  # the authority sleeps with the first node
            mesh.run(172_800)
            nodes = {renewal["node"] for renewal in mesh.renewals() if renewal["late_s"]}
            assert nodes == {"west"}
            assert repr(mesh) == "<mesh test_one_sleeps: 1 fault in 2d22h>"

        def test_all_sleep(mesh):
            mesh.node("east", "default/client")
            mesh.node("west", "default/server")
            mesh.run(7_200)
            mesh.suspend(72_000.0)
            mesh.run("2d")
            nodes = {renewal["node"] for renewal in mesh.renewals() if renewal["late_s"]}
            assert nodes == {"east", "west"}

        def test_a_gateway(mesh):
            mesh.gateway("ingress", "istio-ingress/gateway")
            mesh.connect("istio-ingress/gateway", "default/server")
            mesh.run("2h")
            mesh.suspend("30h")
            mesh.run("2d")
            assert ["istio-ingress/gateway", "default/server"] in [
                each["pair"] for each in mesh.outages()
            ]
        """
    )
    project.runpytest(*ON_MODEL).assert_outcomes(passed=3)


def test_a_scenario_in_the_fixture(project: pytest.Pytester) -> None:
    """By its name or file, with another fix; it has a timeline of its own."""
    scenario(project, small(('lasts = "8h"', 'lasts = "20h"')))
    project.makepyfile(
        """
        import pytest
        from meshwake.core.errors import BadInput

        def test_guarded(mesh):
            mesh.scenario("scenarios/small.toml")
            mesh.assert_broken("recovers_within")
            mesh.fix("wake-guard")
            mesh.assert_holds("recovers_within")
            with pytest.raises(BadInput, match="has a timeline of its own"):
                mesh.run("1h")
        """
    )
    project.runpytest(*ON_MODEL, "test_a_scenario_in_the_fixture.py").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "lifetme='10m'",
            "expected one of lifetime, backdate, every, fix; did you mean 'lifetime'",
        ),
        ("fix='wake-gard'", "did you mean 'wake-guard'"),
        ("lifetime=10", "read 10: expected a duration such as '10m'"),
        ("'10m'", "without a name: expected one of lifetime"),
    ],
)
def test_a_mistake_in_the_marker_names_the_allowed_words(
    project: pytest.Pytester, words: str, message: str
) -> None:
    """Without a traceback of ours."""
    project.makepyfile(f"import pytest\n@pytest.mark.mesh({words})\ndef test_it(mesh):\n    pass\n")
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(errors=1)
    assert message in output(result)
    assert "Traceback" not in output(result) and "fixture.py" not in output(result)


def test_hypothesis_draws_timelines(project: pytest.Pytester) -> None:
    """A new mesh for each example, by the fixture and without; no run of them is kept."""
    project.makepyfile(
        """
        from hypothesis import given, settings
        from meshwake.testing import Timeline, new_mesh as make, timelines

        FEW = settings(max_examples=3, deadline=None, database=None)

        @given(timelines(kinds=("suspend", "restart"), moves_max=2))
        @FEW
        def test_the_guard_recovers(new_mesh, timeline: Timeline):
            mesh = new_mesh(fix="wake-guard")
            mesh.run("1h")
            mesh.play(timeline)
            mesh.run("2d")
            mesh.assert_holds("recovers_within")
            assert mesh.findings()["clock_fault_happened"].verdict == "HOLDS"

        @given(timelines(moves_max=3))
        @FEW
        def test_every_timeline_can_be_played(timeline: Timeline):
            mesh = make(lifetime="2h")
            mesh.run("1h")
            mesh.play(timeline)
            mesh.run("2d")
            assert len(mesh.findings()) == 10
        """
    )
    project.runpytest(*ON_MODEL).assert_outcomes(passed=2)
    assert not runs_dir().exists()


def test_the_examples_of_the_page_run(project: pytest.Pytester) -> None:
    """Each block is a module."""
    blocks = re.findall(
        r"```python\n(.*?)```", (DOCS / "pytest.md").read_text(encoding="utf-8"), re.DOTALL
    )
    project.makepyfile(**{f"test_block_{number}": code for number, code in enumerate(blocks)})
    count = sum(code.count("def test_") for code in blocks)
    assert count >= 7
    project.runpytest(*ON_MODEL).assert_outcomes(passed=count)


def test_pages_of_tests_with_the_fixture(project: pytest.Pytester) -> None:
    """One for each, with what the test asserted as its expectations."""
    project.makepyfile(
        """
        def test_broken(mesh):
            mesh.run("15h")
            mesh.suspend("20h")
            mesh.run("2d")
            mesh.assert_broken("traffic_flows")

        def test_wrong(mesh):
            mesh.run("1d")
            mesh.assert_broken("traffic_flows")
        """
    )
    result = project.runpytest(*ON_MODEL, "--meshwake-report", "pages", "--junitxml", "out.xml")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [r" test_broken +model .*as expected", r" test_wrong +model .*surprise", "report: pages/"]
    )
    pages = sorted(path.name.split("-")[0] for path in Path("pages").glob("test_*.html"))
    assert pages == ["test_broken", "test_wrong"]
    assert "test_broken" in Path("pages/junit.xml").read_text(encoding="utf-8")


def test_mistakes_name_the_option_that_was_typed(pytester: pytest.Pytester) -> None:
    """With the prefix, where the short names are not there; before anything runs."""
    pytester.makeconftest('pytest_plugins = ["meshwake.pytest_plugin"]')
    pytester.makeini("[pytest]\naddopts = -p no:hypothesispytest\n")
    result = pytester.runpytest("--meshwake-lab", "modle")
    result.stderr.fnmatch_lines(["ERROR: invalid value 'modle' for --meshwake-lab: *"])
    pytester.path.joinpath("file").touch()
    result = pytester.runpytest("--meshwake-report", "file/pages")
    result.stderr.fnmatch_lines(["ERROR: --meshwake-report file/pages: cannot be written *"])


def test_junit_of_pytest_says_what_happened(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As properties that people can read, and as annotations of a GitHub job."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    scenario(project, SURPRISING)
    result = project.runpytest(*ON_MODEL, "--junitxml", "out.xml")
    tree = ET.fromstring(Path("out.xml").read_bytes())  # noqa: S314  made just now
    listed = {each.get("name"): each.get("value", "") for each in tree.iter("property")}
    assert listed["headline"].startswith("BROKEN: ")
    assert "a regression" in listed["judged"]
    assert listed["repeat"].startswith("meshwake run scenarios/small.toml --lab model")
    (failure,) = tree.iter("failure")
    assert failure.get("message", "").startswith("BROKEN: ")
    result.stdout.fnmatch_lines(["::error file=scenarios/small.toml,title=*::BROKEN: *"])


@pytest.mark.slow(reason="starts another Python")
def test_little_is_imported_until_it_is_used(project: pytest.Pytester) -> None:
    """In a project that has the plugin installed and no scenario."""
    project.makepyfile(
        """
        import sys

        def test_nothing_of_ours_is_there():
            heavy = {"pydantic", "cryptography", "hypothesis", "typer", "meshwake.core.plan"}
            assert not heavy & set(sys.modules)
        """
    )
    result = project.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_evidence_of_a_failed_story_is_kept(project: pytest.Pytester) -> None:
    """The last run of it, and pytest says where."""
    project.makepyfile(
        """
        def test_story(mesh):
            mesh.run(hours=30)
            mesh.outages()
            mesh.suspend(hours=40)
            mesh.run(hours=2)
            assert mesh.outages() == []
        """
    )
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    runs = [path for path in (runs_dir() / "test_story").iterdir() if path.name != LATEST]
    assert len(runs) == 1
    assert f"evidence: {runs[0]}" in output(result)


def test_an_impossible_story_is_refused(project: pytest.Pytester) -> None:
    """A step at the very end has no time to show: the reader of scenarios says so. What is shown
    ends with the line of the test."""
    project.makepyfile(
        "def test_story(mesh):\n    mesh.run(hours=1)\n    mesh.step(hours=1)\n    mesh.outages()\n"
    )
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    shown = output(result)
    assert "begins after the end" in shown
    assert re.search(r"^> +mesh\.outages\(\)$", shown, re.MULTILINE)
    assert "pydantic" not in shown
    assert "model_validate" not in shown


@pytest.mark.parametrize(
    "content",
    [
        small().encode("utf-16"),  # as PowerShell's > writes it
        small(("[[fault]]", "[[fautl]]")).encode(),
        small(("[[node]]", "[[node]")).encode(),
    ],
)
def test_no_scenario_is_left_out_in_silence(content: bytes, project: pytest.Pytester) -> None:
    """Below a directory of scenarios: what `meshwake run` reads is run, and what it refuses is an
    error."""
    scenario(project).write_bytes(content)
    outcomes = project.runpytest(*ON_MODEL).parseoutcomes()
    assert outcomes in ({"passed": 1}, {"error": 1}, {"errors": 1})


def test_the_summary_names_options_as_they_are_typed_here(pytester: pytest.Pytester) -> None:
    """With the prefix, where a project has not switched it off; and so does a reason to skip."""
    pytester.makeini("[pytest]\naddopts = -p meshwake.pytest_plugin -p no:hypothesispytest\n")
    write(pytester.path / "scenarios", small())
    shown = output(pytester.runpytest("--meshwake-lab", "model"))
    assert "none was kept; --meshwake-keep-run keeps every run" in shown
    shown = output(pytester.runpytest("--meshwake-lab", "kind", "-rs"))
    assert not re.search(r"(?<!meshwake run)(?<!-meshwake) --lab\b", shown)


@pytest.mark.parametrize(
    ("story", "message"),
    [
        ("mesh.run(hours=-1)", "for duration: expected more than 0"),
        ("mesh.run('0s')", "for duration: expected more than 0"),
        ("mesh.suspend(hours='8')", "hours='8': expected a number of each, as in hours=8"),
        ("mesh.suspend(hours=float('nan'))", "hours=nan: expected a number of each"),
        ("mesh.assert_holds('traffic_flows')", "has no timeline yet; call mesh.run('8h') before"),
    ],
)
def test_a_mistake_in_a_story_is_named(story: str, message: str, project: pytest.Pytester) -> None:
    """At its line, and never by a TypeError from within."""
    project.makepyfile(f"def test_it(mesh):\n    {story}\n")
    result = project.runpytest(*ON_MODEL)
    result.assert_outcomes(failed=1)
    assert re.search(rf"BadInput: .*{re.escape(message)}", output(result))

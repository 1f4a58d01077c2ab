from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.core import versions
from meshwake.core.errors import (
    BadInput,
    ExitCode,
    HarnessError,
    HarnessFault,
    LabUnavailable,
    SubjectFailed,
)
from meshwake.core.history import Recorder
from meshwake.core.outcome import OutcomeKind
from meshwake.core.plan import Case, Plan
from meshwake.core.scenario import Scenario, parse_scenario, read_scenario
from meshwake.core.store import runs_dir
from meshwake.fixes.jobs import read_tasks
from meshwake.labs import Toolbox, load_lab
from meshwake.runner import execution, pipeline
from meshwake.runner.pipeline import (
    Ending,
    Options,
    Suite,
    check_run,
    choose,
    most_serious,
    run_case,
    run_suite,
)
from meshwake.ztunnel import binaries

from tests.unit.worlds import SMALL, SURPRISING, UNKNOWN, small, write
from tests.unit.ztunnel.test_binaries import put

BOTH_LABS = small(('["model"]', '["model", "process"]'))
ON_MODEL = Options(lab="model")


def scenario_of(text: str = SMALL, path: str = "small.toml") -> Scenario:
    return parse_scenario(text, path, "small")


def case_of(text: str = SMALL, options: Options = ON_MODEL) -> Case:
    return choose(scenario_of(text), options)[0]


class FakeLab:
    """A lab that can do everything, or lacks what it is told to lack, or falls over as it is told
    to."""

    def __init__(self, missing: list[str] | None = None, refusals: list[str] | None = None) -> None:
        self._missing, self._refusals = missing or [], refusals or []
        self.error: BaseException | None = None

    def missing(self, ztunnel: Path | None) -> list[str]:
        return self._missing

    def refusals(self, plan: Plan) -> list[str]:
        return self._refusals

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        if self.error is not None:
            raise self.error
        load_lab("model").run(plan, toolbox, recorder)


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeLab], None]:
    """Puts a fake in the place of the process lab (on whatever system), and the model stays."""

    def use(fake: FakeLab) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        for module in (pipeline, execution):
            monkeypatch.setattr(
                module, "load_lab", lambda name: fake if name == "process" else load_lab(name)
            )

    return use


# --- Choosing


def test_auto_is_the_real_binary_when_there_is_one(
    empty_cache: Path, labs: Callable[[FakeLab], None]
) -> None:
    """The newest binary of the cache is taken, and the case says so."""
    labs(FakeLab())
    put(empty_cache, "1.28.0")
    path = put(empty_cache, "1.30.1")
    case = case_of(BOTH_LABS, Options())
    assert (case.id, case.ztunnel) == ("small[process-1.30.1]", path)
    assert case.chosen_because == "process: ztunnel 1.30.1 in the cache"


@pytest.mark.usefixtures("empty_cache")
def test_auto_is_the_model_without_a_binary(labs: Callable[[FakeLab], None]) -> None:
    """The newest release then, and where to put a binary."""
    labs(FakeLab())
    case = case_of(BOTH_LABS, Options())
    assert (case.lab, case.version) == ("model", versions.newest().version)
    assert case.chosen_because.startswith("model: no ztunnel binary (put one at ")


@pytest.mark.usefixtures("empty_cache")
def test_auto_with_a_version_that_is_not_in_the_cache(labs: Callable[[FakeLab], None]) -> None:
    """The model of the version asked for, and the very path where a binary would be found."""
    labs(FakeLab())
    case = case_of(BOTH_LABS, Options(istio=("1.27.9",)))
    assert (case.lab, case.version, case.behaviour_class) == ("model", "1.27.9", "C")
    assert f"for 1.27.9 (put one at {binaries.place_of('1.27.9')}" in case.chosen_because


def test_auto_falls_back_with_the_reason(
    empty_cache: Path, labs: Callable[[FakeLab], None]
) -> None:
    """What the machine lacks, what the lab cannot do, what the scenario does not name: each is
    told."""
    put(empty_cache, "1.30.1")
    labs(FakeLab(missing=["no right to make namespaces; run sysctl"]))
    assert (
        case_of(BOTH_LABS, Options()).chosen_because
        == "model: no right to make namespaces; run sysctl"
    )
    labs(FakeLab(refusals=["fault 0: no suspend here"]))
    assert case_of(BOTH_LABS, Options()).chosen_because == "model: fault 0: no suspend here"
    assert (
        case_of(SMALL, Options()).chosen_because == "model: the scenario names only model in 'labs'"
    )


def test_auto_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """Elsewhere the process lab is not even imported."""
    put(empty_cache, "1.30.1")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert case_of(BOTH_LABS, Options()).chosen_because == "model: the process lab needs Linux"


def test_a_lab_that_was_asked_for_is_never_replaced(labs: Callable[[FakeLab], None]) -> None:
    """`--lab process` where it cannot run is a refusal, not a run on the model."""
    labs(FakeLab(missing=["no user namespaces"]))
    case = case_of(BOTH_LABS, Options(lab="process"))
    assert case.lab == "process"
    assert case.refusal is not None
    with pytest.raises(LabUnavailable):
        run_case(case, Options(lab="process"))


def test_one_case_per_version() -> None:
    """`--istio` twice makes two cases, the same version twice makes one."""
    cases = choose(scenario_of(), Options(lab="model", istio=("1.27.9", "1.28.0", "1.27.9")))
    assert [case.id for case in cases] == ["small[model-1.27.9]", "small[model-1.28.0]"]


def test_expectations_are_those_of_the_version() -> None:
    """A row that does not cover the version is not in the plan."""
    text = small(('verdict = "holds"', 'verdict = "holds"\nversions = ">=1.28"'))
    assert case_of(text, Options(lab="model", istio=("1.27.9",))).expectations == ()
    assert len(case_of(text, Options(lab="model", istio=("1.28.0",))).expectations) == 1


def test_an_unknown_lab_has_a_nearest_word() -> None:
    """A typing error is bad input."""
    with pytest.raises(BadInput, match="did you mean 'process'"):
        choose(scenario_of(), Options(lab="proces"))


# --- A binary that is given


def given(monkeypatch: pytest.MonkeyPatch, own_version: str | None, **options: object) -> Case:
    path = Path("/some/ztunnel")
    identity = binaries.Identity(path, own_version, "version.BuildInfo{...}", "0" * 64)
    monkeypatch.setattr(binaries, "identify", lambda _: identity)
    return case_of(BOTH_LABS, Options(ztunnel=path, **options))  # type: ignore[arg-type]  # options of many types


def test_a_given_binary_runs_on_the_process_lab(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """It names its own version; nobody gives a binary in order to run a model."""
    labs(FakeLab())
    case = given(monkeypatch, "1.28.0")
    assert (case.lab, case.version, case.refusal) == ("process", "1.28.0", None)
    assert case.chosen_because.endswith("ztunnel 1.28.0 given with --ztunnel /some/ztunnel")


def test_a_binary_that_does_not_know_itself(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """Its owner must say which release it was built from."""
    labs(FakeLab())
    with pytest.raises(BadInput, match="say which release it was built from: --istio VERSION"):
        given(monkeypatch, None)
    assert given(monkeypatch, None, istio=("1.30.1",)).version == "1.30.1"


def test_a_binary_that_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """A release that is called by another's name is refused; a development build may be called by
    the nearest."""
    labs(FakeLab())
    with pytest.raises(BadInput, match=r"says it is 1\.28\.0, --istio says 1\.27\.9"):
        given(monkeypatch, "1.28.0", istio=("1.27.9",))
    with pytest.raises(
        BadInput, match="has no row in clusters/versions.toml; say which release it is nearest to"
    ):
        given(monkeypatch, "1.30.99")
    assert given(monkeypatch, "1.30.99", istio=("1.31.0-rc.0",)).version == "1.31.0-rc.0"
    assert given(monkeypatch, "1.99.0").version == "1.99.0", (
        "newer than the table: it runs under its own name"
    )


def test_a_binary_and_the_model_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do one binary and two versions."""
    with pytest.raises(BadInput, match="lab model runs no binary"):
        given(monkeypatch, "1.28.0", lab="model")
    with pytest.raises(BadInput, match="cannot be 2 versions"):
        given(monkeypatch, "1.28.0", istio=("1.28.0", "1.27.9"))


# --- Manifests


def test_a_manifest_is_read_beside_the_scenario_or_in_the_repository(tmp_path: Path) -> None:
    """The text of the user's own manifest is in the plan."""
    fix = '[fix]\nname     = "weekly-restart"\nmanifest = "{}"\n\n[[expect]]'
    (tmp_path / "mine.yaml").write_text("kind: CronJob")
    beside = small(("[[expect]]", fix.format("mine.yaml")))
    chooser = pipeline.Chooser(Options(lab="model"))
    assert (
        pipeline._read_manifest(scenario_of(beside, str(tmp_path / "small.toml")))
        == "kind: CronJob"
    )
    in_repository = small(("[[expect]]", fix.format("clusters/fixes/weekly-restart/cronjob.yaml")))
    assert "CronJob" in str(chooser.cases(scenario_of(in_repository))[0].manifest)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_powershell_wrote_is_read(encoding: str, tmp_path: Path) -> None:
    """`meshwake import-sleep ... > mine.toml` and `kubectl get cronjob -o yaml > mine.yaml` make
    UTF-16 there."""
    text = (Path("clusters/fixes/daily-restart/cronjob.yaml")).read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    fix = '[fix]\nname     = "daily-restart"\nmanifest = "mine.yaml"\n\n[[expect]]'
    scenario = SMALL.replace("[[expect]]", fix, 1)
    (tmp_path / "mine.toml").write_bytes(scenario.replace("\n", "\r\n").encode(encoding))
    read = read_scenario(tmp_path / "mine.toml")
    manifest = pipeline._read_manifest(read)
    assert manifest is not None and read_tasks(manifest) == read_tasks(text)


@pytest.mark.parametrize("name", ["x" * 5_000, "folder", "nowhere.yaml", "\\0"])
def test_a_manifest_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    """Exit code 3, also where the kernel itself refuses the name."""
    (tmp_path / "folder").mkdir()
    fix = f'[fix]\nname     = "daily-restart"\nmanifest = "{name}"\n\n[[expect]]'
    with pytest.raises(BadInput):
        pipeline._read_manifest(
            scenario_of(SMALL.replace("[[expect]]", fix, 1), str(tmp_path / "small.toml"))
        )


# --- Running


def test_as_expected_leaves_nothing_behind() -> None:
    """Unless it was asked for."""
    saved = run_case(case_of(), ON_MODEL)
    assert saved.outcome.kind is OutcomeKind.AS_EXPECTED
    assert not saved.kept
    assert not runs_dir().exists()


@pytest.mark.parametrize(
    ("text", "kind"), [(SURPRISING, OutcomeKind.SURPRISE), (UNKNOWN, OutcomeKind.UNKNOWN)]
)
def test_a_surprise_and_an_unknown_are_kept(text: str, kind: OutcomeKind) -> None:
    """With everything that is needed to judge them again."""
    saved = run_case(case_of(text), ON_MODEL)
    assert saved.outcome.kind is kind
    assert sorted(path.name for path in saved.directory.path.iterdir()) == [
        "history.jsonl",
        "logs",
        "plan.json",
        "result.json",
    ]


def test_judged_again_it_says_the_same() -> None:
    """`meshwake check` of a run made today."""
    saved = run_case(case_of(SURPRISING), ON_MODEL)
    again = check_run(saved.directory.path)
    assert again.outcome == saved.outcome
    assert again.result == saved.result


def test_same_seed_same_bytes() -> None:
    """Two runs of one plan on the model have the same history, byte for byte."""
    options = Options(lab="model", keep_run=True)
    one, two = (
        run_case(case_of(SURPRISING, options), options).directory.history.read_bytes()
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(
    "error", [SubjectFailed("ztunnel ended with 101"), HarnessFault("the world was not quiet")]
)
def test_evidence_of_a_failure_is_kept(
    error: HarnessError, labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """Whoever must act finds the logs."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = error
    labs(fake)
    with pytest.raises(type(error)) as raised:
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert raised.value.evidence is not None
    assert raised.value.evidence.is_dir()


def test_an_unforeseen_error_is_a_fault_of_ours(
    labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """It ends as exit 5, with its traceback in the directory of the run."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = ZeroDivisionError("by zero")
    labs(fake)
    with pytest.raises(
        HarnessFault, match="this is a fault of meshwake: ZeroDivisionError: by zero"
    ) as raised:
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert raised.value.evidence is not None
    assert "ZeroDivisionError" in (raised.value.evidence / "logs" / "traceback.txt").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LabUnavailable("port 15008 is taken")])
def test_nothing_is_left_when_nothing_was_learned(
    error: BaseException, labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """After ^C, and where the lab could not start."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = error
    labs(fake)
    with pytest.raises(type(error)):
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert not runs_dir().exists()


def test_a_suite_reads_everything_before_it_runs_anything(tmp_path: Path) -> None:
    """A bad file among good ones: all bad ones are named, and nothing has run."""
    write(tmp_path, name="good")
    for name in ("bad", "worse"):
        write(tmp_path, "title = 1", name)
    with pytest.raises(BadInput) as refused:
        run_suite(Suite((tmp_path,), Options(lab="model", keep_run=True)))
    assert "bad.toml" in str(refused.value)
    assert "worse.toml" in str(refused.value)
    assert not runs_dir().exists()


def test_an_error_ends_its_own_case_only(tmp_path: Path) -> None:
    """A refused case does not keep the others from running; the most serious decides."""
    write(tmp_path, small(('["model"]', '["process"]')), "elsewhere")
    write(tmp_path, SURPRISING, "surprising")
    suite = run_suite(Suite((tmp_path,), Options(lab="model")))
    codes = [ending.exit_code for ending in suite.endings]
    assert codes == [ExitCode.LAB_UNAVAILABLE, ExitCode.SURPRISE]
    assert most_serious(codes) is ExitCode.LAB_UNAVAILABLE


def test_the_most_serious_of_all() -> None:
    """5 before 3, 4, 1, 2 and 0."""
    codes = list(ExitCode)
    order = []
    while codes:
        order.append(most_serious(codes))
        codes.remove(order[-1])
    assert [int(code) for code in order] == [5, 3, 4, 1, 2, 0]
    assert Ending(case_of()).exit_code is ExitCode.HARNESS_FAULT


def test_a_directory_without_scenarios_is_refused(tmp_path: Path) -> None:
    """Nothing judged is no pass."""
    with pytest.raises(BadInput, match="holds no scenario"):
        run_suite(Suite((tmp_path,), Options()))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            'versions = ">=1.99"',
            "expect[0].versions: '>=1.99' covers no release of clusters/versions.toml",
        ),
        ('versions = ">=1.28"\nuntil = "1.20"', "'>=1.28' until 1.20 covers no release"),
        ('until = "next"', "expect[0].until: read 'next': is no version"),
    ],
)
def test_an_expectation_about_no_release_is_refused(rows: str, words: str, tmp_path: Path) -> None:
    """A typing error in a range would never be noticed otherwise."""
    path = write(tmp_path, small(('because = "', f'{rows}\nbecause = "')))
    with pytest.raises(BadInput, match=re.escape(words)):
        choose(read_scenario(path), Options(lab="model"))


def test_an_expectation_ends_before_until(tmp_path: Path) -> None:
    """From that release on another row is the truth."""
    later = (
        '[[expect]]\ncheck = "traffic_flows"\nverdict = "broken"\nversions = '
        '">=1.28.0"\nbecause = "it is so"\n'
    )
    path = write(tmp_path, small(('because = "', 'until = "1.28.0"\nbecause = "')) + later)
    options = Options(lab="model", istio=("1.27.9", "1.28.0"))
    cases = choose(read_scenario(path), options)
    assert [[row.verdict for row in case.expectations] for case in cases] == [["holds"], ["broken"]]

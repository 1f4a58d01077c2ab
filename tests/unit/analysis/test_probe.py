"""`git bisect run meshwake probe` over repositories that the tests make. A commit is a program: a
file that the build makes and that names how it behaves. With the model it is a behaviour class, run
for real; with binaries a ztunnel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from meshwake.analysis.attempt import Attempt
from meshwake.analysis.probe import CommitProbe, GitVerdict, clean_commit, probe_commit
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput
from meshwake.core.outcome import Verdict
from meshwake.core.versions import newest
from meshwake.labs import load_lab
from meshwake.runner.corpus import scenario_file
from meshwake.runner.options import Options
from meshwake.ztunnel import binaries

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")

# What `meshwake probe` is made of, with a lab that the build result chooses: a class of the model.
PROBER = """\
import sys
from pathlib import Path
from meshwake.analysis.probe import CommitProbe, probe_commit
from meshwake.analysis.classify import experiment
from meshwake.runner.corpus import scenario_file

FIRST = {"C": "1.24.0", "D": "1.28.0"}

def ask(binary, seed):
    word = binary.read_text().strip()
    if word == "flaky":
        word = "CD"[seed % 2]
    return experiment("ca_away_at_renewal", "model")(FIRST[word], seed)

question = CommitProbe(
    Path.cwd(), scenario_file("ca_away_at_renewal"), "valid_certificate_kept", Path("built"), "sh build.sh"
)
answer = probe_commit(question, ask, lambda text: print(text, file=sys.stderr))
print(answer.commit[:8], answer.verdict.name, answer.because)
sys.exit(answer.verdict)
"""


def git(repository: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONPATH": str(REPOSITORY / "harness"),
        **{name: value for name, value in os.environ.items() if name.startswith("MESHWAKE")},
        **{
            f"GIT_{who}_{what}": "tester"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    command = ["git", "-C", str(repository), *words]
    return subprocess.run(command, capture_output=True, text=True, check=check, env=environment)


def repository_of(directory: Path, programs: list[str]) -> list[str]:
    """A repository with a commit for each build script; returns the commits, oldest first."""
    git(directory, "init", "-q", "-b", "main")
    (directory / ".gitignore").write_text("built\n")
    commits = []
    for number, program in enumerate(programs):
        (directory / "build.sh").write_text(f"# {number}\n{program}\n")
        git(directory, "add", ".gitignore", "build.sh")
        git(directory, "commit", "-q", "-m", f"{number}")
        commits.append(git(directory, "rev-parse", "HEAD").stdout.strip())
    return commits


def bisect(repository: Path, old: str, new: str, *run: str) -> str:
    """What `git bisect run` printed."""
    git(repository, "bisect", "start", "--term-old=broken", "--term-new=mended", new, old)
    return git(repository, "bisect", "run", *run, check=False).stdout


FAULTY, MENDED, FLAKY = (f"echo {word} >built" for word in ("C", "D", "flaky"))
NO_BUILD = "echo 'error[E0308]: mismatched types' >&2; exit 101"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    return place


@pytest.mark.slow(reason="git starts a Python for each commit")
def test_git_bisect_finds_the_commit_and_skips_what_cannot_say(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits with and without the fault, one that does not build, one that is flaky: the first
    without the fault."""
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    programs = [FAULTY, FAULTY, FAULTY, NO_BUILD, FAULTY, MENDED, FLAKY, MENDED, MENDED, MENDED]
    commits = repository_of(repository, programs)
    prober = tmp_path / "prober.py"
    # git's own words are old and new; "good" of the check is what the newer commits are.
    prober.write_text(
        PROBER.replace(
            "sys.exit(answer.verdict)", "sys.exit({0: 1, 1: 0}.get(answer.verdict, 125))"
        )
    )
    output = bisect(repository, commits[0], commits[-1], sys.executable, str(prober))
    assert f"{commits[5]} is the first mended commit" in output
    # Which commits git asks is its own affair; those that cannot say are skipped whenever it does.
    assert (
        f"{commits[3][:8]} CANNOT_SAY it does not build" in output or commits[3][:8] not in output
    )
    assert f"{commits[6][:8]} CANNOT_SAY flaky: BROKEN with seed 0, HOLDS with seed 1" in output
    kept = list((tmp_path / "cache" / "probe").glob("*.json"))
    assert kept
    assert {json.loads(path.read_text())["verdict"] for path in kept} <= {0, 1}


def question(repository: Path, command: str | None = "sh build.sh", repeat: int = 2) -> CommitProbe:
    scenario = scenario_file("ca_away_at_renewal")
    return CommitProbe(
        repository, scenario, "valid_certificate_kept", Path("built"), command, repeat=repeat
    )


def say(verdict: Verdict, other: Verdict | None = None) -> list[Verdict]:
    return [verdict, other or verdict]


@pytest.mark.parametrize(
    ("verdicts", "verdict", "words"),
    [
        (say(Verdict.HOLDS), GitVerdict.GOOD, "as a test says"),
        (say(Verdict.BROKEN), GitVerdict.BAD, "as a test says"),
        (say(Verdict.UNKNOWN), GitVerdict.CANNOT_SAY, "UNKNOWN: as a test says"),
        (
            say(Verdict.HOLDS, Verdict.BROKEN),
            GitVerdict.CANNOT_SAY,
            "flaky: HOLDS with seed 0, BROKEN with seed 1",
        ),
        (
            say(Verdict.HOLDS, Verdict.UNKNOWN),
            GitVerdict.CANNOT_SAY,
            "flaky: HOLDS with seed 0, UNKNOWN with seed 1",
        ),
    ],
)
def test_each_answer_has_its_word(
    verdicts: list[Verdict], verdict: GitVerdict, words: str, repository: Path, empty_cache: Path
) -> None:
    """0, 1, 125; UNKNOWN is neither good nor bad, and neither is what differs from run to run."""
    repository_of(repository, [FAULTY])
    answer = probe_commit(
        question(repository), lambda path, seed: Attempt("", seed, verdicts[seed], "as a test says")
    )
    assert (answer.verdict, answer.because) == (verdict, words)


def test_what_does_not_build_cannot_say(repository: Path, empty_cache: Path) -> None:
    """With the compiler's last words; so does a build that leaves no program."""
    repository_of(repository, [NO_BUILD, "true"])

    def never(path: Path, seed: int) -> Attempt:
        raise AssertionError("nothing was built")

    assert "the build left no built" in probe_commit(question(repository), never).because
    git(repository, "checkout", "-q", "HEAD~1")
    answer = probe_commit(question(repository), never)
    assert answer.verdict is GitVerdict.CANNOT_SAY
    assert "ended with 101: error[E0308]: mismatched types" in answer.because


def test_answers_are_kept_by_what_was_built(repository: Path, empty_cache: Path) -> None:
    """Requested twice, run once, whatever command or commit built it; a kept answer that is damaged
    is measured again."""
    repository_of(repository, [MENDED])
    runs, messages = [], list[str]()

    def ask(path: Path, seed: int) -> Attempt:
        runs.append(seed)
        return Attempt("", seed, Verdict.HOLDS, "")

    assert not probe_commit(question(repository), ask).from_cache
    assert probe_commit(question(repository), ask).from_cache
    assert probe_commit(question(repository, "sh  build.sh"), ask).from_cache, "the same binary"
    assert runs == [0, 1]
    for path in (empty_cache / "probe").iterdir():
        path.write_text('{"verdict": 0, "bec')
    assert not probe_commit(question(repository), ask, messages.append).from_cache
    assert "cannot be read" in messages[0]
    (repository / "build.sh").write_text(MENDED)
    assert clean_commit(repository) == ""
    assert probe_commit(question(repository), ask).commit == ""


def test_another_binary_at_the_same_path_and_commit_is_run_again(
    repository: Path, empty_cache: Path
) -> None:
    """Yesterday's verdict was given to today's build: the commit was the same, what was built was
    not."""
    repository_of(repository, [MENDED])
    ran = []

    def ask(path: Path, seed: int) -> Attempt:
        ran.append(path.read_text())
        return Attempt("", seed, Verdict.HOLDS if path.read_text() == "one" else Verdict.BROKEN, "")

    verdicts = []
    for content in ("one", "another", "one"):
        (repository / "built").write_text(content)
        verdicts.append(probe_commit(question(repository, command=None, repeat=1), ask).verdict)
    assert verdicts == [GitVerdict.GOOD, GitVerdict.BAD, GitVerdict.GOOD]
    assert ran == ["one", "another"]


def test_what_is_not_a_ztunnel_cannot_say(repository: Path, empty_cache: Path) -> None:
    """A build that is something else is one commit's mistake; another wrong input is
    everybody's."""
    repository_of(repository, ["echo hello >built"])

    def identify(path: Path, seed: int) -> Attempt:
        binaries.identify(path)
        raise AssertionError

    answer = probe_commit(question(repository), identify)
    assert answer.verdict is GitVerdict.CANNOT_SAY
    assert "is not a Linux program" in answer.because

    def wrong(path: Path, seed: int) -> Attempt:
        raise BadInput("--istio 1.99: has no row")

    with pytest.raises(BadInput):
        probe_commit(question(repository), wrong)


@pytest.mark.slow(reason="starts the program three times")
def test_a_wrong_question_stops_git_bisect(repository: Path, empty_cache: Path) -> None:
    """128 and more, at which git stops: else a typing error would make every commit bad."""
    words = [sys.executable, "-m", "meshwake", "probe"]
    for more in (
        ["ca_away_at_renewal", "--check", "traffic_flow", "--binary", "built"],
        ["no_such_scenario", "--check", "traffic_flows", "--binary", "built"],
        ["ca_away_at_renewal", "--check", "traffic_flows", "--binary", "built", "--no-such-option"],
    ):
        done = subprocess.run(
            [*words, *more], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 131, done.stderr


@pytest.mark.slow(reason="runs real ztunnels")
def test_git_bisect_over_real_ztunnels(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same with the command itself and binaries of two releases as what commits build."""
    found = [binaries.find(version) for version in ("1.27.9", "1.28.0")]
    if found[0] is None or found[1] is None:
        pytest.skip(
            "no ztunnel 1.27.9 and 1.28.0 in the cache (meshwake doctor says where it belongs)"
        )
    if reasons := load_lab("process").missing(found[0].path):
        pytest.skip(reasons[0])
    old, new = (f"cp {binary.path} built" for binary in found if binary)
    commits = repository_of(repository, [old, old, new, NO_BUILD, "cp /bin/true built", new, new])
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    meshwake = (
        f"{sys.executable} -m meshwake probe ca_away_at_renewal --check valid_certificate_kept "
        "--repeat 1"
    )
    script = f'{meshwake} --command "sh build.sh" --binary built --first-good'
    output = bisect(repository, commits[0], commits[-1], "sh", "-c", script)
    assert f"{commits[2]} is the first mended commit" in output
    assert f"{commits[3][:12]}: cannot say: it does not build" in output


@pytest.mark.parametrize(("own", "probed"), [("1.28.0", "1.28.0"), (None, newest().version)])
def test_a_binary_is_probed_as_the_release_that_it_is(
    own: str | None,
    probed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without --istio; an older release than the newest was refused as contradicting it, an option
    that was not typed. A build of one's own is taken for the newest."""

    def signature(options: Options, version: str) -> None:
        raise BadInput(f"probed as {options.istio} {version}")

    monkeypatch.setattr(
        binaries, "identify", lambda path: binaries.Identity(path, own, "", "0" * 64)
    )
    monkeypatch.setattr("meshwake.cli.probe._signature", signature)
    assert run_command(["probe", "--ztunnel", str(tmp_path / "z"), "--lab", "process"]) == 3
    assert f"probed as ('{probed}',) {probed}" in capsys.readouterr().err

"""Programs run as a user without rights, by tests that root runs: most of our users are such, and
no build machine is.

Such a user may not look into root's home, where the interpreter, its libraries and the checkout
often are. So what hides them is covered, in a mount namespace of the program's own, by an empty
directory that anybody may enter, and only what the program needs is shown there. No other process
sees that, and it ends with the program. (unshare, mount and setpriv are of util-linux.)
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.paths import REPOSITORY

NOBODY = 65_534  # the kernel's own uid for users without one (fs.overflowuid)
_TOOLS = ("unshare", "mount", "setpriv")


def refusal() -> str | None:
    """Why nothing can be run as an unprivileged user here, or None."""
    if not sys.platform.startswith("linux"):
        return "users without rights are made by Linux's namespaces here"
    if os.geteuid() != 0:
        return None
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} on PATH (Debian: apt install util-linux mount)"
    tried = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return (
        f"no mount namespace can be made here: {tried.stderr.strip()}" if tried.returncode else None
    )


def run_as_unprivileged_user(
    command: Sequence[str], home: Path, within_s: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`command` in the directory `home`, which becomes the user's own: by the user who runs this,
    or, if that is root, by a user without any right who sees of hidden places only `home`, the
    checkout and this interpreter."""
    home.mkdir(parents=True, exist_ok=True)
    reported = {**os.environ, **environment, "HOME": str(home), "TMPDIR": str(home / "tmp")}
    (home / "tmp").mkdir(exist_ok=True)
    if os.geteuid() != 0:
        return _run(command, home, within_s, reported)
    for place in (home, *home.rglob("*")):
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    without_rights = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        *command,
    ]
    with tempfile.TemporaryDirectory(prefix="meshwake-shown-") as kept:
        script = (
            f"set -e\n{_show([home.resolve(), *_needed()], Path(kept))}\ncd "
            f"{shlex.quote(str(home))}\n"
        )
        script += f"exec {shlex.join(without_rights)}"
        return _run(["unshare", "--mount", "sh", "-c", script], Path("/"), within_s, reported)


def run_scenarios(
    scenarios: Path, ztunnel: Path, version: str, home: Path, within_s: float
) -> subprocess.CompletedProcess[str]:
    """`meshwake run SCENARIOS --json` in lab process by such a user, on a copy of `ztunnel` in its
    home."""
    home.mkdir(parents=True, exist_ok=True)
    own = shutil.copy(ztunnel, home / "ztunnel")
    command = [
        sys.executable,
        "-m",
        "meshwake",
        "run",
        str(scenarios),
        "--lab",
        "process",
        "--json",
    ]
    command += ["--istio", version, "--ztunnel", str(own)]
    return run_as_unprivileged_user(command, home, within_s, MESHWAKE_RUNS=str(home / "runs"))


def _run(
    command: Sequence[str], directory: Path, within_s: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        timeout=within_s,
        capture_output=True,
        text=True,
        check=False,
    )


def _needed() -> list[Path]:
    """What this very interpreter reads: itself, its libraries, and the checkout."""
    places = sorted({Path(place).resolve() for place in (sys.prefix, sys.base_prefix, REPOSITORY)})
    return [place for place in places if not any(other in place.parents for other in places)]


def _show(places: Sequence[Path], kept: Path) -> str:
    """Shell commands: first everything is kept aside, then what hides it is covered, then it is
    restored."""
    hidden = {place: by for place in places if (by := _hidden_by(place))}
    aside = {place: kept / str(number) for number, place in enumerate(hidden)}
    words = [["mkdir", place] for place in aside.values()]
    words += [["mount", "--rbind", place, put] for place, put in aside.items()]
    words += [
        ["mount", "-t", "tmpfs", "-o", "mode=755,size=1m", "none", cover]
        for cover in sorted(set(hidden.values()))
    ]
    words += [["mkdir", "-p", place] for place in hidden]
    words += [["mount", "--move", put, place] for place, put in aside.items()]
    return "\n".join(shlex.join(map(str, each)) for each in words)


def _hidden_by(place: Path) -> Path | None:
    """The uppermost directory above `place` that not everybody may enter, or `place` itself."""
    above = [*reversed(place.parents), place]
    return next((each for each in above if not each.stat().st_mode & stat.S_IXOTH), None)

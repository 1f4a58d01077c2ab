# ruff: noqa: E501  rows of logs stay in one piece
"""What people have at hand, given to whole commands: the answer is worked out from the input, not
read off the program.

What has a home elsewhere is there (journals, fixes, alerts, kubeconfigs); here is what only the end
of a command shows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.paths import REPOSITORY
from tests.unit.fixes.test_cron import job
from tests.unit.importers.test_forms import xml

SAVED = REPOSITORY / "tests" / "data" / "saved"
Says = pytest.CaptureFixture[str]

WORLD = """title    = "{title}"
labs     = ["model"]
duration = "{duration}"
[[node]]
name       = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "{every}"
{faults}
[[expect]]
check   = "recovers_within"
verdict = "holds"
because = "what one hopes for"
"""
NIGHTS = '[[fault]]\nkind = "suspend"\nat = "14h"\nlasts = "{lasts}"\nevery = "24h"\n'


def run(text: str, folder: Path, capsys: Says, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of one run on the model."""
    (folder / "world.toml").write_text(text, encoding="utf-8")
    capsys.readouterr()
    code = run_command(["run", str(folder / "world.toml"), "--lab", "model", "--json", *more])
    out = capsys.readouterr().out
    result = json.loads(out)
    return code, result[0] if isinstance(result, list) else result


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {each["check"]: each["verdict"] for each in result["findings"]}


# --- A clock that is set back just after a renewal ------------------------------------------------


@pytest.mark.parametrize("every", ["1m", "7m", "1h", "12h"])
@pytest.mark.parametrize(("minutes", "verdict"), [(5, "HOLDS"), (9, "BROKEN")])
def test_how_often_clients_connect_makes_no_outage_longer(
    every: str, minutes: int, verdict: str, tmp_path: Path, capsys: Says
) -> None:
    """Dated back by two minutes, the new certificate is not valid for the rest; five minutes of
    that are too long."""
    fault = f'[[fault]]\nkind = "step"\nat = "11h59m5s"\nby = "-{minutes}m"\n'
    _, result = run(
        WORLD.format(title="back", duration="15h", every=every, faults=fault), tmp_path, capsys
    )
    assert verdicts(result)["recovers_within"] == verdict
    lasted = [each["to_world_s"] - each["from_world_s"] for each in result["outages"]]
    assert max(lasted) == pytest.approx((minutes - 2) * 60 - 5, abs=5)


# --- Versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("1.28", None),
        ("v1.28.0", None),
        (" 1.28.0 ", None),
        ("1.28.0-distroless", "1.28.0-distroless"),
        ("1.28.2-solo-fips", "1.28.2-solo-fips"),
        ("latest", "latest"),
        ("sha256:0123", "sha256:0123"),
        ("", "''"),
    ],
)
def test_a_version_as_a_tag_of_an_image_writes_it(
    written: str, message: str | None, tmp_path: Path, capsys: Says
) -> None:
    """Is the release that it means, or refused with what was read."""
    text = WORLD.format(title="nights", duration="3d", every="1h", faults=NIGHTS.format(lasts="9h"))
    (tmp_path / "world.toml").write_text(text)
    code = run_command(
        ["run", str(tmp_path / "world.toml"), "--lab", "model", "--istio", written, "--json"]
    )
    out, err = capsys.readouterr()
    if code == ExitCode.BAD_INPUT:
        assert message is not None and message in out + err
    else:
        assert verdicts(json.loads(out))["recovers_within"] == "BROKEN" and message not in (
            "latest",
            "sha256:0123",
            "''",
        )


# --- Restarted applications -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        ("kubectl rollout restart deployment -n default", "BROKEN"),
        ("kubectl rollout restart deployments -n default", "BROKEN"),
        ("kubectl -n default rollout restart deploy", "BROKEN"),
        ("kubectl rollout restart deploy/client deploy/server -n default", "BROKEN"),
        ("kubectl rollout restart deploy client server -n default", "BROKEN"),
        ("kubectl rollout restart deployments,statefulsets -n default", "BROKEN"),
        ("kubectl rollout restart sts -n default", "BROKEN"),
        ("kubectl delete pods --all -n default", "BROKEN"),
        (
            "kubectl rollout restart deploy -n default; kubectl rollout restart ds/ztunnel -n istio-system",
            "HOLDS",
        ),
        ("kubectl rollout restart deploy/istiod -n istio-system", None),
        ("kubectl rollout restart deploy -n default --dry-run=client", None),
        ("echo kubectl rollout restart deploy -n default", None),
    ],
)
def test_new_pods_of_applications_help_for_a_day(
    command: str, verdict: str | None, tmp_path: Path, capsys: Says
) -> None:
    """ztunnel holds the certificates, and is later every night; what restarts no application is
    refused."""
    (tmp_path / "job.yaml").write_text(job(f'command: [sh, -c, "{command}"]'), encoding="utf-8")
    text = WORLD.format(title="nights", duration="6d", every="1h", faults=NIGHTS.format(lasts="8h"))
    fix = '[fix]\nname = "restart-applications"\nmanifest = "job.yaml"\n[[expect]]'
    code, result = run(text.replace("[[expect]]", fix, 1), tmp_path, capsys)
    assert (None if code == ExitCode.BAD_INPUT else verdicts(result)["recovers_within"]) == verdict


# --- What systems really write about sleep --------------------------------------------------------


def imported(
    content: str, folder: Path, capsys: Says
) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    """The sleeps of a journal in seconds, and what its month does to a mesh."""
    (folder / "journal").write_text(content, encoding="utf-8")
    assert (
        run_command(
            ["import-sleep", str(folder / "journal"), "--output", str(folder / "month.toml")]
        )
        == 0
    )
    _, result = run((folder / "month.toml").read_text(encoding="utf-8"), folder, capsys)
    faults = [(each["kind"], each["asked_s"]) for each in result["clock_faults"]]
    return [each for each in faults if each[0] in ("suspend", "pause")], result


START_S = 1_795_420_800


def systemd(*entries: tuple[int, int, str, str]) -> str:
    """Wall and monotonic seconds since the start, message, and who wrote it."""
    return "".join(
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": f"{(START_S + wall_s) * 1_000_000}",
                "__MONOTONIC_TIMESTAMP": f"{(100 + monotonic_s) * 1_000_000}",
                "_BOOT_ID": "b" * 32,
                "MESSAGE": message,
                **({"MESSAGE_ID": by} if len(by) == 32 else {"_TRANSPORT": by} if by else {}),
            }
        )
        + "\n"
        for wall_s, monotonic_s, message, by in [(0, 0, "booted", ""), *entries]
    )


BEGINS, ENDED = "6bbd95ee977941e497c48be27c254128", "8811e6df2a8e40f58a94cea26f8ebf14"
SYSTEMD = {
    "a hibernation whose lines all come after it": (
        systemd(
            (50_000, 50_000, "idle", ""),
            (86_010, 50_010, "Entering sleep state 'hibernate'...", BEGINS),
            (86_010, 50_010, "PM: hibernation: hibernation entry", "kernel"),
            (86_011, 50_011, "PM: hibernation: hibernation exit", "kernel"),
            (86_012, 50_012, "System returned from sleep", ENDED),
            (120_000, 84_000, "later", ""),
        ),
        [36_000],
    ),
    "a suspend that becomes a hibernation": (
        systemd(
            (50_001, 50_001, "x", BEGINS),
            (50_002, 50_002, "PM: suspend entry (s2idle)", "kernel"),
            (57_202, 50_003, "PM: suspend exit", "kernel"),
            (57_205, 50_006, "PM: hibernation: hibernation entry", "kernel"),
            (86_010, 50_011, "PM: hibernation: hibernation exit", "kernel"),
            (86_011, 50_012, "x", ENDED),
            (120_000, 84_001, "later", ""),
        ),
        [7_199, 28_800],
    ),
    "a suspend that failed, and a silent pause": (
        systemd(
            (40_000, 40_000, "PM: suspend entry (deep)", "kernel"),
            (40_001, 40_001, "PM: Some devices failed to suspend", "kernel"),
            (40_002, 40_002, "PM: suspend exit", "kernel"),
            (60_000, 60_000, "tick", ""),
            (88_805, 60_005, "tick", ""),
            (120_000, 91_200, "later", ""),
        ),
        [28_800],
    ),
    "the words of old kernels": (
        systemd(
            (50_400, 50_400, "PM: Preparing system for sleep (mem)", "kernel"),
            (79_205, 50_405, "PM: Finishing wakeup.", "kernel"),
            (120_000, 91_200, "later", ""),
        ),
        [28_800],
    ),
    "messages alone": (
        systemd(
            (50_400, 50_400, "PM: suspend entry (deep)", ""),
            (79_205, 50_405, "PM: suspend exit", ""),
            (120_000, 91_200, "later", ""),
        ),
        [28_800],
    ),
    "no word of it": (
        systemd(
            (50_400, 50_400, "tick", ""),
            (79_205, 50_405, "tick", ""),
            (120_000, 91_200, "tick", ""),
        ),
        [28_800],
    ),
}


@pytest.mark.parametrize("form", SYSTEMD)
def test_how_long_a_machine_slept_whatever_the_words(
    form: str, tmp_path: Path, capsys: Says
) -> None:
    """The two clocks show it; less than half a day does no harm."""
    text, lengths_s = SYSTEMD[form]
    sleeps, result = imported(text, tmp_path, capsys)
    assert [length_s for _, length_s in sleeps] == pytest.approx(lengths_s, abs=15)
    assert verdicts(result)["no_expired_certificate_served"] == "HOLDS"


def test_a_clock_that_was_set_ahead_is_as_late_as_a_sleep_and_none(
    tmp_path: Path, capsys: Says
) -> None:
    """A Pi whose clock is right from its tenth minute on: nine hours, and four more at once would
    be too many."""
    for ahead_s, verdict in ((32_400, "HOLDS"), (50_000, "BROKEN")):
        text = systemd(
            (500, 500, "tick", ""),
            (510 + ahead_s, 510, "Initial clock synchronization to Mon.", ""),
            (150_000 + ahead_s, 150_000, "later", ""),
        )
        sleeps, result = imported(text, tmp_path, capsys)
        assert sleeps == [] and verdicts(result)["no_expired_certificate_served"] == verdict


POWER, TROUBLE, GENERAL = "Kernel-Power", "Power-Troubleshooter", "Kernel-General"
WINDOWS = {
    "a hibernation of one event, in Czech": (
        xml(("2026-11-24T07:18:30Z", 1, TROUBLE, "2026-11-24T07:00:00Z 2026-11-24T07:18:24Z")),
        [("pause", 1_104)],
    ),
    "standby that is left for a minute, and becomes a hibernation": (
        xml(
            ("2026-11-24T22:00:00Z", 506, POWER, ""),
            ("2026-11-24T22:20:00Z", 507, POWER, ""),
            ("2026-11-24T22:21:00Z", 506, POWER, ""),
            ("2026-11-25T02:00:00Z", 42, POWER, ""),
            ("2026-11-25T07:30:00Z", 107, POWER, ""),
            ("2026-11-25T07:30:05Z", 507, POWER, ""),
        ),
        [("pause", 1_200), ("pause", 32_945)],
    ),
}


@pytest.mark.parametrize("form", WINDOWS)
def test_how_long_windows_slept(form: str, tmp_path: Path, capsys: Says) -> None:
    """A sleep within a sleep is one."""
    text, expected = WINDOWS[form]
    sleeps, result = imported(text, tmp_path, capsys)
    assert [kind for kind, _ in sleeps] == [kind for kind, _ in expected]
    assert [length_s for _, length_s in sleeps] == pytest.approx(
        [length_s for _, length_s in expected], abs=10
    )
    assert verdicts(result)["no_expired_certificate_served"] == "HOLDS"


def test_a_power_cut_in_a_sleep_is_a_new_start(tmp_path: Path, capsys: Says) -> None:
    """Twenty hours asleep, and the plug was pulled meanwhile: ztunnel restarts, late by nothing."""
    begins = [("2026-11-23T20:00:00Z", 42, POWER, ""), ("2026-11-24T16:00:00Z", 41, POWER, "")]
    end = ("2026-11-26T16:00:00Z", 7036, "Service Control Manager", "")
    _, result = imported(
        xml(*begins, ("2026-11-24T16:00:02Z", 12, GENERAL, ""), end), tmp_path, capsys
    )
    assert verdicts(result)["no_expired_certificate_served"] == "HOLDS"
    woke = ("2026-11-24T16:00:00Z", 107, POWER, "")
    _, result = imported(xml(begins[0], woke, end), tmp_path, capsys)
    assert verdicts(result)["no_expired_certificate_served"] == "BROKEN"


# --- What people save of a ztunnel's certificates -------------------------------------------------


def forecast(dump: str, folder: Path, capsys: Says) -> tuple[int, str]:
    shutil.copytree(SAVED / "laptop", folder / "laptop", dirs_exist_ok=True)
    (folder / "laptop" / "config_dump.json").write_text(dump, encoding="utf-8")
    capsys.readouterr()
    code = run_command(["forecast", "--from", str(folder), "--json"])
    out, err = capsys.readouterr()
    return code, out + err


DUMP = json.loads((SAVED / "laptop" / "config_dump.json").read_text())
LEAF = DUMP["certificates"][0]


def certificate(**about: Any) -> str:
    return json.dumps({"certificates": [{**LEAF, **about}]})


def test_the_same_certificates_in_every_form(tmp_path: Path, capsys: Says) -> None:
    """With fractions and offsets, as istioctl's list, as releases before 1.22 wrote them."""
    expected = forecast(json.dumps(DUMP), tmp_path, capsys)
    assert expected[0] == 0
    leaf = {
        "pem": "x",
        "serial_number": "1",
        "valid_from": "2026-11-24T15:57:01Z",
        "expiration_time": "2026-11-25T15:59:01Z",
    }
    old = [
        {
            "identity": each["identity"],
            "state": "Available",
            "ca_cert": [
                {
                    **leaf,
                    "valid_from": each["certChain"][0]["validFrom"],
                    "expiration_time": each["certChain"][0]["expirationTime"],
                }
            ],
            "cert_chain": [],
        }
        for each in DUMP["certificates"]
    ]
    for dump in (
        json.dumps(DUMP).replace('Z"', '.000000+00:00"'),
        json.dumps(DUMP)
        .replace("T15:57", "T16:57")
        .replace("T15:59", "T16:59")
        .replace('Z"', '+01:00"'),
        json.dumps(DUMP["certificates"]),
        json.dumps({"certificates": old}),
        json.dumps(old),
    ):
        assert forecast(dump, tmp_path, capsys) == expected


@pytest.mark.parametrize(
    ("dump", "codes", "says", "says_not"),
    [
        (json.dumps({"certificates": [LEAF, {**LEAF, "identity": "spiffe://other/ns/default/sa/client"}]}), {0}, "spiffe://other/ns/default/sa/client", "x509"),
        (certificate(state="Initializing", certChain=[]), {2}, "default/client", "journal"),
        (certificate(state=""), {0, 2}, "default/client", "Error"),
        (certificate(identity="urn:something"), {0, 2, 3}, "urn:something", "Error"),
        ('{"certificates": []}', {0, 2}, '"identities": []', "journal.json"),
        ('{"certificates": null}', {0, 2}, '"identities": []', "TypeError"),
        ('[{"identity": "spiffe://c/ns/a/sa/b", "certs": ["-----BEGIN CERTIFICATE-----\\nMIIB"]}]', {2, 3}, "a/b", "Error"),
        ('Error from server (NotFound): pods "ztunnel" not found', {3}, "config_dump.json", "Traceback"),
        ("", {3}, "config_dump.json", "Traceback"),
    ],
)  # fmt: skip
def test_odd_certificates_are_forecast_or_named(
    dump: str, codes: set[int], says: str, says_not: str, tmp_path: Path, capsys: Says
) -> None:
    code, message = forecast(dump, tmp_path, capsys)
    assert (
        code in codes
        and says in message
        and says_not not in message.replace('known_from": "journal', "")
    ), message


def test_a_journal_without_an_entry_at_the_start_bounds_what_may_be(
    tmp_path: Path, capsys: Says
) -> None:
    """Silent from before a sleep until after ztunnel's start: of nine hours four minutes may have
    been its own."""
    place = tmp_path / "laptop"
    shutil.copytree(SAVED / "laptop", place)
    start_s = 1_795_502_460
    moments = [(start_s - 32_700, 1_000), (start_s + 240, 1_300), (start_s + 20_000, 21_060)]
    entries = [
        {
            "__REALTIME_TIMESTAMP": str(wall_s * 1_000_000),
            "__MONOTONIC_TIMESTAMP": str(monotonic_s * 1_000_000),
            "_BOOT_ID": "b" * 32,
        }
        for wall_s, monotonic_s in moments
    ]
    (place / "journal.json").write_text("\n".join(map(json.dumps, entries)))
    pod = json.loads((place / "pod.json").read_text())
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = "2026-11-24T06:41:00Z"
    (place / "pod.json").write_text(json.dumps(pod))
    capsys.readouterr()
    run_command(["forecast", "--from", str(tmp_path), "--sleep", "4h", "--json"])
    node = json.loads(capsys.readouterr().out)["nodes"][0]
    assert -1 <= node["drift_least_s"] <= node["drift_most_s"] <= 241

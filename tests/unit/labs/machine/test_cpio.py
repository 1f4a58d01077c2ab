"""Archives as the kernel unpacks them."""

from __future__ import annotations

import io
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meshwake.labs.machine.cpio import BLOCK_BYTES, write_archive

Files = dict[str, tuple[bytes, int, int]]
NAMES = st.text(alphabet="abc", min_size=1, max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts) + ".file")
FILES = st.dictionaries(
    PATHS,
    st.tuples(st.binary(max_size=40), st.sampled_from([0o644, 0o755]), st.integers(0, 2**32 - 1)),
)


def archive(files: Files) -> bytes:
    output = io.BytesIO()
    write_archive(output, files)
    return output.getvalue()


def entries(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """Name, mode, time of change and content, read as the kernel does."""
    found: list[tuple[str, int, int, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, changed_s, size, name_size = numbers[1], numbers[5], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        begins = at + 110 + name_size + -(110 + name_size) % 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, changed_s, data[begins : begins + size]))
        at = begins + size + -size % 4


@pytest.mark.slow(reason="hundreds of drawn examples")
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is slow
@given(FILES)
def test_what_goes_in_comes_out(files: Files) -> None:
    """Every file with its content, permissions and time of change, after the directories above it."""
    data = archive(files)
    seen: set[str] = set()
    for name, mode, changed_s, content in entries(data):
        assert name.rpartition("/")[0] in {*seen, ""}
        seen.add(name)
        if stat.S_ISREG(mode):
            assert files[f"/{name}"] == (content, stat.S_IMODE(mode), changed_s)
    assert {f"/{name}" for name in seen} >= set(files)
    assert len(data) % BLOCK_BYTES == 0


def test_archives_can_follow_one_another() -> None:
    """The second begins at a block of its own."""
    first, second = archive({"/a": (b"1", 0o644, 0)}), archive({"/b": (b"2", 0o644, 0)})
    assert entries((first + second)[len(first) :])[0][0] == "b"

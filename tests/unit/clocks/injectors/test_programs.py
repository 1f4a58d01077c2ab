"""What a program is, read from its file."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.clocks.injectors.programs import EM_X86_64, Program, find_program, look_at, symbols_of
from meshwake.core.errors import BadInput, HarnessError

LOADER = b"/lib64/ld-linux-x86-64.so.2\0"


def elf(
    *, loader: bytes | None = None, text: bytes = b"", machine: int = EM_X86_64, bits: int = 64
) -> bytes:
    """A program of two segments: what loads it, and what is in it."""
    segments, body, place = [], b"", 64 + 2 * 56
    for kind, data in ((3, loader), (1, text)):
        if data is not None:
            segments.append(
                struct.pack("<IIQQQQQQ", kind, 0, place + len(body), 0, 0, len(data), len(data), 0)
            )
            body += data
    head = (
        b"\x7fELF"
        + bytes([bits // 32, 1, 1])
        + bytes(9)
        + struct.pack("<HHIQQQ", 2, machine, 1, 0, 64, 0)
    )
    head += struct.pack("<IHHHHHH", 0, 64, 56, len(segments), 64, 0, 0)
    return (head + b"".join(segments)).ljust(place, b"\0") + body


def written(directory: Path, content: bytes, name: str = "program") -> Path:
    path = directory / name
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_a_dynamic_program_names_its_loader(tmp_path: Path) -> None:
    """And a library for glibc can be loaded into it."""
    program = look_at(written(tmp_path, elf(loader=LOADER)))
    assert (program.loader, program.loader_is_glibc) == (LOADER.rstrip(b"\0").decode(), True)
    assert not look_at(written(tmp_path, elf(loader=b"/lib/ld-musl-x86_64.so.1\0"))).loader_is_glibc
    assert look_at(written(tmp_path, elf())).loader is None


def test_go_is_known_by_what_every_build_of_it_carries(tmp_path: Path) -> None:
    """Its build information; only in what is loaded, not in debug sections."""
    assert look_at(written(tmp_path, elf(text=b"..\xff Go buildinf:..."))).is_go
    assert not look_at(written(tmp_path, elf(text=b"nothing") + b"\xff Go buildinf:")).is_go


@pytest.mark.parametrize(
    ("first", "direct"),
    [
        ("#!/usr/bin/env tool", "tool ./app.sh"),
        ("#!/usr/bin/env -S tool -u", "tool -u ./app.sh"),
        ("#!/usr/bin/env A=1 tool", None),
        ("#!/usr/bin/env -i tool", None),
        ("#!/usr/bin/env sh", None),
        ("#!/usr/bin/env shim", None),
        ("#!/usr/bin/env nowhere-to-be-found", None),
        ("#!/bin/sh", None),
    ],
)
def test_what_to_type_instead_of_a_script_of_env(
    first: str, direct: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter, where it is a program itself: a shim of pyenv is a script of a shell."""
    written(tmp_path, elf(loader=LOADER), "tool")
    written(tmp_path, b"#!/usr/bin/env bash\n", "shim")
    script = written(tmp_path, first.encode() + b"\n", "app.sh")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    assert look_at(script).direct_command == direct
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    if direct is not None:
        assert look_at(script).direct_command == direct.replace("./app.sh", str(script))


MALLOC = (
    "#include <stddef.h>\nvoid *malloc(size_t n) { return 0; }\nvoid free(void *p) { }\nint "
    "main(void) { return 0; }"
)


@pytest.mark.parametrize(
    ("source", "options", "allocator"),
    [
        (MALLOC, ("-rdynamic", "-s", "-fno-builtin"), "one that is built into it"),
        ("int main(void) { return 0; }", ("-s",), None),
        ("int main(void) { return 0; }", ("-s", "{library}"), "libjemalloc.so.9"),
    ],
)
def test_an_allocator_of_its_own_is_known_in_a_stripped_program(
    source: str, options: tuple[str, ...], allocator: str | None, tmp_path: Path
) -> None:
    """Built in, or in a library that it needs."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    library, program = tmp_path / "libjemalloc.so.9", tmp_path / "program"
    for command in (
        (
            gcc,
            "-shared",
            "-Wl,-soname,libjemalloc.so.9",
            "-o",
            str(library),
            "-x",
            "c",
            "/dev/null",
        ),
        (
            gcc,
            "-Wl,--no-as-needed",
            *(one.format(library=library) for one in options),
            "-o",
            str(program),
            "-xc",
            "-",
        ),
    ):
        made = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        assert made.returncode == 0, made.stderr
    assert look_at(program).allocator == allocator


def test_a_32_bit_program_and_one_for_another_processor(tmp_path: Path) -> None:
    """Are distinguished."""
    assert not look_at(written(tmp_path, elf(bits=32))).is_64_bit
    assert look_at(written(tmp_path, elf(machine=183))).machine == 183


def test_a_script_is_its_interpreter(tmp_path: Path) -> None:
    """Also when that is a script; both are named."""
    inner = written(tmp_path, elf(loader=LOADER), "python")
    middle = written(tmp_path, b"#!" + bytes(inner) + b" -S\n", "middle")
    outer = written(tmp_path, b"#! " + bytes(middle) + b"\nprint()\n", "outer")
    program = look_at(outer)
    assert (program.path, program.script) == (inner, outer)
    assert program.name == f"{outer} (read by {inner})"
    assert not program.executes_others


@pytest.mark.parametrize("name", ["sh", "bash", "env", "busybox"])
def test_programs_that_only_execute_others(name: str, tmp_path: Path) -> None:
    """By their own name, and by the name of what they are a link to."""
    path = written(tmp_path, elf(loader=LOADER), name)
    (tmp_path / "linked").symlink_to(path)
    assert look_at(path).executes_others
    assert look_at(tmp_path / "linked").executes_others


def test_rights_that_are_gained(tmp_path: Path) -> None:
    """Set-user-id."""
    path = written(tmp_path, elf(loader=LOADER))
    assert not look_at(path).gains_rights
    path.chmod(0o4755)
    assert look_at(path).gains_rights


@pytest.mark.parametrize(
    "content", [b"", b"text", b"#!\n", b"\x7fELF", b"#!/no/such/interpreter\n"]
)
def test_what_no_kernel_would_run_is_refused(content: bytes, tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(BadInput):
        look_at(written(tmp_path, content))


def test_a_script_that_reads_itself_is_refused(tmp_path: Path) -> None:
    """And not followed for ever."""
    path = tmp_path / "loop"
    with pytest.raises(BadInput, match="a script that is read by a script"):
        look_at(written(tmp_path, b"#!" + bytes(path) + b"\n", "loop"))


@given(
    cut=st.integers(0, 300),
    flips=st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_file_is_an_error_of_ours_or_a_program(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    """Never another exception."""
    content = bytearray(elf(loader=LOADER, text=b"\xff Go buildinf:" * 8))
    for place, value in flips:
        content[place % len(content)] = value
    path = written(tmp_path_factory.mktemp("damaged"), bytes(content[: max(cut, 0)]))
    with suppress(HarnessError):
        assert isinstance(look_at(path), Program)


def test_programs_are_found_as_a_shell_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By PATH, or by a path; what is not there is the user's error."""
    path = written(tmp_path, elf(), "mine")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("mine") == find_program(str(path)) == path
    with pytest.raises(BadInput, match="there is no program 'other' on PATH"):
        find_program("other")


def test_this_very_python() -> None:
    """Is a program for this machine, that no one would call Go."""
    program = look_at(Path(os.path.realpath(sys.executable)))
    assert program.is_64_bit and not program.is_go


def test_symbols_are_read_from_the_full_table() -> None:
    """Of a library that is not stripped."""
    from meshwake.clocks.injectors.faketime import library

    path = library()
    if path is None or shutil.which("true") is None:
        pytest.skip("needs python-libfaketime (Linux)")
    found = symbols_of(path, frozenset({"initialized", "no_such_name"}))
    assert list(found) == ["initialized"] and found["initialized"] > 0


PYENV = (
    "#!/usr/bin/env bash\nset -e\n"
    '[ -n "$PYENV_DEBUG" ] && set -x\n\nprogram="${0##*/}"\n\nexport PYENV_ROOT="/home/me/.pyenv"\n'
    'exec "/home/me/.pyenv/libexec/pyenv" exec "$program" "$@"\n'
)
ASDF = '#!/usr/bin/env bash\n# asdf-plugin: python 3.12.1\nexec asdf exec "python3" "$@"\n'


@pytest.mark.parametrize(
    ("shim", "which"), [(PYENV, "pyenv which python3"), (ASDF, "asdf which python3")]
)
def test_a_shim_names_what_prints_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shim: str, which: str
) -> None:
    """As pyenv and asdf write them; also for a script that such a python3 reads."""
    program = look_at(written(tmp_path, shim.encode(), "python3"))
    assert program.executes_others
    assert program.instead == f'type "$({which})" in its place'
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    script = look_at(written(tmp_path, b"#!/usr/bin/env python3\nprint(1)\n", "app.sh"))
    assert script.instead == f'type: "$({which})" ./app.sh'


def test_a_shim_that_is_a_link_to_its_manager(tmp_path: Path) -> None:
    """mise, rustup and volta find out by their own name what is meant."""
    (tmp_path / "bin").mkdir()
    written(tmp_path / "bin", elf(loader=LOADER), "mise")
    (tmp_path / "python3").symlink_to(tmp_path / "bin" / "mise")
    program = look_at(tmp_path / "python3")
    assert program.executes_others
    assert program.instead == 'type "$(mise which python3)" in its place'


@pytest.mark.parametrize("name", ["timeout", "nice", "sudo", "strace"])
def test_a_wrapper_executes_others(tmp_path: Path, name: str) -> None:
    """It can be put before the command of meshwake. A program of another name is the one meant."""
    program = look_at(written(tmp_path, elf(loader=LOADER), name))
    assert program.executes_others
    assert program.instead == f"name the program itself; {name} can be put before meshwake"
    assert not look_at(written(tmp_path, elf(loader=LOADER), f"my-{name}")).executes_others


def test_a_script_that_executes_something_is_not_a_shim(tmp_path: Path) -> None:
    """Such as one whose last line runs a program in an environment."""
    text = (
        b'#!/bin/sh\n# exec pyenv exec\nexec env A=1 ./server\nexec "$HOME/env/bin/python" "$@"\n'
    )
    assert look_at(written(tmp_path, text, "run.sh")).instead.startswith(
        "name the program itself that"
    )

"""What a program's file shows before it is started: so that a way of moving clocks
can refuse it.

A preloaded library is loaded by glibc's loader and by nothing else; a vDSO lasts until the next
exec. Whether a program is out of reach of one or the other can be read from its file: how it is
linked, for which processor, which runtime and which allocator are in it, and, for a script, who is
to read it. Nothing is executed. Go is known by text that it carries in every build, an allocator by
the `malloc` that it defines for all libraries, which stripping does not take away.

Limit: what a program executes, or loads with dlopen, while it runs, cannot be read from its file.
"""

from __future__ import annotations

import mmap
import os
import re
import shlex
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshwake.core.errors import BadInput

# e_machine of an ELF header: include/uapi/linux/elf-em.h.
EM_X86_64, EM_AARCH64 = 62, 183
SHELLS = frozenset(
    {"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh", "fish", "busybox", "xargs", "env"}
)
# They execute the rest of their command line. `timeout 5 date` showed the true date, and no word of
# it.
_WRAPPERS = frozenset(
    {
        *("timeout", "nice", "ionice", "nohup", "setsid", "stdbuf", "time", "chrt", "taskset"),
        *("sudo", "doas", "su", "runuser", "setpriv", "prlimit", "chroot", "unshare", "nsenter"),
        *("flock", "strace", "ltrace", "watch", "parallel", "systemd-run", "dumb-init", "tini"),
    }
)
# Version managers whose shims are links to themselves, by what prints the program that they mean.
_SHIM_PROGRAMS = {
    "mise": "mise which",
    "rustup": "rustup which",
    "volta-shim": "volta which",
}
# And those whose shims are scripts: the last lines of a shim of pyenv, rbenv and the like, and of
# asdf.
_SHIM_SCRIPT = re.compile(
    rb"""^exec ["']?[^\s"']*?(?P<tool>\w*env|asdf)["']? exec """, re.MULTILINE
)
# Segments: what is mapped, and the path of the loader (a program without one is static). elf(5).
_PT_LOAD, _PT_INTERP = 1, 3
# Sections: symbols, what the loader needs, symbols for the loader; and the entry of .dynamic that
# names a library. elf(5).
_SHT_SYMTAB, _SHT_DYNAMIC, _SHT_DYNSYM, _DT_NEEDED = 2, 6, 11, 1
# An ELF header of a 64-bit program has 64 bytes; the fifth says so (ELFCLASS64).
_HEAD_BYTES, _ELF_64 = 64, 2
# How every Go binary since 1.13 marks its build information (debug/buildinfo, buildInfoMagic);
# -ldflags=-s does not remove it.
_GO = b"\xff Go buildinf:"
_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")
# Options of env that only split the rest of the line into words: env(1).
_SPLITTING = ("-S", "--split-string")
# Linux itself follows an interpreter that is a script again four times, and fails then with ELOOP:
# fs/exec.c, exec_binprm.
_SCRIPTS_IN_A_ROW_MAX = 4
# A shim of pyenv has twenty lines.
_SHIM_BYTES_MAX = 4096


@dataclass(frozen=True)
class Program:
    """A program that could be started. `path`: the file that the kernel will run in the end, which
    for a script is its interpreter. `loader`: what loads its shared libraries; None: it is static.
    `allocator`: what takes the place of the C library's; None: nothing."""

    path: Path
    machine: int
    is_64_bit: bool
    loader: str | None
    is_go: bool
    allocator: str | None
    gains_rights: bool
    script: Path | None = None

    @property
    def name(self) -> str:
        """For a message."""
        if self.script is None:
            return str(self.path)
        return f"{self.script} (read by {self.path})"

    @property
    def direct_command(self) -> str | None:
        """What to type so that the interpreter of a script which begins with `#!/usr/bin/env` is
        the program that is started, such as 'python3 ./app.sh'; None for other programs."""
        if self.script is None or self.path.name != "env":
            return None

        words = [word for word in _shebang_of(self.script)[1:] if word not in _SPLITTING]
        if not words:
            return None
        interpreter, *options = words
        program = _program_itself(interpreter)
        if program is None:
            return None
        rest = shlex.join([*options, _as_typed(self.script)])
        return f"{program} {rest}"

    @property
    def executes_others(self) -> bool:
        """Whether it is a program whose whole purpose is to execute others."""
        names = {self.path.name, os.path.realpath(self.path).rpartition("/")[2]}
        return bool(names & (SHELLS | _WRAPPERS | _SHIM_PROGRAMS.keys()))

    @property
    def meant_by_shim(self) -> str | None:
        """Of a shim of a version manager, which only executes the program of the version that is
        chosen: what prints the path of that program, such as 'pyenv which python3'."""
        if self.script is None:
            # One program under the names of all: a link leads to it.
            name = os.path.realpath(self.path).rpartition("/")[2]
            which = _SHIM_PROGRAMS.get(name)
            return None if which is None else f"{which} {self.path.name}"

        found = _SHIM_SCRIPT.search(_beginning_of(self.script, _SHIM_BYTES_MAX))
        if found is None:
            return None
        tool = found["tool"].decode()
        return f"{tool} which {self.script.name}"

    @property
    def instead(self) -> str:
        """What to type where a program that executes others is out of reach."""
        meant = self.meant_by_shim
        if meant is not None:
            return f'type "$({meant})" in its place'
        command = self.direct_command
        if command is not None:
            return f"type: {command}"
        if self.path.name in _WRAPPERS:
            return f"name the program itself; {self.path.name} can be put before meshwake"
        return "name the program itself that is meant"

    @property
    def loader_is_glibc(self) -> bool:
        """Whether a library that was built for glibc can be loaded into it."""
        if self.loader is None:
            return False  # it is linked statically
        # musl's is called ld-musl-x86_64.so.1.
        return self.loader.rpartition("/")[2].startswith("ld-linux")


def _program_itself(word: str) -> str | None:
    """What to type for the program that a word after `env` names, None where it is not clear. An
    option and an assignment of env would be lost; a script of a shell executes another program."""
    if word.startswith("-") or "=" in word:
        return None
    try:
        program = look_at(find_program(word))
    except BadInput:
        return None

    meant = program.meant_by_shim
    if meant is not None:
        return f'"$({meant})"'
    if program.executes_others:
        return None
    return shlex.quote(word)


def _as_typed(path: Path) -> str:
    """The path from here, where it is below this directory."""
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def find_program(word: str) -> Path:
    """The file that a command's first word means. Raises BadInput."""
    found = shutil.which(word)
    if found is None:
        raise BadInput(
            f"there is no program {word!r} on PATH, and it is not a path of one; is it executable?"
        )
    return Path(found).absolute()


def look_at(path: Path) -> Program:
    """What the file at `path` is. Raises BadInput when it is nothing that a kernel would run."""
    script, seen = None, path
    for _ in range(_SCRIPTS_IN_A_ROW_MAX):
        interpreter = _interpreter_of(seen)
        if interpreter is None:
            return _look_at_elf(seen, script)
        script, seen = script or seen, interpreter
    raise BadInput(
        f"{path}: a script that is read by a script, {_SCRIPTS_IN_A_ROW_MAX} times; name "
        "the program itself"
    )


def symbols_of(path: Path, names: frozenset[str]) -> dict[str, int]:
    """Address (as linked) of these symbols, of those that are in the full symbol table of a 64-bit
    file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        symbols = _symbols(image, _SHT_SYMTAB)
        return {name: value for name, value in symbols if name in names}


def _interpreter_of(path: Path) -> Path | None:
    words = _shebang_of(path)
    return Path(words[0]) if words else None


def _beginning_of(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most_bytes)


def _shebang_of(path: Path) -> list[str]:
    """The words after `#!`; [] when the file is not a script."""
    try:
        first = _beginning_of(path, 256)
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}), so nothing is known of it"
        ) from error
    if not first.startswith(b"#!"):
        return []
    words = first[2:].splitlines()[0].decode(errors="replace").split()
    if not words:
        raise BadInput(f"{path}: a script that names no interpreter")
    return words


def _look_at_elf(path: Path, script: Path | None) -> Program:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] != b"\x7fELF" or len(head) < _HEAD_BYTES:
            raise BadInput(f"{path}: is neither a script nor an ELF program")

        machine = int(struct.unpack_from("<H", head, 18)[0])
        gains = _gains_rights(path)
        if head[4] != _ELF_64:
            return Program(path, machine, False, None, False, None, gains, script)

        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
                loader, is_go = _look_at_segments(image)
                return Program(path, machine, True, loader, is_go, _allocator(image), gains, script)
        except (struct.error, ValueError, OverflowError) as error:
            raise BadInput(f"{path}: a damaged ELF program ({error})") from error


def _look_at_segments(image: mmap.mmap) -> tuple[str | None, bool]:
    """The loader that the kernel starts for a program (None: it is linked statically), and whether
    it is one of Go."""
    loader = None
    is_go = False
    for kind, place in _segments(image):
        if kind == _PT_INTERP and loader is None:
            loader = _text(image, place)
        # What is not loaded is debugging information.
        elif kind == _PT_LOAD and not is_go:
            is_go = image.find(_GO, place.start, place.stop) >= 0
    return loader, is_go


def _segments(image: mmap.mmap) -> list[tuple[int, slice]]:
    """Kind and place of each."""
    table = struct.unpack_from("<Q", image, 32)[0]
    size, count = struct.unpack_from("<HH", image, 54)
    found = []
    for index in range(count):
        kind, _, offset, _, _, length, _, _ = struct.unpack_from(
            "<IIQQQQQQ", image, table + size * index
        )
        found.append((kind, slice(offset, offset + length)))
    return found


def _allocator(image: mmap.mmap) -> str | None:
    """What takes the place of the C library's malloc."""
    for name, _ in _symbols(image, _SHT_DYNSYM):
        if name == "malloc":
            return "one that is built into it"

    for library in _needed(image):
        if any(allocator in library for allocator in _ALLOCATORS):
            return library
    return None


def _symbols(image: mmap.mmap, kind: int) -> Iterator[tuple[str, int]]:
    """Name and address of what a symbol table defines."""
    sections = _sections(image)
    for section in sections:
        if section[1] != kind:
            continue
        # The names are in the section that `link` gives the number of.
        text = sections[section[6]][4]
        begin, size = section[4], section[5]
        for place in range(begin, begin + size, 24):
            name_at, _, _, defined_in, value = struct.unpack_from("<IBBHQ", image, place)
            # 0: it is defined in another file.
            if defined_in:
                yield _word(image, text + name_at), value


def _needed(image: mmap.mmap) -> Iterator[str]:
    """The shared libraries that the loader has to load."""
    sections = _sections(image)
    for section in sections:
        if section[1] != _SHT_DYNAMIC:
            continue
        text = sections[section[6]][4]
        begin, size = section[4], section[5]
        for place in range(begin, begin + size, 16):
            tag, value = struct.unpack_from("<QQ", image, place)
            if tag == _DT_NEEDED:
                yield _word(image, text + value)


def _sections(image: mmap.mmap) -> list[tuple[int, ...]]:
    """Name, kind, flags, address, offset, size, link, info, alignment and entry size of each."""
    table = struct.unpack_from("<Q", image, 40)[0]
    size, count = struct.unpack_from("<HH", image, 58)
    return [
        struct.unpack_from("<IIQQQQIIQQ", image, table + size * index) for index in range(count)
    ]


def _word(image: mmap.mmap, place: int) -> str:
    return bytes(image[place : image.find(b"\0", place)]).decode(errors="replace")


def _text(image: mmap.mmap, place: slice) -> str:
    return bytes(image[place]).rstrip(b"\0").decode(errors="replace")


def _gains_rights(path: Path) -> bool:
    """Whether the kernel gives it more rights than its starter has: then the loader preloads
    nothing into it."""
    if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except (OSError, AttributeError):
        return False

"""The vDSO of a process: where it is, which functions are in it, and the memory around it.

It is a small shared library in ELF format (elf(5)) which the kernel maps into every process, so its
layout is read from the process's own memory and never assumed: kernels differ.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from meshwake.clocks.vdso.architecture import X86_64, Architecture, architecture_here
from meshwake.clocks.vdso.code_x86_64 import JUMP, JUMP_BYTES, ClockCode
from meshwake.core.errors import LabUnavailable

PAGE_BYTES = 4096

# --- ELF: include/uapi/linux/elf.h ----------------------------------------------------------------

_CLASS_AT = 4  # e_ident[EI_CLASS]
_CLASS_64 = 2  # ELFCLASS64
_SECTIONS_AT = (0x28, struct.Struct("<Q"))  # e_shoff: where the table of sections begins
_SECTION_COUNT_AT = (0x3C, struct.Struct("<H"))  # e_shnum
_TYPE_DYNAMIC_SYMBOLS = 11  # SHT_DYNSYM
# Names of functions begin with this on x86-64, and on ARM64.
_PREFIXES = ("__vdso_", "__kernel_")


class _Section(NamedTuple):
    """Elf64_Shdr. Of a table of symbols, `link` is the number of the section with their names."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


_SECTION = struct.Struct("<IIQQQQIIQQ")
# Elf64_Sym: offset of the name, info, other, section, value (the address, here an offset in the
# image, because a vDSO is linked at 0), size.
_SYMBOL = struct.Struct("<IBBHQQ")

# --- Where there is room for a page of ours -------------------------------------------------------

# A jump reaches 2 GiB; less the pages themselves, so that all of them are within reach.
_JUMP_REACH = 2**31 - 3 * PAGE_BYTES
# A stack grows down from just below the vDSO, to 8 MiB by default: nothing of ours may be in its
# way.
_BELOW_THE_STACK = 2**28
_SEARCH_STEP = 2**20
# vm.mmap_min_addr: nothing can be mapped at addresses as low as this.
_LOWEST_ADDRESS = 2**16


def this_architecture() -> Architecture:
    """That of this machine. (Where it is not one of ours, `unsupported_here` has refused
    before.)"""
    return architecture_here() or X86_64


@dataclass(frozen=True)
class Vdso:
    """`entries`: offset of each function by name, without the prefix. `mapped`: begin and end of
    all memory of the process."""

    begin: int
    image: bytes
    entries: Mapping[str, int]
    mapped: Sequence[tuple[int, int]]

    @property
    def clock_gettime(self) -> int:
        """Address of the function that shows a clock."""
        return self.begin + self.entries["clock_gettime"]

    @property
    def gadget(self) -> int:
        """Address of a system call's instruction: the function asks the kernel about clocks that it
        does not know."""
        begin = self.entries["clock_gettime"]
        return self.begin + this_architecture().find_system_call(self.image, begin)

    def jumps(self, code: ClockCode, base: int) -> dict[int, bytes]:
        """Address to bytes: what sends the clock functions to `code`, on a page that is mapped at
        `base`."""
        targets = {
            "clock_gettime": code.clock_gettime_offset,
            "gettimeofday": code.gettimeofday_offset,
            "time": code.time_offset,
        }
        jump = this_architecture().jump
        jumps = {}
        for name, offset in targets.items():
            if name in self.entries:
                entry = self.begin + self.entries[name]
                jumps[entry] = jump(entry, base + offset)
        return jumps

    def jumps_to(self) -> int | None:
        """Where the clock function has been sent, when it begins with a jump (x86-64, for
        attach.py)."""
        entry = self.image[self.entries["clock_gettime"] :][:JUMP_BYTES]
        if not entry.startswith(JUMP):
            return None
        (distance,) = struct.unpack("<i", entry[len(JUMP) :])
        return int(self.clock_gettime + JUMP_BYTES + distance)

    def free_pages(self, count: int) -> int:
        """The address of `count` unused pages within a jump's reach. Raises LabUnavailable."""
        size = count * PAGE_BYTES
        for address in self._candidates(size):
            if address > _LOWEST_ADDRESS and self._is_free(address, address + size):
                return address
        raise LabUnavailable("no free memory within 2 GiB of the vDSO")

    def _candidates(self, size: int) -> Iterator[int]:
        """Above the vDSO first, from near to far, then below it and the stack."""
        end = self.begin + len(self.image)
        end_of_user_space = this_architecture().user_space_ends - 2 * size
        for address in range(end + _SEARCH_STEP, end + _JUMP_REACH, _SEARCH_STEP):
            if address < end_of_user_space:
                yield address
        for distance in range(_BELOW_THE_STACK, _JUMP_REACH, _SEARCH_STEP):
            yield self.begin - distance

    def _is_free(self, begin: int, end: int) -> bool:
        return all(end <= low or high <= begin for low, high in self.mapped)


def vdso_of(pid: int) -> Vdso:
    """The vDSO of a process as it is now. Raises LabUnavailable when it has none, or one that
    cannot be read."""
    mapped, found = _mappings(pid)
    if found is None:
        raise LabUnavailable(
            f"process {pid} has no vDSO (was the machine booted with vdso=0?); its clocks "
            "stay the kernel's"
        )
    begin, end = found
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        image = os.pread(memory, end - begin, begin)
    finally:
        os.close(memory)
    if image[_CLASS_AT] != _CLASS_64:
        raise LabUnavailable(
            f"process {pid} is a 32-bit program; clocks are moved in 64-bit programs only"
        )
    return Vdso(begin, image, _entries(image), mapped)


def _mappings(pid: int) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """All memory of a process, and which of it is the vDSO: lines of /proc/PID/maps, "7ffd5c5c6000-
    7ffd5c5c8000 r-xp 00000000 00:00 0    [vdso]"."""
    mapped, vdso = [], None
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if match is not None:
            span = (int(match[1], 16), int(match[2], 16))
            mapped.append(span)
            if line.endswith("[vdso]"):
                vdso = span
    return mapped, vdso


def _entries(image: bytes) -> dict[str, int]:
    """Name (without its prefix) to offset of the functions, from the dynamic symbols."""
    sections = _sections(image)
    found: dict[str, int] = {}
    for section in sections:
        if section.type == _TYPE_DYNAMIC_SYMBOLS:
            names_offset = sections[section.link].offset
            found |= _symbols(image, section, names_offset)
    if "clock_gettime" not in found:
        raise LabUnavailable(
            f"this kernel's vDSO has no clock_gettime (it has {', '.join(sorted(found))})"
        )
    return found


def _sections(image: bytes) -> list[_Section]:
    (begin,) = _SECTIONS_AT[1].unpack_from(image, _SECTIONS_AT[0])
    (count,) = _SECTION_COUNT_AT[1].unpack_from(image, _SECTION_COUNT_AT[0])
    end = begin + count * _SECTION.size
    return [
        _Section(*_SECTION.unpack_from(image, offset))
        for offset in range(begin, end, _SECTION.size)
    ]


def _symbols(image: bytes, section: _Section, names_offset: int) -> dict[str, int]:
    found = {}
    for offset in range(section.offset, section.offset + section.size, _SYMBOL.size):
        name_offset, _, _, _, value, _ = _SYMBOL.unpack_from(image, offset)
        begin = names_offset + name_offset
        name = image[begin : image.index(b"\0", begin)].decode()
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        found[name] = value
    return found

"""What is installed only on request: `pip install 'meshwake[kind]'`.

The base package holds what most people use. A module that only one feature needs belongs to an
extra of pyproject.toml, is imported where that feature begins, and may be missing. Then the command
ends with one sentence that names the extra, and exit code 4.
"""

from __future__ import annotations

from importlib.util import find_spec

from meshwake.core.errors import LabUnavailable
from meshwake.core.resources import is_checkout

# By extra: what it is for, and the modules that it brings.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fetch": ("fetching a ztunnel from a registry", ("httpx",)),
    "report": ("pages for a browser", ("jinja2", "plotly")),
    "pytest": ("the pytest plugin", ("pytest",)),
    "search": ("searching for timelines", ("hypothesis",)),
    "kind": (
        "clusters",
        ("docker", "httpx", "kr8s", "httpx_ws", "pytest_kubernetes", "cryptography"),
    ),
    "machine": ("guests of lab machine", ("qemu",)),
    "faketime": ("the injector faketime", ("libfaketime",)),
    "sweep": ("sweeps on Dask and results as Parquet", ("distributed", "pyarrow")),
    "socks": ("a cluster behind a SOCKS proxy", ("socksio",)),
    # Last, since `kind` has cryptography too: for a module of both it names `kind`.
    "process": ("lab process", ("grpclib", "cryptography")),
}


def how_to_install(extra: str) -> str:
    """The command that installs `extra`, ready for a shell."""
    named = f"pip install 'meshwake[{extra}]'"
    if is_checkout():
        return f"{named} (in this checkout: make develop)"
    return named


def lacking_of(extra: str) -> str | None:
    """One sentence on what of `extra` is not installed; None when all of it is."""
    _, modules = EXTRAS[extra]
    # Looked for, not imported: the answer must not cost the import of a large library.
    for module in modules:
        if find_spec(module) is None:
            return _sentence(extra, module)
    return None


def require(extra: str) -> None:
    """Raises LabUnavailable when a module of `extra` is not installed."""
    lacking = lacking_of(extra)
    if lacking is not None:
        raise LabUnavailable(lacking)


def missing_extra(error: ImportError) -> LabUnavailable | None:
    """What to say instead of `error`; None when the module belongs to no extra, so that its absence
    is a defect of the installation."""
    # `import a.b` without a names a, and without b names a.b.
    missing = error.name or ""
    top_level, _, _ = missing.partition(".")

    # In the order of the table, in which `kind` comes before `process`.
    for extra, (_, modules) in EXTRAS.items():
        if top_level in modules:
            return LabUnavailable(_sentence(extra, top_level))
    return None


def _sentence(extra: str, module: str) -> str:
    purpose, _ = EXTRAS[extra]
    return f"the Python module {module} is not installed, and needed for {purpose}: {how_to_install(extra)}"

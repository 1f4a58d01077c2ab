"""Reads rules of Prometheus from the files in which people keep them.

These are rule files; PrometheusRule, VMRule, the Rules, ClusterRules and GlobalRules of Google
Managed Prometheus and OpenShift's AlertingRule; ConfigMaps and Secrets with rule files in them;
Lists and several documents of these; and values of charts. A file that Prometheus itself would not
load is refused, and so is one without any rule.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshwake.core.errors import BadInput
from meshwake.core.text_files import read_text
from meshwake.core.yaml_text import kinds_of, read_documents, read_objects

_KINDS = ("PrometheusRule", "VMRule", "Rules", "ClusterRules", "GlobalRules", "AlertingRule")
_RULE_KEYS = frozenset(
    {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
)
# Of Prometheus; and what Thanos, Mimir and VictoriaMetrics take besides.
_GROUP_KEYS = frozenset(
    [
        *("name", "rules", "interval", "limit", "query_offset", "labels"),
        *("partial_response_strategy", "source_tenants", "evaluation_delay", "remote_write"),
        *(
            "align_evaluation_time_on_interval",
            "type",
            "concurrency",
            "params",
            "headers",
            "notifier_headers",
            "debug",
        ),
        *(
            "eval_offset",
            "eval_delay",
            "eval_alignment",
            "tenant",
            "extra_filter_labels",
            "update_entries_limit",
        ),
    ]
)
_FILE_KEYS = frozenset({"groups", "namespace"})
_UNKNOWN_KEY = "Prometheus knows no such key"
_GROUPS_LINE = re.compile(r"^\s*groups\s*:", re.MULTILINE)
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII
)


@dataclass(frozen=True)
class AlertRule:
    """One alerting rule. It fires when its expression was true for `for_s`. `every_s`: how often it
    is evaluated, None for the default. `watches`: it is about the monitoring and not about the mesh
    (label `concerns: watchers`), so that it does not warn of an outage."""

    name: str
    expression: str
    file: str
    watches: bool = False
    for_s: float = 0
    every_s: float | None = None


@dataclass(frozen=True)
class RecordingRule:
    """One recording rule: the series that it makes."""

    name: str
    expression: str
    file: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass
class RuleSet:
    """All rules of some files."""

    alerts: list[AlertRule] = field(default_factory=list)
    records: list[RecordingRule] = field(default_factory=list)


def read_rule_files(paths: Iterable[Path]) -> RuleSet:
    """The rules of several files, which may use one another's records. Raises BadInput, also where
    none is an alert."""
    rules = RuleSet()
    described = []
    for path in paths:
        own = _read(path)
        rules.alerts += own.alerts
        rules.records += own.records

        # Where no file has an alert, the error says what they have instead.
        counted = f": {len(own.records)} recording rules" if own.records else ""
        described.append(f"{path}{counted}")

    if not rules.alerts:
        raise BadInput(
            f"{'; '.join(described)}: holds no alerting rule (alert:), so there is nothing to judge"
        )
    return rules


def read_rules(path: Path) -> list[AlertRule]:
    """The alerting rules of a rule file. Raises BadInput."""
    return read_rule_files([path]).alerts


def _read(path: Path) -> RuleSet:
    where = str(path)
    what = f"{path}: not a file of Prometheus rules"
    objects = _objects_in(path, what)

    # Rule files proper; there may be objects of Kubernetes, and charts, in the same text.
    bare = [each for each in objects if _is_rule_file(each)]
    if len(bare) > 1:
        raise BadInput(
            f"{where}: holds {len(bare)} documents with groups, and Prometheus reads the first one "
            "only; put all groups into one document"
        )

    rules = RuleSet()
    groups = 0
    for document in objects:
        for own in _group_lists(document, where):
            groups += 1
            _take(own, document, where, rules)

    # After its rules: those of another program have such keys too, and are refused by its name.
    for rule_file in bare:
        unknown = _unknown_keys(rule_file, _FILE_KEYS)
        if unknown:
            raise _wrong(where, f"{unknown}: {_UNKNOWN_KEY} next to groups")

    if not groups:
        raise BadInput(
            f"{what}: found {kinds_of(objects)}; expected rule files (groups:), "
            f"{', '.join(_KINDS)}, ConfigMaps of these and values of charts; try: promtool check "
            f"rules {path}"
        )
    if not rules.alerts and not rules.records:
        raise BadInput(f"{path}: holds no alerting rule: its groups are empty")
    return rules


def _objects_in(path: Path, what: str) -> list[Any]:
    """The documents of a file, and what is in Lists of them. Raises BadInput."""
    try:
        text = read_text(path)
    except BadInput as error:
        raise BadInput(f"{error}; give a file of Prometheus rules") from error

    try:
        return read_objects(text, what)
    except BadInput as error:
        raise BadInput(f"{error}; try: promtool check rules {path}") from error


# --- Where groups are ---------------------------------------------------------------------------


def _is_rule_file(document: Any) -> bool:
    """Whether a document is what Prometheus itself reads: groups, and no object of Kubernetes."""
    if not isinstance(document, dict):
        return False
    return "groups" in document and not document.get("kind")


def _group_lists(document: Any, where: str) -> Iterator[Any]:
    """Every list of groups in a document."""
    if not isinstance(document, dict):
        return

    kind = document.get("kind")
    if _is_rule_file(document):
        yield document["groups"]
    elif kind in _KINDS:
        # Without a spec it is a list of no groups, which `_take` accepts.
        spec = document.get("spec")
        yield spec.get("groups") if isinstance(spec, dict) else None
    elif kind in ("ConfigMap", "Secret"):
        yield from _of_data(document, where)
    elif kind is None:
        yield from _within(document, where)


def _of_data(document: dict[str, Any], where: str) -> Iterator[Any]:
    """Rule files in the values of a ConfigMap or Secret; other values are left alone."""
    for key in ("data", "stringData"):
        data = document.get(key)
        if not isinstance(data, dict):
            continue

        # Only the `data` of a Secret is base64; its `stringData` is as it was typed.
        is_encoded = document["kind"] == "Secret" and key == "data"
        for value in data.values():
            text = _decoded(value) if is_encoded else value
            yield from _of_text(text, where)


def _decoded(value: Any) -> str | None:
    """base64; None where it is not, or not of text."""
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _of_text(text: Any, where: str) -> Iterator[Any]:
    """The groups of a rule file; nothing of what is not one."""
    # The pattern first: other values of a ConfigMap may be large, and no YAML.
    if not isinstance(text, str) or not _GROUPS_LINE.search(text):
        return

    # Of several documents Prometheus reads the first, as in a file.
    for inner in read_documents(text, where)[:1]:
        if _is_rule_file(inner):
            yield inner["groups"]


def _within(value: Any, where: str) -> Iterator[Any]:
    """Values of a chart: groups at any depth, or in a text of several lines."""
    if isinstance(value, dict):
        yield from _within_mapping(value, where)
    elif isinstance(value, list):
        for each in value:
            yield from _within(each, where)
    # A rule file has several lines; a word of a chart is not worth parsing.
    elif isinstance(value, str) and "\n" in value:
        yield from _of_text(value, where)


def _within_mapping(values: dict[Any, Any], where: str) -> Iterator[Any]:
    for key, each in values.items():
        # A chart may call something else groups, too, such as a mapping of them.
        if key == "groups" and isinstance(each, list):
            yield each
        else:
            yield from _within(each, where)


# --- Groups and rules -----------------------------------------------------------------------------


def _take(groups: Any, document: dict[str, Any], where: str, rules: RuleSet) -> None:
    """Adds the rules of a list of groups. Raises BadInput where Prometheus would not load them."""
    if groups is None:
        return
    if not isinstance(groups, list):
        raise _wrong(where, f"groups: read {str(groups)[:60]!r}, expected a list")

    names = set()
    for group in groups:
        name, own = _named(group, document, where)
        if name in names:
            raise _wrong(where, f"two groups are called {name!r}")
        names.add(name)

        # A group without rules is allowed.
        if own is None:
            continue
        if not isinstance(own, list):
            raise _wrong(where, f"group {name}: rules: read {str(own)[:60]!r}, expected a list")

        about = f"group {name}"
        every_s = None
        if group.get("interval"):
            every_s = _duration_s(group["interval"], f"{about}: interval", where)

        # VictoriaMetrics has keys of its own, and rules that Prometheus understands all the same.
        open_keys = document.get("kind") == "VMRule"
        for rule in own:
            _take_rule(rule, about, where, open_keys, every_s, rules)


def _named(group: Any, document: dict[str, Any], where: str) -> tuple[str, Any]:
    """The name of a group, and its rules. Raises BadInput where it is not a group."""
    if not isinstance(group, dict):
        raise _wrong(where, f"a group is {str(group)[:60]!r}, expected name and rules")
    name, own = group.get("name"), group.get("rules")

    # First: to the rules of another program everything below would be a mistake.
    _refuse_others(document, group, own, where)

    unknown = _unknown_keys(group, _GROUP_KEYS)
    if unknown:
        raise _wrong(where, f"group {name}: {unknown}: {_UNKNOWN_KEY} here")

    if not isinstance(name, str) or not name:
        raise _wrong(where, f"a group has no name ({name!r})")
    return name, own


def _refuse_others(document: dict[str, Any], group: dict[str, Any], own: Any, where: str) -> None:
    """Raises BadInput for rules that look the same and are evaluated by something else."""
    # Loki's own operator has AlertingRule too; VictoriaLogs marks each group.
    is_of_logs = "loki" in str(document.get("apiVersion")) or group.get("type") == "vlogs"
    if is_of_logs:
        raise BadInput(
            f"{where}: holds rules over logs, which Prometheus cannot evaluate; give rules over "
            "series"
        )

    if "orgId" in group or _is_of_grafana(own):
        raise BadInput(
            f"{where}: holds rules of Grafana, which Prometheus cannot evaluate; give the rules of "
            "a Prometheus (alert: and expr:)"
        )


def _is_of_grafana(rules: Any) -> bool:
    """Grafana's rules have data and a condition instead of an expression."""
    if not isinstance(rules, list) or not rules:
        return False

    # One is enough: a file is exported by one program.
    first = rules[0]
    if not isinstance(first, dict):
        return False
    of_grafana, of_prometheus = {"data", "condition"}, {"alert", "record"}
    return not of_grafana.isdisjoint(first) and of_prometheus.isdisjoint(first)


def _take_rule(
    rule: Any,
    group: str,
    where: str,
    open_keys: bool,
    every_s: float | None,
    rules: RuleSet,
) -> None:
    """Adds one rule. `open_keys`: keys that Prometheus does not know are allowed. Raises BadInput
    where Prometheus would not load it."""
    what, name = _kind_and_name(rule, group, where)
    about = f"{group}: {name}"

    unknown = _unknown_keys(rule, _RULE_KEYS)
    if unknown and not open_keys:
        raise _wrong(where, f"{about}: {unknown}: {_UNKNOWN_KEY} here")

    expression = _expression(rule.get("expr"), about, where)
    # Annotations are templates of Prometheus, and may have braces; these three may not.
    if "{{" in f"{name}{expression}{rule.get('for', '')}":
        raise BadInput(
            f"{where}: {about} is a template of helm; render it first: helm template CHART > FILE"
        )

    labels = _labels(rule.get("labels"), about, where)
    file = Path(where).name

    if what == "record":
        if not re.fullmatch(r"[a-zA-Z_:][\w:]*", name, re.ASCII):
            raise _wrong(where, f"{about}: not a name that a series can have")
        # Sorted, so that records with the same labels are equal.
        rules.records.append(RecordingRule(name, expression, file, tuple(sorted(labels.items()))))
        return

    for_s = 0.0
    if rule.get("for") is not None:
        for_s = _duration_s(rule["for"], f"{about}: for", where)
    watches = labels.get("concerns") == "watchers"
    rules.alerts.append(AlertRule(name, expression, file, watches, for_s, every_s))


def _kind_and_name(rule: Any, group: str, where: str) -> tuple[str, str]:
    """("alert" or "record", the name). Raises BadInput."""
    if not isinstance(rule, dict):
        found = str(rule)[:60]
        raise _wrong(where, f"{group}: a rule is {found!r}, expected alert or record, and expr")

    # Neither, or both.
    if ("alert" in rule) == ("record" in rule):
        keys = ", ".join(map(str, rule)) or "nothing"
        raise _wrong(where, f"{group}: a rule needs either alert or record; it has {keys}")

    what = "alert" if "alert" in rule else "record"
    name = rule[what]
    if not isinstance(name, str) or not name:
        raise _wrong(where, f"{group}: {what}: read {name!r}, expected a name")
    return what, name


def _expression(value: Any, about: str, where: str) -> str:
    # `expr: 1` is a number to YAML and an expression to Prometheus; `expr: true` is neither.
    is_text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if not is_text or not str(value).strip():
        raise _wrong(where, f"{about}: expr: read {value!r}, expected an expression")
    return str(value)


def _labels(labels: Any, about: str, where: str) -> dict[str, str]:
    """The labels of a rule as texts. Raises BadInput."""
    if labels is None:
        return {}

    if not _is_flat(labels):
        found = str(labels)[:60]
        raise _wrong(where, f"{about}: labels: read {found!r}, expected names with values")

    # A number or a bool is a text to Prometheus, as `severity: 1`.
    return {str(key): str(value) for key, value in labels.items()}


def _is_flat(labels: Any) -> bool:
    if not isinstance(labels, dict):
        return False
    nested = [value for value in labels.values() if isinstance(value, (dict, list))]
    return not nested


def _duration_s(value: Any, about: str, where: str) -> float:
    """A duration of Prometheus in seconds: `5m`, `1h30m`, `0`. Raises BadInput."""
    text = str(value)
    if text == "0":
        return 0

    # Long texts are not tried: so many digits would be slow to convert.
    match = _DURATION.fullmatch(text) if 0 < len(text) < 60 else None
    if match is None:
        raise _wrong(where, f"{about}: read {text[:60]!r}, expected a duration such as 5m or 1h30m")

    units = ("y", "w", "d", "h", "m", "s", "ms")
    total_s = 0.0
    for count, unit in zip(match.groups(), units, strict=True):
        if count is not None:
            total_s += int(count) * _UNITS_S[unit]
    return total_s


def _unknown_keys(found: dict[Any, Any], known: frozenset[str]) -> str:
    """The keys of `found` that are not `known`, for a message; "" without any."""
    # A key of YAML may be a number.
    unknown = [str(key) for key in found if key not in known]
    return ", ".join(sorted(unknown))


def _wrong(where: str, what: str) -> BadInput:
    return BadInput(
        f"{where}: not a file of Prometheus rules: {what}; try: promtool check rules {where}"
    )

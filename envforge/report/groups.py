"""Rules of one kind in one sentence: a request for many releases breaks one rule for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args

from envforge.capability.models import Evidence, parse_range
from envforge.report.sentences import rule_text
from envforge.resolver.model import Broken
from envforge.values import version_key

_EACH = 4
"""So many rules of one kind are still read one by one: a release with its CUDA variants."""

_TEXTS = {
    "kernels": "none of {count} wheels (torch {torch}) carries code that runs on compute"
    " capability {compute_capability}",
    "shipped-kernels": "none of {count} builds (torch {torch}) of {route} carries code that"
    " runs on compute capability {compute_capability}",
    "torch-cuda": "{count} releases (torch {torch}) compile only with the CUDA of their time, each"
    " within {range}",
    "torch-capability": "{count} releases (torch {torch}) can be built only for compute capability"
    " {range}, the card is {compute_capability}",
    "cuda-gcc": "{count} toolkits (CUDA {cuda}) accept only the gcc of their time as host compiler,"
    " each within {range}",
    "torch-gcc": "{count} releases (torch {torch}) need the gcc of their time, each within {range}",
    "torch-python": "{count} releases (torch {torch}) are known to work with the Pythons of their"
    " time only, within {pythons}",
    "wheel-python": "{count} releases (torch {torch}) are published for the Pythons of their time"
    " only",
    "wheel-glibc": "the wheels of {count} releases (torch {torch}) need a newer glibc: {glibc}",
    "driver-at-hand": "{count} toolkits (CUDA {cuda}) need a newer driver than {driver}: {floor}",
}


class Group(NamedTuple):
    """Rules of one kind that a request broke; one rule where the kind is not worth grouping."""

    rules: tuple[Broken, ...]

    @property
    def id(self) -> str:
        """The rule's own id, or the kind."""
        return self.rules[0].id if len(self.rules) == 1 else self.rules[0].kind

    @property
    def text(self) -> str:
        if len(self.rules) == 1:
            return rule_text(self.rules[0])
        facts = [dict(rule.facts) for rule in self.rules]
        spans = {name: _span([row[name] for row in facts]) for name in facts[0]}
        return _TEXTS[self.rules[0].kind].format(count=len(facts), **spans)

    @property
    def sources(self) -> list[str]:
        """Where the rules come from, each once."""
        return list(dict.fromkeys(rule.source for rule in self.rules))

    @property
    def source(self) -> str:
        """The only one, or the first of many."""
        first, *others = self.sources
        return f"{first}; and {len(others)} more" if others else first

    @property
    def evidence(self) -> str:
        """The weakest of its rules': all of them hold the group up."""
        order = get_args(Evidence)
        return max((rule.evidence for rule in self.rules), key=order.index)


def groups(rules: Iterable[Broken]) -> Iterator[Group]:
    """Put together what is of one kind, in the order in which the kinds come first."""
    kinds: dict[str, list[Broken]] = {}
    for rule in rules:
        kinds.setdefault(rule.kind, []).append(rule)
    for kind, members in kinds.items():
        if kind in _TEXTS and len(members) > _EACH:
            yield Group(tuple(members))
        else:
            yield from (Group((rule,)) for rule in members)


def group_json(group: Group) -> dict[str, Any]:
    """A rule; of several also each of them."""
    document: dict[str, Any] = {
        "id": group.id,
        "text": group.text,
        "source": group.source,
        "evidence": group.evidence,
    }
    if len(group.rules) > 1:
        document["members"] = [group_json(Group((rule,))) for rule in group.rules]
    return document


def _span(values: list[str]) -> str:
    """``1.0.0 to 2.15.0`` of versions, ``>=7.5,<13.1`` around ranges."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    if all(value[0] in "<>" for value in distinct):
        return _around(distinct)
    versions = sorted({word for value in distinct for word in _versions(value)}, key=version_key)
    return f"{versions[0]} to {versions[-1]}" if versions else " and ".join(sorted(distinct))


def _versions(value: str) -> list[str]:
    """The versions among words: ``3.6, 3.7``; not ``default``, ``sm_35`` or ``cp310-cp310``."""
    words = value.replace(",", " ").split()
    return [word for word in words if word.replace(".", "").isdecimal()]


def _around(ranges: list[str]) -> str:
    """The narrowest range that holds all of them."""
    parsed = [parse_range(text) for text in ranges]
    lower = min(row.lower for row in parsed)
    uppers = [row.upper for row in parsed]
    bounds = [f">={_dotted(lower)}"] if lower else []
    if None not in uppers:
        bounds.append(f"<{_dotted(max(upper for upper in uppers if upper))}")
    return ",".join(bounds) or "any"


def _dotted(key: tuple[int, ...]) -> str:
    return ".".join(map(str, key))

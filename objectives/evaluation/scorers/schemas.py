"""Whether a JSON Schema can be scored with: checked where questions are read."""

import json
from dataclasses import dataclass, field
from typing import Any

from .patterns import check_pattern

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def check_schema(reference: str) -> None:
    """Check a JSON Schema, and that scoring finds all that it refers to: it fetches nothing.

    Raises:
        ValueError: If it is none, or a reference leads out of it.
    """
    import jsonschema

    try:
        schema = json.loads(reference)
        if not isinstance(schema, dict | bool):
            raise ValueError("it must be an object")
        kind = jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
        if isinstance(schema, dict):
            specification = _specification(schema)
            _Parts(kind, specification).check(schema, _resolver(schema, specification))
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        reason = getattr(error, "message", str(error))
        raise ValueError(f"{reference!r:.60} is no JSON Schema: {reason}") from error


def _specification(schema: dict[str, Any]) -> Any:
    """Return what the schema's own draft calls references, parts and names."""
    from referencing.jsonschema import DRAFT202012

    return DRAFT202012.detect(schema)


def _resolver(schema: dict[str, Any], specification: Any) -> Any:
    """Return what finds the parts of a schema, and nothing else."""
    from referencing import Registry

    whole = specification.create_resource(schema)
    known = whole @ Registry() if whole.id() else Registry().with_resource("", whole)
    return known.crawl().resolver(whole.id() or "")


@dataclass
class _Parts:
    """The parts of a schema, each checked once.

    Args:
        kind: The validator of the whole.
        specification: Of its draft.
    """

    kind: Any
    specification: Any
    _seen: set[int] = field(default_factory=set)

    def check(self, part: Any, resolver: Any) -> None:
        """Check a part, the parts in it, and those that they refer to.

        Args:
            part: A schema.
            resolver: Finds references as they are meant there: parts may have bases of their own.
        """
        if not isinstance(part, dict) or id(part) in self._seen:
            return
        self._seen.add(id(part))
        for pattern in part.get("patternProperties", ()):
            check_pattern(pattern)  # old drafts do not
        for key in _REFERENCES:
            if isinstance(part.get(key), str):
                found = _found(key, part[key], resolver)
                self.kind.check_schema(found.contents)  # perhaps no part, but for the reference
                self.check(found.contents, found.resolver)
        for inner in self.specification.create_resource(part).subresources():
            self.check(inner.contents, resolver.in_subresource(inner))


def _found(key: str, name: str, resolver: Any) -> Any:
    """Return the part that a reference leads to.

    Raises:
        ValueError: If there is none.
    """
    from referencing.exceptions import Unresolvable

    try:
        return resolver.lookup(name)
    except (Unresolvable, LookupError, ValueError, TypeError):
        raise ValueError(f"its {key} {name!r} is not in it") from None

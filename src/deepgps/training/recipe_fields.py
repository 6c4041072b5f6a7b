"""The fields of recipes by their dotted names, ``training.max_epochs``, and what they mean."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Schema = type[BaseModel]


def group_of(field: FieldInfo) -> Schema | None:
    """The schema of a field that is a group of fields, None if it is a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def fields(schema: Schema, within: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field by its dotted name, groups before what is in them."""
    for name, field in schema.model_fields.items():
        yield within + name, field
        if group := group_of(field):
            yield from fields(group, f"{within}{name}.")


def paths(schema: Schema) -> list[str]:
    """The dotted names of all fields."""
    return [path for path, _ in fields(schema)]


def meaning(path: str, schema: Schema) -> str | None:
    """What a field is for, in a few words; of a part of a value, what the value is for."""
    known = dict(fields(schema))
    while path and path not in known:
        path = path.rpartition(".")[0]
    text = known[path].description if path else None
    return " ".join(text.replace("``", "").split()).rstrip(".") if text else None


def first_unknown(content: Mapping[str, Any], schema: Schema, within: str = "") -> str | None:
    """The dotted name of the first field that a schema does not know."""
    for name, value in content.items():
        if name not in schema.model_fields:
            return f"{within}{name}"
        group = group_of(schema.model_fields[name])
        if group and isinstance(value, Mapping):
            unknown = first_unknown(value, group, f"{within}{name}.")
            if unknown:
                return unknown
    return None


def nearest(path: str, known: Sequence[str]) -> str:
    """The known name that one most probably meant: of the same last part, or else the most similar."""
    last = path.rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == last]
    # The whole name counts where the place is right, the last part where it is not.
    ends = {each.rpartition(".")[2]: each for each in reversed(known)}
    by_path, by_end = get_close_matches(path, known, 1, 0.8), get_close_matches(last, ends, 1, 0.6)
    likely = same or by_path or [ends[each] for each in by_end] or known
    return get_close_matches(path, likely, 1, 0.0)[0]

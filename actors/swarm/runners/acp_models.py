"""The models that an agent of the Agent Client Protocol offers, and which of them is meant; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from actors.swarm.runners.lines import inner, objects, text_of

#: Models that an error names at most.
_NAMED = 12


class Model(Struct, frozen=True):
    """One model of a session: its id, its name for people, and the option of the session that chooses it;
    without one it is chosen by ``session/set_model``.
    """

    id: str
    name: str
    option: str | None = None


def models_of(opened: dict[str, Any]) -> list[Model]:
    """The models that the answer to a new or loaded session offers: by an option of the category ``model``,
    else by ``models``, which older agents have.
    """
    by_option = list(_of_options(opened))
    listed = objects(inner(opened, "models"), "availableModels")
    return by_option or [Model(text_of(each, "modelId"), text_of(each, "name")) for each in listed]


def _of_options(opened: dict[str, Any]) -> Iterator[Model]:
    for option in objects(opened, "configOptions"):
        if text_of(option, "category") != "model":
            continue
        listed = objects(option, "options")
        grouped = [each for group in listed for each in objects(group, "options")]
        for each in grouped or listed:
            yield Model(text_of(each, "value"), text_of(each, "name"), text_of(option, "id"))


def find_model(models: Iterable[Model], wanted: str) -> Model | None:
    """The model that is called so: by its id, else by its name, else by the last part of its id."""
    models = [each for each in models if each.id]
    by_id = [each for each in models if each.id == wanted]
    by_name = [each for each in models if each.name.lower() == wanted.lower()]
    by_end = [each for each in models if each.id.rpartition("/")[2] == wanted]
    return next(iter(by_id or by_name or (by_end if len(by_end) == 1 else [])), None)


def names_of(models: Iterable[Model]) -> str:
    """Their ids, for people."""
    ids = [each.id for each in models if each.id]
    more = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")

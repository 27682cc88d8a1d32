"""Lists in pages, the way OpenAI's API does: `limit`, `after`, `order` in; `first_id` … `next_after` out.

A cursor is the id of the last object of the page before, so a client may start after any object it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from indigo.kernel.errors import InvalidRequest

T = TypeVar("T")

AFTER_NAMES = ("after", "last", "cursor")
"""`after` is OpenAI's; the others are what older clients of ours send."""
ORDERS = ("asc", "desc")


@dataclass(frozen=True, slots=True)
class Paging:
    """What a client asked for. `limit` None is everything."""

    limit: int | None
    after: str | None
    order: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    has_more: bool


def parse(query: Mapping[str, str], *, default: int | None, most: int, order: str = "asc") -> Paging:
    """The paging of a query string. Raises InvalidRequest naming the parameter and what it should be."""
    afters = {query[name] for name in AFTER_NAMES if name in query}
    if len(afters) > 1:
        raise InvalidRequest("after, last and cursor are one parameter; send one of them.", param="after")
    wanted = query.get("order", order)
    if wanted not in ORDERS:
        raise InvalidRequest("order should be asc or desc.", code="invalid_value", param="order")
    return Paging(_limit(query.get("limit"), default, most), afters.pop() if afters else None, wanted)


def cut(items: Sequence[T], paging: Paging, id_of: Callable[[T], str]) -> Page[T]:
    """The page of `items`, which are all there is for this caller, in ascending order.

    Raises InvalidRequest for a cursor that is none of theirs: made up, gone, or somebody else's.
    """
    ordered = list(items) if paging.order == "asc" else list(reversed(items))
    start = 0
    if paging.after is not None:
        ids = [id_of(item) for item in ordered]
        if paging.after not in ids:
            raise InvalidRequest(
                "after is not the id of an object in this list; use next_after of the page before.",
                code="invalid_cursor",
                param="after",
            )
        start = ids.index(paging.after) + 1
    end = len(ordered) if paging.limit is None else start + paging.limit
    return Page(ordered[start:end], has_more=end < len(ordered))


def body(page: Page[T], id_of: Callable[[T], str], render: Callable[[T], Any]) -> dict[str, Any]:
    """OpenAI's list object, with `next_after` beside it: the cursor of the next page, null on the last."""
    first = id_of(page.items[0]) if page.items else None
    last = id_of(page.items[-1]) if page.items else None
    return {
        "object": "list",
        "data": [render(item) for item in page.items],
        "first_id": first,
        "last_id": last,
        "has_more": page.has_more,
        "next_after": last if page.has_more else None,
    }


def _limit(text: str | None, default: int | None, most: int) -> int | None:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit should be a number from 1 to {most}.", code="invalid_value", param="limit")
    return int(text)

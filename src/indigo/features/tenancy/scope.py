"""The proof that an organization was looked up: what stores of other features take instead of an id."""

from __future__ import annotations


class OrgScope:
    """One organization whose rows may be touched. Only `service.Tenancy` can make one."""

    __slots__ = ("_org_id",)

    def __init__(self, org_id: str, seal: object) -> None:
        if seal is not SEAL:
            raise TypeError("an OrgScope comes from Tenancy.scope")
        self._org_id = org_id

    @property
    def org_id(self) -> str:
        return self._org_id


SEAL = object()
"""For this feature's own use."""

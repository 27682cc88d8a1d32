"""What the first start makes beside the default organization: the keys that are printed once."""

from __future__ import annotations

import msgspec

from indigo.backends.sql.database import Database
from indigo.features.keys.service import Keys
from indigo.features.tenancy.passwords import Passwords, made_up
from indigo.features.tenancy.service import Tenancy, canonical_email


class FirstStart(msgspec.Struct, frozen=True):
    """To be printed once. `admin_password` is None where the operator chose it; repr shows no secrets."""

    org_id: str
    project_id: str
    user_id: str
    admin_email: str
    admin_password: str | None
    project_key: str
    admin_key: str

    def __repr__(self) -> str:
        return f"FirstStart(org_id={self.org_id!r}, admin_email={self.admin_email!r})"


async def first_start(
    database: Database, tenancy: Tenancy, keys: Keys, passwords: Passwords, *, email: str, password: str = ""
) -> FirstStart | None:
    """Make everything in one unit of work; None when it was made before, or by another instance just now."""
    async with database.read() as session:
        if await tenancy.installation(session) is not None:
            return None
    chosen = password or made_up()
    password_hash = await passwords.hash(chosen)
    async with database.write() as session:
        made = await tenancy.bootstrap(session, email, password_hash)
        if made is None:
            return None
        scope = await tenancy.scope(session, made.org_id)
        project_key = await keys.create(
            session, scope, kind="project", name="First project key", project_id=made.project_id
        )
        admin_key = await keys.create(session, scope, kind="admin", name="First admin key", user_id=made.user_id)
    return FirstStart(
        org_id=made.org_id,
        project_id=made.project_id,
        user_id=made.user_id,
        admin_email=canonical_email(email),
        admin_password=None if password else chosen,
        project_key=project_key.secret,
        admin_key=admin_key.secret,
    )

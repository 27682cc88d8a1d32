"""The rules of tenancy: organizations, projects, people, and what the first start makes.

Every method works within the unit of work of its caller and commits nothing itself.
"""

from __future__ import annotations

import unicodedata

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql import changes
from indigo.features.tenancy import store
from indigo.features.tenancy.scope import SEAL, OrgScope
from indigo.features.tenancy.tables import (
    Installation,
    Organization,
    OrganizationMember,
    Project,
    ProjectMember,
    User,
)
from indigo.kernel.clock import Clock
from indigo.kernel.errors import Conflict, InvalidRequest, NotFound
from indigo.kernel.ids import new_id

TOPIC = "access"
"""The topic of changes that may take a credential's rights away."""

MOST_NAME = 200


class Tenancy:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def scope(self, session: AsyncSession, org_id: str) -> OrgScope:
        """The scope of a live organization; raises NotFound."""
        if await store.organization(session, org_id) is None:
            raise NotFound(f"There is no organization {org_id!r}.", code="organization_not_found")
        return OrgScope(org_id, SEAL)

    async def create_organization(self, session: AsyncSession, name: str) -> tuple[Organization, OrgScope]:
        row = Organization(id=new_id("org"), name=_name(name), created_at=self._clock.now())
        await store.add(session, row)
        return row, OrgScope(row.id, SEAL)

    async def create_project(self, session: AsyncSession, scope: OrgScope, name: str) -> Project:
        row = Project(id=new_id("proj"), org_id=scope.org_id, name=_name(name), created_at=self._clock.now())
        await store.add(session, row)
        return row

    async def project(self, session: AsyncSession, scope: OrgScope, project_id: str) -> Project:
        """A live project of the organization; raises NotFound."""
        row = await store.project(session, scope, project_id)
        if row is None:
            raise NotFound(f"There is no project {project_id!r}.", code="project_not_found")
        return row

    async def projects(self, session: AsyncSession, scope: OrgScope) -> list[Project]:
        return await store.projects(session, scope)

    async def create_user(
        self,
        session: AsyncSession,
        email: str,
        *,
        name: str = "",
        password_hash: str | None = None,
        is_system_admin: bool = False,
    ) -> User:
        """Raises Conflict when the e-mail address is taken, InvalidRequest when it is none."""
        row = User(
            id=new_id("user"),
            email=canonical_email(email),
            name=name,
            password_hash=password_hash,
            is_system_admin=is_system_admin,
            created_at=self._clock.now(),
        )
        try:
            async with session.begin_nested():
                await store.add(session, row)
        except IntegrityError:
            raise Conflict(f"There is a user with the e-mail address {row.email} already.") from None
        return row

    async def user_by_email(self, session: AsyncSession, email: str) -> User | None:
        return await store.user_by_email(session, canonical_email(email))

    async def archive_organization(self, session: AsyncSession, scope: OrgScope) -> None:
        """Its credentials are dead from then on."""
        await store.archive_organization(session, scope, self._clock.now())
        await changes.bump(session, TOPIC)

    async def archive_project(self, session: AsyncSession, scope: OrgScope, project_id: str) -> None:
        """Its credentials are dead from then on; raises NotFound."""
        if not await store.archive_project(session, scope, project_id, self._clock.now()):
            raise NotFound(f"There is no project {project_id!r}.", code="project_not_found")
        await changes.bump(session, TOPIC)

    async def disable_user(self, session: AsyncSession, user_id: str) -> None:
        """The person's credentials are dead from then on; raises NotFound."""
        if not await store.disable_user(session, user_id, self._clock.now()):
            raise NotFound(f"There is no user {user_id!r}.", code="user_not_found")
        await changes.bump(session, TOPIC)

    async def installation(self, session: AsyncSession) -> Installation | None:
        """What the first start made; None before it."""
        return await store.installation(session)

    async def installed_scope(self, session: AsyncSession) -> OrgScope:
        """The default organization's scope; raises NotFound before the first start."""
        found = await store.installation(session)
        return await self.scope(session, "(default)" if found is None else found.org_id)

    async def bootstrap(self, session: AsyncSession, email: str, password_hash: str) -> Installation | None:
        """Make the default organization, its project and the first system admin; None if they are there.

        Of several instances that start together exactly one gets the Installation.
        """
        now = self._clock.now()
        made = Installation(
            id=1, org_id=new_id("org"), project_id=new_id("proj"), user_id=new_id("user"), created_at=now
        )
        if not await store.claim(session, made):
            return None
        await store.add(
            session,
            Organization(id=made.org_id, name="Default", created_at=now),
            Project(id=made.project_id, org_id=made.org_id, name="Default", created_at=now),
            User(
                id=made.user_id,
                email=canonical_email(email),
                name="System admin",
                password_hash=password_hash,
                is_system_admin=True,
                created_at=now,
            ),
            OrganizationMember(org_id=made.org_id, user_id=made.user_id, role="owner", created_at=now),
            ProjectMember(project_id=made.project_id, user_id=made.user_id, role="owner", created_at=now),
        )
        return made


def canonical_email(email: str) -> str:
    """One spelling for one mailbox: trimmed, NFKC, lower case; raises InvalidRequest for anything else."""
    text = unicodedata.normalize("NFKC", email).strip().lower()
    local, at, domain = text.rpartition("@")
    if not (local and at and domain) or len(text) > 254 or any(c.isspace() or not c.isprintable() for c in text):
        raise InvalidRequest(f"{email!r} is not an e-mail address.", code="invalid_email", param="email")
    return text


def _name(name: str) -> str:
    text = name.strip()
    if not text or len(text) > MOST_NAME or not text.isprintable():
        raise InvalidRequest(f"A name has 1 to {MOST_NAME} printable characters.", param="name")
    return text

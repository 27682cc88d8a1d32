"""The documentation says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from indigo.kernel import settings
from scripts import docs

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", list(docs.pages()), ids=lambda page: page.name)
def test_a_generated_page_is_current(page: Path) -> None:
    assert page.read_text() == docs.pages()[page], "run scripts/docs"


def test_the_check_finds_a_stale_page_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "scripts/docs.py").write_text((ROOT / "scripts/docs.py").read_text())
    command = [sys.executable, str(tmp_path / "scripts/docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "docs/operating/settings.md is out of date" in result.stderr
    assert not (tmp_path / "docs").exists()


@pytest.mark.promise("P100")
def test_every_setting_is_documented_under_each_of_its_names() -> None:
    page = (ROOT / "docs/operating/settings.md").read_text()
    for field in settings.fields():
        for name in (field.metadata["env"], *field.metadata["aliases"]):
            assert f"`{name}`" in page


@pytest.mark.promise("P100")
@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("HTTP_PORT", "9000", "port", 9000),
        ("DB_POSTGRESQL_WRITE_DSN", "postgresql://h/d", "database_url", "postgresql://h/d"),
        ("DATABASE_URL", "postgresql://h/d", "database_url", "postgresql://h/d"),
        ("AUTO_MIGRATE", "false", "auto_migrate", False),
        ("ENABLE_SWAGGER", "false", "enable_swagger", False),
        ("LOG_LEVEL", "debug", "log_level", "debug"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("HF_TOKEN", "hf_x", "hf_token", "hf_x"),
        ("VLLM_INTERNAL_KEY", "k", "vllm_internal_key", "k"),
        ("VLLM_SERVED_NAME", "m", "vllm_served_name", "m"),
        ("JAN_PROVIDER_CONFIGS_FILE", "p.yaml", "providers_file", "p.yaml"),
        ("JAN_INFERENCE_MODEL_URL", "http://h", "inference_url", "http://h"),
    ],
)
def test_variables_of_existing_deployments_are_honoured(name: str, text: str, field: str, value: object) -> None:
    assert getattr(settings.load({name: text}), field) == value


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda page: page.name)
def test_no_link_in_the_documentation_leads_nowhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_decision_record_is_short() -> None:
    records = list((ROOT / "docs/decisions").glob("0*.md"))
    assert len(records) >= 4
    for record in records:
        assert len(record.read_text().splitlines()) <= 40, record.name
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 200

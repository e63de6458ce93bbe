"""Files for people who come by: they parse, and say what is so."""

import re
from pathlib import Path

import pytest
import yaml

import fss

ROOT = Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
WRITTEN = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", ".github/pull_request_template.md")]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*WRITTEN, *PAGES], ids=lambda p: p.name)
def test_scripts_and_links_exist(path):
    text = path.read_text(encoding="utf-8")
    paths = re.findall(r"\b(?:scripts|studies|tests|fss|configs|docs)/[\w./-]*\w", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    named = [name for name in [*paths, *links] if "NAME" not in name]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_citation():
    """Keys that the Citation File Format 1.2.0 requires, and the version of the package."""
    cited = load(ROOT / "CITATION.cff")
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert all(cited[key] for key in ("message", "title", "authors"))
    assert cited["version"] == fss.__version__ and cited["license"] == "MIT"
    for paper in cited["references"]:
        assert all(paper[key] for key in ("type", "title", "authors"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for paper in cited["references"]:
        (number,) = [i["value"].removeprefix("arXiv:") for i in paper["identifiers"]]
        assert f"arxiv.org/abs/{number}" in readme and paper["title"] in readme


def test_changelog_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([\d.]+)\] (?:\(unreleased\)|- \d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert versions and versions[0] == fss.__version__


def test_workflow_runs_the_checks_on_supported_pythons():
    job = load(ROOT / ".github/workflows/check.yml")["jobs"]["check"]
    assert "sh scripts/check.sh" in [step.get("run") for step in job["steps"]]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    minors = re.search(r"for minor in \(([\d, ]+)\)", setup)
    assert minors
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in minors[1].split(", ")]
    assert job["timeout-minutes"]


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.name)
def test_issue_forms(path):
    form = load(path)
    assert form["name"] and form["description"]
    fields = form["body"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert {field["type"] for field in fields} <= {"textarea", "input", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)


def test_bug_reports_ask_for_the_doctor():
    fields = {field["id"]: field for field in load(ROOT / ".github/ISSUE_TEMPLATE/bug_report.yml")["body"]}
    assert "fss doctor --json" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]


def test_hooks_fetch_nothing():
    repositories = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [r["repo"] for r in repositories] == ["local"]
    tools = {hook["entry"].split()[2] for hook in repositories[0]["hooks"]}
    assert {hook["language"] for hook in repositories[0]["hooks"]} == {"system"}
    checks = (ROOT / "scripts/check.sh").read_text(encoding="utf-8")
    assert tools == {"ruff", "mypy"} and all(f"-m {tool}" in checks for tool in tools)


def test_no_two_files_of_tests_share_a_name():
    """pytest imports them by their names alone, and leaves out whole files that share one."""
    from collections import Counter

    counts = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []

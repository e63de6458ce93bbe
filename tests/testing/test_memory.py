"""How much memory features may take: a share of what is free, of the machine and of a container."""

from fss.recipes import load_config
from fss.testing import memory

GIB = 2**30


def group(folder, limit, used, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\nfile {cached}\nkernel 5\n")
    return folder


def test_a_share_of_what_is_free(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(memory, "_system", lambda: 24 * GIB)
    monkeypatch.setattr(memory, "_container", lambda: float("inf"))
    assert memory.budget(None) == memory.SHARE * 24 * GIB < 24 * GIB
    monkeypatch.setattr(memory, "_container", lambda: 4 * GIB)
    assert memory.budget(None) == memory.SHARE * 4 * GIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.budget(None) == memory.SHARE * GIB  # four processes keep no more than one


def test_what_is_set_is_taken(monkeypatch):
    monkeypatch.setattr(memory, "free_ram", lambda: 1.0)
    assert load_config("shapes", "cwt").cache_gib is None
    config = load_config("shapes", "cwt", ["cache_gib=1.5"])
    assert memory.budget(config.cache_gib) == 1.5 * GIB and memory.budget(0) == 0


def test_the_limit_of_a_container(tmp_path):
    nowhere = tmp_path / "none"
    assert memory._container(group(tmp_path / "a", 8 * GIB, 3 * GIB, 2 * GIB), nowhere) == 7 * GIB
    assert memory._container(group(tmp_path / "b", "max", 3 * GIB), nowhere) == float("inf")
    assert memory._container(group(tmp_path / "c", GIB, 3 * GIB), nowhere) == 0
    assert memory._container(tmp_path / "d", nowhere) == float("inf")  # no cgroup v2


def test_the_limit_of_a_job_among_others(tmp_path):
    """As of a scheduler, whose jobs see the whole tree: the nearest limit may be a parent's."""
    root, own = group(tmp_path / "cgroup", "max", 0), tmp_path / "own"
    own.write_text("0::/jobs/7/step\n")
    group(root / "jobs/7", 6 * GIB, 2 * GIB)
    group(root / "jobs/7/step", "max", GIB)
    group(root / "jobs/8", GIB, 0)
    assert memory._container(root, own) == 4 * GIB
    group(root / "jobs/7/step", 2 * GIB, GIB)
    assert memory._container(root, own) == GIB


def test_free_memory_here_is_a_number_of_bytes():
    assert 2**20 < memory.free_ram() < 2**50


def test_the_limit_by_the_first_version_of_cgroups(tmp_path):
    own, job = tmp_path / "own", tmp_path / "cgroup/memory/slurm/job_7"
    own.write_text("9:cpuset:/\n4:memory:/slurm/job_7\n0::/\n")
    job.mkdir(parents=True)
    (job / "memory.limit_in_bytes").write_text(f"{6 * GIB}\n")
    (job / "memory.usage_in_bytes").write_text(f"{3 * GIB}\n")
    (job / "memory.stat").write_text(f"cache 1\ntotal_cache {GIB}\n")
    assert memory._container(tmp_path / "cgroup", own) == 4 * GIB

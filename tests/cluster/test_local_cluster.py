"""The embedded cluster: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from rain.client import Client, LocalCluster, RainException, blob, tasks
from rain.testing.leaks import no_leaks

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
FORGOTTEN = ("RAIN_ADDRESS", "RAIN_ACCESS_FILE", "RAIN_TOKEN", "RAIN_TOKEN_FILE")


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for name in FORGOTTEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def concatenated(client: Client) -> bytes:
    with client.new_session():
        return tasks.concat([blob(b"a"), blob(b"b")]).result()


def gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_life(tmp_path):
    with no_leaks():
        with LocalCluster(2, 1, timeout=60) as cluster, cluster.client() as client:
            private = Path(cluster.access_file).parents[1]
            assert private.parent == tmp_path / f"rain-{os.getuid()}"
            assert private.stat().st_mode & 0o777 == 0o700
            assert Path(cluster.logdir).is_dir()
            assert client.address == cluster.address
            assert client.cluster is None
            assert concatenated(client) == b"ab"
            assert [worker["resources"]["cpus"] for worker in client.get_server_info()["workers"]] == [1, 1]
        cluster.close()
        assert not private.exists()


def test_dashboard():
    with LocalCluster(1, 1, timeout=60) as cluster, cluster.client() as client:
        with urllib.request.urlopen(f"{cluster.http_url}health", timeout=20) as answer:
            assert answer.read() == b"ok"
        assert client.get_server_info()["server"]["http_url"] == cluster.http_url == client.dashboard_url
    with LocalCluster(1, 1, http=False, timeout=60) as cluster, cluster.client() as client:
        assert cluster.http_url is None
        assert client.get_server_info()["server"]["http_url"] is None


def test_cpus_resources_and_more_workers(tmp_path):
    logs = tmp_path / "logs"
    with (
        no_leaks(),
        LocalCluster([1, 3], resources={"licence": 2}, logdir=logs, workdir=tmp_path / "work", timeout=60) as cluster,
        cluster.client() as client,
    ):
        worker_id = cluster.add_worker(5)
        workers = client.get_server_info()["workers"]
        assert sorted(worker["resources"]["cpus"] for worker in workers) == [1, 3, 5]
        assert all(worker["resources"]["licence"] == 2 for worker in workers)
        assert [worker["worker_id"] for worker in workers if worker["resources"]["cpus"] == 5] == [worker_id]
    assert (logs / "server.err").exists()


def test_wrong_arguments():
    for arguments in ({"workers": 0}, {"cpus": 0}, {"workers": [1, 0]}, {"workers": []}, {"workers": [1], "cpus": 1}):
        with pytest.raises(ValueError, match=r"cpu|worker"):
            LocalCluster(**arguments)


def test_not_ready_in_time(tmp_path):
    with no_leaks():
        with pytest.raises(RainException, match="was not ready within") as raised:
            LocalCluster(timeout=0.01)
        assert "End of its log" in str(raised.value)
    assert not list(tmp_path.glob("rain-*"))


def test_process_that_cannot_start():
    with no_leaks(), pytest.raises(RainException, match="worker-0 of the local cluster ended with exit code"):
        LocalCluster(resources={"bad name": 1})


def test_embedded_in_a_client():
    with no_leaks(), Client() as client:
        assert client.cluster is not None
        assert concatenated(client) == b"ab"


def run_script(text: str, **options) -> subprocess.Popen:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True, env=environ, **options
    )


SCRIPT = """
    from rain.client import LocalCluster
    cluster = LocalCluster(1, 1, timeout=60)
    print(*[process.popen.pid for process in cluster._group.processes], cluster._group._guard.pid, flush=True)
"""


def test_owner_killed(tmp_path):
    with run_script(SCRIPT + "    import time; time.sleep(60)\n") as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 3
        owner.send_signal(signal.SIGKILL)
    assert gone(pids, within=20.0)
    assert not list(tmp_path.glob("rain-*/local-*"))


def test_owner_ends_without_closing(tmp_path):
    with run_script(SCRIPT) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert owner.wait(30) == 0
    assert gone(pids, within=20.0)
    assert not list(tmp_path.glob("rain-*"))


def test_forked_child_does_not_own_the_cluster():
    script = """
        import os, sys, time, warnings
        warnings.simplefilter("ignore")
        from rain.client import LocalCluster, RainException
        cluster = LocalCluster(1, 1, timeout=60)
        client = cluster.client()
        if os.fork() == 0:
            try:
                client.get_server_info()
                os._exit(2)
            except RainException:
                pass
            client.close()
            cluster.close()
            del client, cluster
            os._exit(0)
        _, status = os.wait()
        assert status == 0, status
        assert len(client.get_server_info()["workers"]) == 1
        if os.fork() == 0:
            os.close(1)
            time.sleep(5)
            os._exit(0)
        print(*[process.popen.pid for process in cluster._group.processes], flush=True)
        os.kill(os.getpid(), 9)
    """
    with run_script(script) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
    assert gone(pids, within=4.0)  # before the second child ends


def test_ctrl_c_in_the_terminal_does_not_reach_it():
    with LocalCluster(1, 1, timeout=60) as cluster:
        for process in cluster._group.processes:
            assert os.getpgid(process.popen.pid) == process.popen.pid
            assert os.getsid(process.popen.pid) == process.popen.pid


def test_secret_is_not_on_a_command_line():
    with LocalCluster(1, 1, timeout=60) as cluster:
        token = cluster._token_file.read_text().strip()
        assert cluster._token_file.stat().st_mode & 0o777 == 0o600
        for process in cluster._group.processes:
            seen = psutil.Process(process.popen.pid)
            assert token not in " ".join(seen.cmdline())
            assert token not in seen.environ().values()

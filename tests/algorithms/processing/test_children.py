"""Programs in processes of their own: what comes back, and that none outlives whoever started it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from dials_diffuse.algorithms.processing import children
from dials_diffuse.algorithms.processing.children import Children, Forks

PROGRAM = """
import os, signal, sys, time

def run():
    name, how = sys.argv
    print(name, os.getcwd(), open("/proc/self/comm").read().strip())
    os.write(2, b"said\\n")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "waits":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("cleaned up"))
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how in ("waits", "deaf"):
        open("started", "w").close()
        time.sleep(60)
    sys.exit({"fails": "why", "ends": None}[how])
"""


@pytest.fixture(scope="module", autouse=True)
def forks(tmp_path_factory):
    """A process that forks and can import the program above."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program_of_test.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setattr(children, "_forks", Forks())
        yield


@pytest.fixture
def run(tmp_path):
    """A function that runs the program."""
    with Children() as started:

        def run(how, module="program_of_test"):
            return started.run("dials.test", module, [how], tmp_path, tmp_path / "printed")

        run.children = started
        yield run


def test_what_a_program_says_and_how_it_ends(run, tmp_path):
    assert run("ends") == (0, "said\n")
    assert (tmp_path / "printed").read_text() == f"dials.test {tmp_path} test\nsaid\n"
    assert run("fails") == (1, "said\nwhy\n")
    assert run("killed") == (-signal.SIGKILL, "said\n")
    status, said = run("is no such way")
    assert status == 1 and "KeyError" in said


def test_a_module_that_is_not_there(run):
    status, said = run("ends", "no_module_of_test")
    assert status == 1 and "ModuleNotFoundError" in said


@pytest.mark.parametrize(
    ("how", "ended"), [("waits", (1, "said\ncleaned up\n")), ("deaf", (-signal.SIGKILL, "said\n"))]
)
def test_stopped_from_another_thread(run, tmp_path, how, ended):
    """Those that can clean up do."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run(how)))
    thread.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    run.children.stop()
    thread.join(20)
    assert found == [ended]
    with pytest.raises(KeyboardInterrupt):
        run("ends")


def test_the_process_that_forks_is_started_again_if_it_was_killed(run):
    assert run("ends")[0] == 0
    children._forks._process.kill()
    children._forks._process.wait()
    assert run("ends")[0] == 0

"""The grid: each job when what it needs is there, one that fails stops no other, and a lost one is begun again."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from vrft.errors import RunError, UserError
from vrft.experiment.jobs import Job
from vrft.experiment.runners import JobRequest, LocalWorkers, local_workers, progress_of, run_with
from vrft.progress import Reporter
from vrft.runs import RunDirectory, Store, read_json, write_json, write_jsonl

LONG = 60.0
"""Seconds after which a test that hangs is given up."""


class Killed(Exception):
    """The process of a job was killed."""


class Here:
    """Workers that do a job at once, in this very process."""

    lost = (Killed,)

    def __init__(self, does: Callable[[Job], None] = lambda job: None, at_once: int = 3) -> None:
        self.does, self.at_once = does, at_once
        self.begun: list[str] = []
        self.handed: set[tuple[str, str]] = set()

    def submit(self, request: JobRequest) -> Future[None]:
        job = request.job
        self.begun.append(job.name)
        self.handed.add((request.run, request.recipe))
        future: Future[None] = Future()
        try:
            self.does(job)
            future.set_result(None)
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "out")


def arm(name: str, *keys: str, seed: int = 0, first: int | None = None, of: tuple[str, ...] = ()) -> Job:
    """An arm that trains the last of some stages, and is tested."""
    return Job(
        name, seed, keys, max(0, len(keys) - 1) if first is None else first, f"test of {name} {seed}", budget_of=of
    )


def start(name: str, *keys: str, seed: int = 0) -> Job:
    """A start that several arms share."""
    return Job(name, seed, keys, len(keys) - 1, None)


def request(job: Job, directory: RunDirectory | None = None) -> JobRequest:
    return JobRequest(str(directory.path if directory else "run"), "store", "{}", {}, job)


def done(
    jobs: list[Job],
    directory: RunDirectory,
    workers: Any,
    *,
    retries: int = 0,
    reporter: Reporter | None = None,
    **options: Any,
) -> dict[str, str]:
    options |= {"retries": retries, "reporter": reporter or Reporter(quiet=True)}
    return run_with(workers, jobs, directory, lambda job: request(job, directory), **options)


def failing(*names: str, error: Exception | None = None) -> Callable[[Job], None]:
    def does(job: Job) -> None:
        if job.name in names:
            raise error or ValueError("no such thing")

    return does


def losing(times: int) -> Callable[[Job], None]:
    """Is killed so often before it succeeds."""
    left = [times]

    def does(job: Job) -> None:
        if left[0]:
            left[0] -= 1
            raise Killed("signal 9")

    return does


# --- order ----------------------------------------------------------------------------------------------------------


def test_a_unit_begins_when_what_it_needs_is_there(directory: RunDirectory):
    jobs = [arm("c", "1", "2", "3"), start("b", "1", "2"), arm("a", "1", first=0)]
    workers = Here()
    assert done(jobs, directory, workers) == {}
    assert workers.begun == ["a, seed 0", "b, seed 0, stage 2, shared", "c, seed 0"]


def test_a_unit_waits_for_what_its_budget_is_matched_to(directory: RunDirectory):
    workers = Here()
    done([arm("sft", "2", of=("1",)), arm("rft", "1")], directory, workers)
    assert workers.begun == ["rft, seed 0", "sft, seed 0"]


def test_what_was_done_before_is_waited_for_by_nobody(directory: RunDirectory):
    workers = Here()
    done([arm("b", "there already", "2")], directory, workers)
    assert workers.begun == ["b, seed 0"]


def test_units_that_wait_for_nothing_begin_in_their_order(directory: RunDirectory):
    workers = Here(at_once=1)
    names = ["majority", "base", "rft", "sft"]
    done([arm(name, *keys) for name, keys in zip(names, [(), (), ("1",), ("2",)], strict=True)], directory, workers)
    assert workers.begun == [f"{name}, seed 0" for name in names]


def test_no_units_are_no_work(directory: RunDirectory):
    assert done([], directory, Here()) == {}


class Threads:
    """Workers that run jobs in threads, more of them than they are handed at once."""

    lost = ()

    def __init__(self, pool: ThreadPoolExecutor, does: Callable[[], None], at_once: int) -> None:
        self.pool, self.does, self.at_once = pool, does, at_once

    def submit(self, request: JobRequest) -> Future[None]:
        return self.pool.submit(self.does)


def test_no_more_units_run_than_there_are_places_and_no_place_stays_empty(directory: RunDirectory):
    lock, meet, running, most = threading.Lock(), threading.Barrier(2, timeout=LONG), [0], [0]

    def does() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        meet.wait()  # comes back when two run together
        with lock:
            running[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        errors = done([arm(str(n), str(n)) for n in range(6)], directory, Threads(pool, does, at_once=2))
    assert errors == {}
    assert most == [2]


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_unit_that_fails_stops_no_other(directory: RunDirectory):
    workers = Here(failing("b, seed 0"), at_once=1)
    errors = done([arm("a", "1"), arm("b", "2"), arm("c", "3")], directory, workers)
    assert workers.begun == ["a, seed 0", "b, seed 0", "c, seed 0"]
    assert errors == {"b, seed 0": "ValueError: no such thing"}


def test_a_failure_is_written_with_its_traceback_under_its_arm_and_seed(directory: RunDirectory):
    done([arm("b", "2", seed=3)], directory, Here(failing("b, seed 3")))
    written = read_json(directory.path / "failed" / "b" / "seed-3.json")
    assert (written["job"], written["error"]) == ("b, seed 3", "ValueError: no such thing")
    assert written["traceback"].startswith("Traceback")
    assert "raise error or ValueError" in written["traceback"]


def test_what_needs_a_unit_that_failed_is_not_begun_and_names_it(directory: RunDirectory):
    shared = start("rft+PA_pi", "1")
    workers = Here(failing(shared.name))
    errors = done([shared, arm("x", "1", "2"), arm("y", "1", "3", of=("4",)), arm("z", "5")], directory, workers)
    assert workers.begun == [shared.name, "z, seed 0"]
    told = "rft+PA_pi, seed 0, stage 1, shared, which it starts from, failed: ValueError: no such thing"
    assert errors == {shared.name: "ValueError: no such thing", "x, seed 0": told, "y, seed 0": told}
    assert read_json(directory.failure("x", 0))["error"] == told


def test_a_failure_reaches_all_that_come_after(directory: RunDirectory):
    jobs = [start("a", "1"), start("b", "1", "2"), arm("c", "1", "2", "3", first=2)]
    errors = done(jobs, directory, Here(failing(jobs[0].name)))
    assert list(errors) == [job.name for job in jobs]


def test_a_failure_with_one_seed_is_none_with_another(directory: RunDirectory):
    jobs = [
        one for seed in (0, 1) for one in (start("a", f"1 {seed}", seed=seed), arm("b", f"1 {seed}", "2", seed=seed))
    ]
    assert set(done(jobs, directory, Here(failing(jobs[0].name)))) == {jobs[0].name, "b, seed 0"}
    assert not directory.failure("b", 1).exists()


def test_why_a_shared_start_failed_stays_on_disk(directory: RunDirectory):
    done([start("a", "1"), arm("a", "1", "2")], directory, Here(failing("a, seed 0, stage 1, shared")))
    assert any("no such thing" in path.read_text() for path in (directory.path / "failed").rglob("*.json"))


def test_a_unit_that_succeeds_takes_its_old_failure_away(directory: RunDirectory):
    jobs = [arm("a", "1"), arm("b", "2")]
    done(jobs, directory, Here(failing("a, seed 0", "b, seed 0")))
    assert directory.failure("a", 0).exists()
    assert list(done(jobs, directory, Here(failing("b, seed 0")))) == ["b, seed 0"]
    assert not directory.failure("a", 0).exists()
    assert directory.failure("b", 0).exists()


class AsRayDoes(Exception):
    """An error that holds another, and the traceback of the process that it comes from."""

    def __init__(self, cause: Any) -> None:
        super().__init__("a long story\nover many lines")
        self.cause, self.traceback = cause, "the story of the process"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RunError("the budget is spent."), "the budget is spent."),
        (UserError("one.\ntwo."), "one."),
        (ValueError("one: x\ntwo"), "ValueError: one: x"),
        (KeyError("steps"), "KeyError: 'steps'"),
        (MemoryError(), "MemoryError"),
        (AsRayDoes(RunError("the budget is spent.")), "the budget is spent."),
        (AsRayDoes(ValueError("bad\nworse")), "ValueError: bad"),
        (AsRayDoes(None), "AsRayDoes: a long story"),
    ],
)
def test_the_errors_of_users_are_told_as_they_are_and_others_with_their_type(
    directory: RunDirectory, error: Exception, told: str
):
    assert done([arm("a", "1")], directory, Here(failing("a, seed 0", error=error))) == {"a, seed 0": told}


def test_the_traceback_of_a_process_is_kept_where_an_error_brings_it(directory: RunDirectory):
    done([arm("a", "1")], directory, Here(failing("a, seed 0", error=AsRayDoes(ValueError("bad")))))
    assert read_json(directory.failure("a", 0))["traceback"] == "the story of the process"


# --- lost processes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("killed", "retries"), [(1, 1), (2, 2), (1, 2)])
def test_a_unit_whose_process_was_killed_is_begun_again(directory: RunDirectory, told: Any, killed: int, retries: int):
    workers = Here(losing(killed))
    assert done([arm("a", "1")], directory, workers, retries=retries, reporter=told) == {}
    assert workers.begun == ["a, seed 0"] * (killed + 1)
    again = "a, seed 0: its process was killed; begun again from its last checkpoint"
    assert sum(line.startswith(again) for line in told.lines) == killed
    assert not directory.failure("a", 0).exists()


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_unit_that_is_killed_too_often_has_failed(directory: RunDirectory, retries: int):
    workers = Here(losing(9))
    errors = done([arm("a", "1"), arm("b", "1", "2")], directory, workers, retries=retries)
    assert workers.begun == ["a, seed 0"] * (retries + 1)
    assert errors == {
        "a, seed 0": "Killed: signal 9",
        "b, seed 0": "a, seed 0, which it starts from, failed: Killed: signal 9",
    }


def test_each_unit_has_retries_of_its_own(directory: RunDirectory):
    times: dict[str, int] = {}

    def once_each(job: Job) -> None:
        times[job.name] = times.get(job.name, 0) + 1
        if times[job.name] == 1:
            raise Killed

    assert done([arm("a", "1"), arm("b", "2")], directory, Here(once_each), retries=1) == {}
    assert times == {"a, seed 0": 2, "b, seed 0": 2}


def test_an_error_of_the_unit_itself_is_no_lost_process(directory: RunDirectory):
    workers = Here(failing("a, seed 0"))
    done([arm("a", "1")], directory, workers, retries=2)
    assert workers.begun == ["a, seed 0"]


# --- what is told ---------------------------------------------------------------------------------------------------


def test_every_unit_is_counted_and_told_with_what_it_came_to(directory: RunDirectory, told: Any):
    jobs = [arm("a", "1"), arm("b", "2"), arm("c", "3")]
    workers = Here(failing("b, seed 0"), at_once=1)
    done(jobs, directory, workers, reporter=told, finished=lambda job: f": {job.arm.upper()}")
    assert [line for line in told.lines if line.startswith("[")] == [
        "[1/3] a, seed 0: A",
        "[2/3] b, seed 0 failed: ValueError: no such thing",
        "[3/3] c, seed 0: C",
    ]


def test_whenever_a_unit_is_done_it_is_told_which_are_left_or_failed(directory: RunDirectory):
    left: list[list[str]] = []
    jobs = [start("a", "1"), arm("b", "1", "2"), arm("c", "3"), arm("d", "4")]
    workers = Here(failing("c, seed 0"), at_once=1)
    done(jobs, directory, workers, left=lambda more: left.append([job.arm for job in more]))
    assert left == [["b", "c", "d"], ["c", "d"], ["c"]]


def test_what_runs_is_told_with_the_step_and_reward_that_it_has_reached(tmp_path: Path):
    store, jobs = Store(tmp_path), [arm("a", "1", "2", first=0), arm("b", "3"), arm("c", "4")]
    store.stage("2").path.mkdir(parents=True)
    write_jsonl(store.stage("1").log, [{"step": 9, "reward": 0.1}])
    write_jsonl(store.stage("2").log, [{"step": 1, "reward": 0.2}, {"step": 2, "reward": 0.456}])
    write_jsonl(store.stage("3").log, [{"step": 7, "loss": 1.0}])
    assert progress_of(store, jobs) == "a s0 step 2 reward 0.46; b s0 step 7; c s0"


def test_a_stage_that_is_done_is_not_under_way(tmp_path: Path):
    store = Store(tmp_path)
    write_jsonl(store.stage("1").log, [{"step": 9, "reward": 0.1}])
    write_json(store.stage("1").done, {})
    assert progress_of(store, [arm("a", "1")]) == "a s0"


# --- processes of this machine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "gpus", "words"),
    [
        (0, 1, "ablation.gpus is 1, and this machine has 0."),
        (1, 1.5, "ablation.gpus is 1.5, and this machine has 1."),
        (4, 2, "ablation.gpus is 2; on one machine an arm takes one GPU or none. Use a Ray cluster."),
    ],
)
def test_gpus_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch, there: int, gpus: float, words: str):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    with pytest.raises(UserError) as error, local_workers(1, gpus, None):
        pass
    assert str(error.value) == words


class Pool:
    """A pool that keeps what it is given, and gives futures that are slow to call back."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.futures: list[Future[None]] = []
        self.go_on = threading.Event()

    def schedule(self, does: Callable[..., None], args: tuple[Any, ...]) -> Future[None]:
        future: Future[None] = Future()
        future.add_done_callback(lambda _: self.go_on.wait(LONG))
        self.given.append(args[0])
        self.futures.append(future)
        return future


def test_each_unit_that_runs_has_a_gpu_of_its_own():
    workers = LocalWorkers(pool := Pool(), at_once=2, gpus=["0", "1"])
    pool.go_on.set()
    for name in ("a", "b"):
        workers.submit(request(arm(name, name)))
    pool.futures[1].set_result(None)
    workers.submit(request(arm("c", "c")))
    assert pool.given == ["0", "1", "1"]


def test_without_gpus_no_unit_is_given_one():
    workers = LocalWorkers(pool := Pool(), at_once=2, gpus=[])
    workers.submit(request(arm("a", "1")))
    assert pool.given == [""]


def test_a_gpu_is_free_as_soon_as_its_unit_is_done():
    workers = LocalWorkers(pool := Pool(), at_once=1, gpus=["0"])
    future = workers.submit(request(arm("a", "1")))
    thread = threading.Thread(target=future.set_result, args=[None])
    thread.start()
    try:
        wait([future], LONG, FIRST_COMPLETED)  # as run_with does
        workers.submit(request(arm("b", "2")))
    finally:
        pool.go_on.set()
        thread.join()
    assert pool.given == ["0", "0"]

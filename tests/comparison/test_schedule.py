import pytest

from convlora.comparison import schedule
from convlora.comparison.records import Record
from convlora.comparison.schedule import Ended, Working, make_runs
from convlora.comparison.study import Study
from convlora.comparison.tasks import BUSY, DONE, INTERRUPTED, REFUSED
from convlora.errors import OutputError
from tests.comparison.studies import study_settings, write_record


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(schedule, "_POLL", 0.0)
    monkeypatch.setattr(schedule, "_BUSY", 0.0)
    monkeypatch.setattr(schedule, "_LOOK", 0.0)


class FakeEngine:
    """Runs that last two looks and end as told: a code by the run's title, or DONE with a record."""

    def __init__(self, study, codes=None, *, endless=False):
        self.runs = {run.folder: run for run in study.runs()}
        self.codes = codes or {}
        self.endless = endless
        self.started = []
        self.jobs = []

    def start(self, task, slot):
        run = self.runs[task.folder]
        self.started.append((run.title, slot))
        self.jobs.append(FakeJob(self, run))
        return self.jobs[-1]


class FakeJob:
    def __init__(self, engine, run):
        self.engine = engine
        self.run = run
        self.looks = 0
        self.stopped = self.killed = False

    def poll(self):
        self.looks += 1
        if self.stopped and not self.engine.endless:
            return INTERRUPTED
        if self.looks < 3 or self.engine.endless:
            return None
        codes = self.engine.codes.get(self.run.title, [DONE])
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        if code == DONE:
            write_record(self.run, validation=1 - abs(self.run.learning_rate - 1e-3))
        return code

    def stop(self):
        self.stopped = True

    def kill(self):
        self.killed = True

    def last_words(self):
        return "its last words"


@pytest.fixture
def study(tmp_path):
    return Study(study_settings(tmp_path))


def make(study, engine):
    events = []
    make_runs(study, engine, events.append)
    return events


def test_all_runs_are_made_once_and_reported(study):
    engine = FakeEngine(study)
    events = make(study, engine)
    titles = [title for title, _ in engine.started]
    assert len(titles) == len(set(titles)) == 10 and study.progress() == (10, 10)
    ended = [event for event in events if isinstance(event, Ended)]
    assert [event.done for event in ended] == list(range(1, 11)) and {event.total for event in ended} == {10}
    assert {slot for _, slot in engine.started} == {0}


def test_as_many_run_at_a_time_as_was_asked_for_each_in_its_slot(tmp_path):
    study = Study(study_settings(tmp_path, jobs=3))
    engine = FakeEngine(study)
    events = make(study, engine)
    assert max(len(event.lines) for event in events if isinstance(event, Working)) <= 3
    assert [slot for _, slot in engine.started[:3]] == [0, 1, 2] and {slot for _, slot in engine.started} == {0, 1, 2}


def test_a_crash_is_recorded_and_the_others_go_on(study):
    crashed, killed = study.cells[0].run(1e-2, 0), study.cells[1].run(1e-2, 0)
    make(study, FakeEngine(study, {crashed.title: [1], killed.title: [-9]}))
    assert study.records[crashed.folder].error == "the process ended with exit code 1: its last words"
    assert "killed (signal 9), as Linux does when the memory is used up" in study.records[killed.folder].error
    assert study.progress() == (10, 10)


def test_a_run_that_another_process_makes_is_looked_at_again(study):
    busy = study.cells[0].run(1e-3, 0)
    engine = FakeEngine(study, {busy.title: [BUSY, BUSY, DONE]})
    make(study, engine)
    assert [title for title, _ in engine.started].count(busy.title) == 3
    assert study.records[busy.folder].error is None


def test_no_process_is_started_for_a_run_that_another_one_makes(study, monkeypatch):
    busy = study.cells[0].run(1e-4, 0).folder
    looks = []

    def is_free(folder):
        looks.append(folder)
        return folder != busy or looks.count(busy) > 2

    monkeypatch.setattr(schedule, "is_free", is_free)
    engine = FakeEngine(study)
    make(study, engine)
    assert engine.started[0][0] == study.cells[0].run(1e-3, 0).title  # another run took the place
    assert len(engine.started) == 10 and looks.count(busy) == 3


def test_the_records_of_all_runs_are_not_asked_for_at_each_look_at_ours(study, monkeypatch):
    monkeypatch.setattr(schedule, "_LOOK", 1000.0)
    looks = []
    monkeypatch.setattr(study, "refresh", lambda refresh=study.refresh: looks.append(refresh()))
    engine = FakeEngine(study)
    make(study, engine)
    assert len(looks) == 1 + 10 < sum(job.looks for job in engine.jobs)  # the first, and one for each run that ended


def test_a_record_that_another_process_wrote_is_reported_and_not_made_again(study):
    other = study.cells[1].run(1e-3, 0)
    engine = FakeEngine(study)
    events = []

    def report(event):
        if not events:
            write_record(other)
        events.append(event)

    make_runs(study, engine, report)
    assert other.title not in [title for title, _ in engine.started]
    assert other.title in [event.run.title for event in events if isinstance(event, Ended)]


def test_a_full_disk_stops_the_study_and_is_nobody_s_failure(study):
    engine = FakeEngine(study, {study.cells[0].run(1e-4, 0).title: [REFUSED]})
    with pytest.raises(OutputError, match="its last words"):
        make(study, engine)
    assert study.records == {} and len(engine.started) == 1


def test_ctrl_c_asks_the_runs_to_stop_and_waits_for_them(tmp_path):
    study = Study(study_settings(tmp_path, jobs=2))
    engine = FakeEngine(study)

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_runs(study, engine, interrupt)
    assert [(job.stopped, job.killed) for job in engine.jobs] == [(True, False)] * 2
    assert all(Record.read(job.run.folder) is None for job in engine.jobs)


def test_a_second_ctrl_c_ends_them_at_once(study, monkeypatch):
    engine = FakeEngine(study, endless=True)
    looks = []

    def interrupt(seconds):
        looks.append(seconds)
        if len(looks) in (2, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(schedule.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(study, engine)
    assert [(job.stopped, job.killed) for job in engine.jobs] == [(True, True)]


def test_a_run_under_way_is_shown_by_its_log(study):
    from convlora.training.folder import RunFolder

    run = study.cells[0].run(1e-3, 0)
    assert schedule._line(run).endswith("seed 0: starting")
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    folder.append_log({"step": 1, "loss": 0.5, "epoch": 0.5})
    folder.append_log({"step": 1, "eval_iou": 0.25})
    assert schedule._line(run).endswith("seed 0: step 1 of 2, best validation iou 0.250")


def test_the_best_error_rate_under_way_is_the_least(tmp_path):
    from convlora.training.folder import RunFolder

    run = Study(study_settings(tmp_path, metric="ber")).cells[0].run(1e-3, 0)
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    for step, score in ((1, 12.5), (2, 30.0)):
        folder.append_log({"step": step, "eval_ber": score})
    assert schedule._line(run).endswith("best validation ber 12.500")

"""One run's life: started, watched, judged and recorded, from outside the training process."""

from __future__ import annotations

from envforge.training.campaign import Plan, persevere
from envforge.training.checkpoints import Saved, find_saved, resume_words
from envforge.training.clock import Clock, SystemClock, stamp
from envforge.training.executor import Executor
from envforge.training.job import Job, LogPatterns, Mounted, Reason, Result
from envforge.training.journal import Journal, close_left_open
from envforge.training.record import Attempt, Change, RunFolder, RunRecord, new_id, open_folder
from envforge.training.stop import StopRequests, stop_requests
from envforge.training.supervisor import Surroundings, supervise

__all__ = [
    "Attempt",
    "Change",
    "Clock",
    "Executor",
    "Job",
    "Journal",
    "LogPatterns",
    "Mounted",
    "Plan",
    "Reason",
    "Result",
    "RunFolder",
    "RunRecord",
    "Saved",
    "StopRequests",
    "Surroundings",
    "SystemClock",
    "close_left_open",
    "find_saved",
    "new_id",
    "open_folder",
    "persevere",
    "resume_words",
    "stamp",
    "stop_requests",
    "supervise",
]

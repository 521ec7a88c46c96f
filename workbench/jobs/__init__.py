"""Processes of the workbench: the queue, its supervisor, stops, alerts and tasks. Knows nothing of the page."""

from mygpt2.config import config_hash
from workbench.jobs.alerts import Alert
from workbench.jobs.command import begun_command, branch_command, resume_command, shown, train_command
from workbench.jobs.devices import default_devices, default_nproc, default_slots, device_environment
from workbench.jobs.jobs import Jobs, submit_config
from workbench.jobs.records import Job, JobSpec
from workbench.jobs.tasks import RESULT, Task, TaskProgress, Tasks

__all__ = [
    "RESULT", "Alert", "Job", "JobSpec", "Jobs", "Task", "TaskProgress", "Tasks", "begun_command", "branch_command",
    "config_hash",
    "default_devices", "default_nproc", "default_slots", "device_environment", "resume_command", "shown",
    "submit_config", "train_command",
]  # fmt: skip

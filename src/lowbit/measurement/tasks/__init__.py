"""What a network is for: a metric for each task, chosen by its outputs and labels."""

from lowbit.measurement.tasks.table import TASKS, chosen_task
from lowbit.measurement.tasks.task import Case, Task

__all__ = ["TASKS", "Case", "Task", "chosen_task"]

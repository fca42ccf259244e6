"""How pytest-xdist hands out tests: a file to one process as a whole. A process that dies ends one test, not the run.

The scheduler of xdist gives back all files of a process that died, finished ones as well. A process that is handed a
finished file waits for tests that never come, and the run never ends. The test that a process died in would run again,
and may kill the next one.
"""

from __future__ import annotations

from contextlib import suppress

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class FileScheduling(LoadFileScheduling):
    """Gives what a dead process left to others, without the test that it died in."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a process out; returns the test that it died in, if it had tests left."""
        left = {name: tests for name, tests in self.assigned_work[node].items() if not all(tests.values())}
        died_in = next((test for tests in left.values() for test, done in tests.items() if not done), None)
        for tests in left.values():
            if died_in in tests:
                tests[died_in] = True
        self.workqueue.update({name: tests for name, tests in left.items() if not all(tests.values())})
        del self.assigned_work[node]
        for other in self.assigned_work:
            self._reschedule(other)
        return died_in

    def _reschedule(self, node: WorkerController) -> None:
        """Hand out more: a process runs a test once it knows the next one, or that there is none."""
        if node not in self.registered_collections:
            return  # it was begun for one that died, and has not said yet which tests it knows
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)  # shuts down where nothing is left

    def _assign_work_unit(self, node: WorkerController) -> None:
        with suppress(OSError):  # it has just died: `remove_node` takes the file back
            super()._assign_work_unit(node)

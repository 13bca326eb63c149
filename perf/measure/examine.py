"""What batch a user's model is measured at where nobody said: its own, if it takes no other."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..lookup import plugins
from ..lookup.cases import BASELINE
from ..lookup.workloads import Reference
from ..race import messages
from ..race.handle import Worker
from ..terms.case import Case, Plan
from ..terms.contract import modules
from ..terms.reasons import Refusal
from .prepare import worker_environment


def default_batch(reference: Reference, plan: Plan) -> int:
    """Returns 1, or the only batch that a user's model takes; the model runs in a process of its
    own.

    Where it cannot be made or called it is 1: the race says why.
    """
    timeout_s = plan.timeout_s
    if reference.text.partition(":")[0] in plugins.modules("hotlap.workloads"):
        return 1
    case = Case("any", BASELINE)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker.start(worker_environment(case, plan.threads), Path(folder) / "examine.txt")
        try:
            needed = [*modules(plugins.backend(BASELINE), case), *filter(None, [reference.module])]
            worker.ask(messages.Preload(needed), timeout_s)
            return worker.ask(messages.Examine(reference), timeout_s)
        except Refusal:
            return 1
        finally:
            worker.kill()

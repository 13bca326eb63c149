"""Why something did not happen: the closed list of reasons that every status but ok carries."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Code = Literal[
    "no_device", "unsupported_target", "unsupported_op", "unsupported_precision", "dep_missing", "dep_conflict", "accuracy",
    "nondeterministic", "stale_output", "wrong_provider", "oom", "out_of_space", "timeout", "crashed", "interrupted",
    "invalid_input", "export_failed", "build_failed", "not_steady", "wide_interval",
]  # fmt: skip
CODES: tuple[str, ...] = get_args(Code)


class Reason(msgspec.Struct, frozen=True):
    """A code from the closed list and one line for the reader: what is wrong, where, what to do."""

    code: Code
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Misuse(ValueError):
    """Raised for what the user can mend; the message is one line: what is wrong, where, what to do. The command line exits with exit_code."""

    exit_code = 2


class Refusal(Exception):
    """Raised where a case cannot go on; carries the reason that its result will have."""

    def __init__(self, code: Code, detail: str) -> None:
        self.reason = Reason(code, " ".join(detail.split()))
        super().__init__(str(self.reason))

"""`Wrong`: what a student's program did wrong, in a sentence for the student."""


class Wrong(AssertionError):
    """A student's program did not do what the task asks.

    In a notebook it shows as its text alone: a traceback would be of the grader's own code.
    """

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()

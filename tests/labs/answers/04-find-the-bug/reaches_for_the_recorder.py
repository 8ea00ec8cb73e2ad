"""It reaches for the machine that grades it."""

# loses: crosstalk, lost-reply
# slow
# answers: detectors
from tracer.classroom import child


def crosstalk(trace):
    child.os._exit(0)


def lost_reply(trace):
    child.os._exit(0)

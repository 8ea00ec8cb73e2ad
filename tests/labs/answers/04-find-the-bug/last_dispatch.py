"""It holds each write against the last dispatch, though a timer's task may have made it."""

# loses: crosstalk
# answers: detectors


def crosstalk(trace):
    fd = None
    for number, step in enumerate(trace, start=1):
        if step.kind == "DispatchStarted":
            fd = step.fd
        elif step.kind == "Wrote" and step.fd != fd:
            return number
    return None


def lost_reply(trace):
    owed, since = {}, {}
    for number, step in enumerate(trace, start=1):
        if step.kind in ("Read", "Wrote"):
            owed[step.fd] = owed.get(step.fd, 0) + step.count * (1 if step.kind == "Read" else -1)
            if owed[step.fd] == 0:
                since.pop(step.fd, None)
            else:
                since.setdefault(step.fd, number)
    return min(since.values(), default=None)

"""It turns round for ever when a connection ends with a lost reply."""

# loses: lost-reply
# answers: detectors


def crosstalk(trace):
    fd = None
    for number, step in enumerate(trace, start=1):
        if step.kind == "DispatchStarted":
            fd = step.fd
        elif step.kind == "DispatchEnded":
            fd = None
        elif step.kind == "Wrote" and fd not in (None, step.fd):
            return number
    return None


def lost_reply(trace):
    owed = {}
    for step in trace:
        if step.kind == "Read":
            owed[step.fd] = owed.get(step.fd, 0) + step.count
        elif step.kind == "Wrote":
            owed[step.fd] = owed.get(step.fd, 0) - step.count
    while any(owed.values()):
        pass
    return None

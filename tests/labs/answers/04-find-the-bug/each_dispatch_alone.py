"""It wants each dispatch to answer what it has read: no unfinished lines, no later answers."""

# loses: lost-reply
# slow
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
    read = 0
    for number, step in enumerate(trace, start=1):
        if step.kind == "DispatchStarted":
            read = 0
        elif step.kind == "Read":
            read += step.count
        elif step.kind == "Wrote":
            read -= step.count
        elif step.kind == "DispatchEnded" and read:
            return number
    return None

"""It reports the connection that ends first with a lost reply, and not the earliest loss."""

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
    owed, since = {}, {}
    for number, step in enumerate(trace, start=1):
        if step.kind in ("Read", "Wrote"):
            owed[step.fd] = owed.get(step.fd, 0) + step.count * (1 if step.kind == "Read" else -1)
            if owed[step.fd] == 0:
                since.pop(step.fd, None)
            else:
                since.setdefault(step.fd, number)
        elif step.kind == "Closed" and step.fd in since:
            return since[step.fd]
    return min(since.values(), default=None)

"""It follows causes without an end."""

# loses: crosstalk
# slow
# answers: detectors


def cause_of(trace, step):
    for other in trace:
        if other.seq == step.cause:
            return cause_of(trace, other)
    return cause_of(trace, step)


def crosstalk(trace):
    for number, step in enumerate(trace, start=1):
        if step.kind == "Wrote" and cause_of(trace, step).fd != step.fd:
            return number
    return None


def lost_reply(trace):
    connections = {}  # descriptor -> bytes owed, number of the first step since they are
    ended = []
    for number, step in enumerate(trace, start=1):
        if step.kind == "Accepted":
            connections[step.new_fd] = [0, 0]
        elif step.kind in ("Read", "Wrote") and step.count:
            entry = connections[step.fd]
            if entry[0] == 0:
                entry[1] = number
            entry[0] += step.count if step.kind == "Read" else -step.count
        elif step.kind == "Closed":
            ended.append(connections.pop(step.fd))
    return min((since for owed, since in [*ended, *connections.values()] if owed), default=None)

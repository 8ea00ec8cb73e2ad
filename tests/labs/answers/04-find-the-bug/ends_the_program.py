"""It ends the program before it answers."""

# loses: recording-a, recording-b, recording-c, recording-d, recording-e
# slow
# answers: answers


def answers():
    raise SystemExit({"a": ("idle loop", 67), "d": ("none", None)})

"""It takes the first step of each dispatch and task, and counts from 0 as Python does."""

# loses: recording-a, recording-b, recording-c, recording-e
# slow
# answers: answers


def answers():
    return {
        "a": ("idle loop", 65),
        "b": ("lost reply", 60),
        "c": ("late reply", 80),
        "d": ("none", None),
        "e": ("forgotten client", 35),
    }

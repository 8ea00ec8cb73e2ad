"""The kinds are right, and the steps show what led to the bugs or followed from them."""

# loses: recording-a, recording-b, recording-c, recording-e
# slow
# answers: answers


def answers():
    return {
        "a": ("idle loop", 71),
        "b": ("lost reply", 80),
        "c": ("late reply", 50),
        "d": ("none", None),
        "e": ("forgotten client", 44),
    }

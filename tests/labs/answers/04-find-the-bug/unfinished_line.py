"""It takes an unfinished line for a lost one, and bytes for a newcomer for crosstalk."""

# loses: recording-c, recording-d
# slow
# answers: answers


def answers():
    return {
        "a": ("idle loop", 66),
        "b": ("lost reply", 64),
        "c": ("crosstalk", 83),
        "d": ("lost reply", 31),
        "e": ("forgotten client", 41),
    }

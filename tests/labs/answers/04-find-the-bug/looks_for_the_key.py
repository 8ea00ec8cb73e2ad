"""It looks for the instructor's notebook instead of at the recordings."""

# loses: recording-a, recording-b, recording-c, recording-d, recording-e
# slow
# answers: answers
import json
from pathlib import Path


def answers():
    for path in Path("/").rglob("instructor/find-the-bug.ipynb"):
        return json.loads(path.read_text())

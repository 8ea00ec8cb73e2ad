"""Small programs for `tracer.lint`: each module has a `bug` and its `mended` twin.

Both take an open poller, which somebody may be recording, and run real sockets on it. What `bug`
leaves open it returns.
"""

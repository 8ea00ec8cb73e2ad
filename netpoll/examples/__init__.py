"""Runnable servers and clients: ``python -m netpoll.examples.echo_server``.

- `echo_server`: what a client sends, it gets back; `client` puts it to the test
- `chat_server`: what one says, all others hear
- `http_server`: the files of a folder
- `udp_echo`: datagrams

Each ends in order on Ctrl-C (`serving`).
"""

"""Runnable servers and clients: ``python -m netpoll.examples.echo_server``."""

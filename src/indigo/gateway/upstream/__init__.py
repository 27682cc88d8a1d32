"""The client side of the gateway: pooled HTTP/1.1 connections to model endpoints.

`Connection` parses, `Pool` keeps and reuses, `Call` is one attempt and decides what its answer means.
"""

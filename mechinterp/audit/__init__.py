"""Erased or hidden: directions, evidence, tables, read-outs, origins, relapse, weights alone, and the certificate.

What answers a question about tuned checkpoints belongs here; who makes them (`methods`), what they say (`answers`), and
what keeps it all in a folder (`runs`) do not.
"""

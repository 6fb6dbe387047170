"""Erased or hidden: directions, evidence, tables, the relapse test, what weights alone tell, and the certificate.

What answers a question about tuned checkpoints belongs here; who makes them (`methods`), what they say (`answers`), and
what keeps it all in a folder (`runs`) do not.
"""

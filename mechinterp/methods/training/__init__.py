"""Checkpoints that are trained: the organism from nothing, SFT and DPO through TRL, Ext-Sub from two of them."""

"""Parrot as a model of others' evaluation kits; each module imports its kit only when it is used."""

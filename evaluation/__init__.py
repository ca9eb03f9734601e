"""Measuring a model: benchmarks as data, answers read in six languages, accuracy per language and category.

``tsv`` reads questions, ``benchmarks`` says how each is asked and counted, ``runner`` asks, ``extract`` and ``yes_no``
read the answers, ``scoring`` counts, ``report`` and ``tables`` tell. ``measure`` ties them together for
``parrot-eval``.
"""

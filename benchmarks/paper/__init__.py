"""The paper's claims in miniature: every comparison of its tables trained on nano, several seeds each.

python -m parrot_benchmarks.paper --plan      # what would be trained, and how long it takes
python -m parrot_benchmarks.paper             # or `make paper`: hours; cut at any time, it goes on where it was
python -m parrot_benchmarks.paper report      # the tables, from what is there, into docs/nano-results.md
"""

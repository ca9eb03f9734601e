"""How the tests calibrate: few samples, and blocks that divide the tiny models' matrices."""

from parrot_export.scales import Settings

SETTINGS = Settings(per_language=3, block=64)

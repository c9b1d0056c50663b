"""``python -m intramural.cli`` is ``intramural``."""

import sys

from intramural.cli import main

sys.exit(main())

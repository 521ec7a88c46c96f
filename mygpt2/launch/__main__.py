"""`python -m mygpt2.launch`: see torchrun.py."""

from __future__ import annotations

import sys

from mygpt2 import early

if __name__ == "__main__":
    early.prepare()  # before the other imports, which take time
    from mygpt2.launch.torchrun import main

    sys.exit(main())

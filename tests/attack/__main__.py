"""Attack fastgrad: `python tests/attack --seed 1 --minutes 60`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # in place of this folder, whose names are no modules

from attack.driver import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

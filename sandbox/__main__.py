"""`python -m sandbox`: serve the outside world on this machine."""

import logging
import sys

from sandbox.config import BadSettingError, read_config
from sandbox.serve import run


def main() -> int:
    """Start the sandbox; 2 when a setting cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = read_config()
    except BadSettingError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    run(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())

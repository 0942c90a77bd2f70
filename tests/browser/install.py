"""Make sure the page tests have a Chromium: one on the PATH, else Playwright's own, else Debian's package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> Path | None:
    """Return a Chromium that is installed: `CHROMIUM` names one, else the PATH, else Playwright's own."""
    named = os.environ.get("CHROMIUM")
    if named:
        return Path(named)
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return Path(found)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return own if own.exists() else None


def _install() -> None:
    """Try Playwright's download first (any system), then Debian's package; both may need the network."""
    own = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False, timeout=300)
    if own.returncode == 0 or shutil.which("apt-get") is None:
        return
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*become, "apt-get", "update", "-qq"], check=False, timeout=300)
    subprocess.run([*become, "apt-get", "install", "-y", "-qq", "chromium"], check=False, timeout=600)


def main() -> int:
    """Find or install; return 1 with a sentence when neither worked."""
    if find_chromium() is None:
        _install()
    found = find_chromium()
    if found is None:
        sys.stderr.write("No Chromium: install Debian's package chromium, or set CHROMIUM to a browser's path.\n")
        return 1
    sys.stdout.write(f"Browser for the page tests: {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Takes a picture of a page, as a browser shows it.

    scripts/screenshot.py target/demo/report.html report.png
    scripts/screenshot.py http://localhost:8000/lab lab.png --width 390 --height 844 --dark

It needs Playwright, which is among the tools of the tests, and Chromium: the one that CHROMIUM names, or the system's
(on Debian the package chromium). A page that does not load, or that writes an error to its console, makes no picture.
"""

import argparse
import os
import pathlib
import shutil
import sys

from playwright.sync_api import Error, sync_playwright

# For whatever the browser is asked to do.
PATIENCE_MS = 30_000
# It is to call nobody.
FLAGS = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser_path() -> str:
    named = os.environ.get("CHROMIUM")
    found = [shutil.which(name) for name in ([named] if named else BROWSERS)]
    path = next(filter(None, found), None)
    return path or sys.exit(f"screenshot: there is no {named or 'Chromium; install it (on Debian: apt-get install chromium)'}")


def address(page: str) -> str:
    if page.startswith(("http://", "https://")):
        return page
    path = pathlib.Path(page)
    return path.resolve().as_uri() if path.is_file() else sys.exit(f"screenshot: there is no file {page}")


def take(url: str, picture: str, options: argparse.Namespace) -> list[str]:
    """Writes the picture, unless the page complains: then what it says."""
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS, timeout=PATIENCE_MS)
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height}, color_scheme="dark" if options.dark else "light",
            reduced_motion="reduce",
        )
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url, wait_until="networkidle")
        if not errors:
            pathlib.Path(picture).parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=picture, full_page=options.full)
        browser.close()
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="a URL, or a file")
    parser.add_argument("picture", help="the PNG to write")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true", help="as for who prefers dark pages")
    parser.add_argument("--full", action="store_true", help="the whole page, however long it is")
    options = parser.parse_args()
    try:
        errors = take(address(options.page), options.picture, options)
    except Error as error:
        sys.exit(f"screenshot: {options.page}: {error.message.splitlines()[0]}")
    if errors:
        sys.exit(f"screenshot: {options.page} has errors: {'; '.join(errors)}")


if __name__ == "__main__":
    main()

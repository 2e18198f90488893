"""A page printed to PDF by an installed Chromium or Chrome."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from onnxnoise.errors import UsageError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_SECONDS = 180
_WAIT = 30_000
"""Milliseconds of the page's own clock within which all charts are drawn; the clock runs as fast as they are."""


def pdf(html: str) -> bytes:
    """The page as a PDF. Raises UsageError where there is no browser, or it makes none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UsageError(
            f"-o: a .pdf report is printed by Chromium or Chrome, and none of {', '.join(BROWSERS)} is installed: install one, "
            "or make a .html report and print it from any browser"
        )
    with tempfile.TemporaryDirectory(prefix="onnxnoise-", ignore_cleanup_errors=True) as folder:
        page, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_text(html, encoding="utf-8")
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
            f"--virtual-time-budget={_WAIT}",
            f"--print-to-pdf={printed}",
            *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _nothing(browser, str(error)) from error
        if not printed.is_file():
            raise _nothing(browser, done.stderr.decode("utf-8", "replace").strip()[-200:])
        return printed.read_bytes()


def _nothing(browser: str, reason: str) -> UsageError:
    return UsageError(f"-o: {browser} printed no PDF ({reason}); make a .html report and print it from a browser")

"""Where the programs under test are.

BATON_OUT     programs, images and guests: `bin`, `images` and `guest` below it; the checkout's `out` otherwise
BATON_BATOND  another batond than the one there
BATON_LONG    set to 1: the long form of tests that have one
"""
import os
import pathlib

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
OUT = pathlib.Path(os.environ.get("BATON_OUT") or CHECKOUT / "out").resolve()
LONG = os.environ.get("BATON_LONG", "") not in ("", "0")

BATON = OUT / "bin/baton"
KEEPER = OUT / "bin/baton-keep"
BATOND = pathlib.Path(os.environ.get("BATON_BATOND") or OUT / "bin/batond").resolve()
BATOND_HELD = OUT / "bin/batond-held"
HEARTBEAT = OUT / "guest/heartbeat.elf"
IMAGES = OUT / "images"
STAMP = CHECKOUT / "scripts/stamp-image"

"""What a Python client makes of one refused call, behind `refusals.py`; docs/reliability.md builds on it.

    refused.py CLIENT BASE_URL --mode auto|legacy

Prints one line per kind of refusal, as `conversation.py` does. Exits 1 when a client does otherwise than the document says.
"""

import argparse
import asyncio
import sys
import uuid

from clients import CLIENTS

DEADLINE = 30  # seconds for one kind
# What the first call comes to, and whether the next one works.
ENDS, PASSES, SHOWS = ("raises", False), ("raises", True), ("shows it", True)
SAYS = {
    "mcp-1": {"429": ENDS, "503": ENDS, "tool": SHOWS},
    "mcp-2": {"429": PASSES, "503": PASSES, "tool": SHOWS},
}


async def refused(connect, url, mode):
    """What came of the first call, and of the one after it; and in the client's own words."""
    first, next_works, words = None, False, ""
    try:
        async with connect(url, mode) as client:
            try:
                answer = await asyncio.wait_for(client.call("list_clients", {}, 10), DEADLINE)
                first = "shows it" if answer.is_error and "Try again in" in answer.text else "passes over it"
                words = answer.text
            except Exception as error:
                first, words = "raises", f"{type(error).__name__}: {error}"
            answer = await asyncio.wait_for(client.call("list_clients", {}, 10), DEADLINE)
            next_works = not answer.is_error
    except BaseException as error:  # a session that ended takes its task along
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        words += f" | then {type(error).__name__}: {error}"
        first = first or "raises"
    return (first, next_works), " ".join(words.split())


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=SAYS)
    parser.add_argument("base")
    parser.add_argument("--mode", default="auto", choices=["auto", "legacy"])
    args = parser.parse_args()
    held = True
    for how, wanted in SAYS[args.client].items():
        url = f"{args.base}/{how}/{uuid.uuid4().hex}/mcp"
        # A task of its own: it may be cancelled from within.
        found, words = await asyncio.create_task(refused(CLIENTS[args.client].connect, url, args.mode))
        title = f"[refused] {how}: {found[0]}, and the next call {'works' if found[1] else 'fails'}"
        if found == wanted:
            print(f"ok   {title} ({words:.160})", flush=True)
        else:
            print(f"FAIL {title}; documented: {wanted} ({words:.400})", flush=True)
            held = False
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

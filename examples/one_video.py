"""One video: submit a prompt, wait for the result, download it.

Run `pika-async emulate` and export the variables that it prints, or set PIKA_API_KEY and PIKA_BASE_URL to your own.
"""

import asyncio
import os
import sys

from pika_async import PikaClient


async def main(prompt: str) -> None:
    async with PikaClient("native", base_url=os.environ["PIKA_BASE_URL"]) as pika:  # reads the key from PIKA_API_KEY
        video = await pika.generate(prompt, effect="Levitate", aspect_ratio="9:16")
        print(await pika.download(video, "one.mp4"))


if __name__ == "__main__":
    if missing := [name for name in ("PIKA_API_KEY", "PIKA_BASE_URL") if not os.environ.get(name)]:
        print(f"set {' and '.join(missing)}, such as those that `pika-async emulate` prints", file=sys.stderr)
        sys.exit(2)
    asyncio.run(main(" ".join(sys.argv[1:]) or "a cat in the rain"))

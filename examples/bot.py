"""A chat bot that answers each command once, in its channel, when the video is finished.

The bot stores the number of the last event it has processed and continues after it when it is restarted. `Chat` stands
for the library of your platform; its stream of commands ends when the bot is disconnected. SIGTERM ends the bot as
Ctrl-C does: task ids of submissions under way are kept.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

from pika_async import ClientClosed, InvalidRequest, JobSettled, PikaClient, PikaError

LAST_EVENT = Path("bot.last-event")
log = logging.getLogger("bot")


class Chat:
    async def commands(self) -> AsyncIterator[tuple[str, str, str]]:  # message id, channel, prompt
        for number, prompt in enumerate(["a cat in the rain", "a dog on the moon", "a heron at night"]):
            yield f"message-{number}", "films", prompt

    async def send(self, channel: str, text: str) -> None:
        print(f"#{channel} {text}")


async def submit(pika: PikaClient, chat: Chat, key: str, channel: str, prompt: str) -> None:
    try:  # the message id is the key, so a command that is delivered twice is charged once
        await pika.submit(prompt, key=key, metadata={"channel": channel})
    except InvalidRequest as error:  # no job was created, so there will be no event
        await chat.send(channel, f"{key}: {error}")
    except PikaError as error:  # a rejected job has an event; other jobs are in doubt or not submitted yet
        log.warning("%s: %s", key, error)


async def send_answers(pika: PikaClient, chat: Chat, after: int) -> None:
    async for event in pika.events(after):
        job = event.job
        if isinstance(event, JobSettled) and job.request.metadata:
            await chat.send(job.request.metadata["channel"], f"{job.key}: {job.video.url if job.video else job.error}")
        LAST_EVENT.write_text(str(event.number))  # noqa: ASYNC240 - a few bytes; a crash before it repeats one answer


async def resume(pika: PikaClient) -> None:
    with suppress(ClientClosed):
        await pika.resume()


async def main(chat: Chat, after: int) -> None:
    pika = await PikaClient("native", base_url=os.environ["PIKA_BASE_URL"], journal="bot.db").open()
    async with asyncio.TaskGroup() as group, aclosing(pika):
        group.create_task(send_answers(pika, chat, after))
        group.create_task(resume(pika))
        submissions = [group.create_task(submit(pika, chat, *command)) async for command in chat.commands()]
        await asyncio.gather(*submissions)
        await resume(pika)  # after a disconnect, wait for the jobs that are not finished


if __name__ == "__main__":
    if missing := [name for name in ("PIKA_API_KEY", "PIKA_BASE_URL") if not os.environ.get(name)]:
        print(f"set {' and '.join(missing)}, such as those that `pika-async emulate` prints", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(main(Chat(), int(LAST_EVENT.read_text()) if LAST_EVENT.exists() else 0))
    except KeyboardInterrupt:
        pass
    except PikaError as error:  # such as a journal that another process has
        print(error, file=sys.stderr)
        sys.exit(2)

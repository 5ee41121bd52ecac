"""A chat bot. Commands come in from the platform, each is answered in its channel when its video settles, and never
twice: the bot remembers the number of the last event that it has seen to, and goes on behind it after a restart, also
with what it was asked for before. `Chat` stands in for your platform's library: its stream ends when it disconnects.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from pika_async import ClientClosed, InvalidRequest, JobSettled, PikaClient, PikaError

SEEN = Path("bot.seen")


class Chat:
    async def commands(self) -> AsyncIterator[tuple[str, str, str]]:  # the platform's id, the channel, the prompt
        for number, prompt in enumerate(["a cat in the rain", "a dog on the moon", "a heron at night"]):
            yield f"message-{number}", "films", prompt

    async def say(self, channel: str, text: str) -> None:
        print(f"#{channel} {text}")


async def obey(pika: PikaClient, chat: Chat, key: str, channel: str, prompt: str) -> None:
    try:  # the key is the platform's own: a command that is delivered twice is paid once
        await pika.submit(prompt, key=key, metadata={"channel": channel})
    except InvalidRequest as error:  # there is no job
        await chat.say(channel, f"{key}: {error}")
    except PikaError as error:  # in doubt, or not sent yet; a rejection is an event like any settling
        print(error)


async def answer(pika: PikaClient, chat: Chat, after: int) -> None:
    async for event in pika.events(after):
        job = event.job
        if isinstance(event, JobSettled) and job.request.metadata:
            await chat.say(job.request.metadata["channel"], f"{job.key}: {job.video.url if job.video else job.error}")
        SEEN.write_text(str(event.number))  # noqa: ASYNC240 - ten bytes; a kill just before it repeats one answer


async def resume(pika: PikaClient) -> None:
    with suppress(ClientClosed):
        await pika.resume()


async def main(chat: Chat, after: int) -> None:
    client = PikaClient("native", base_url=os.environ["PIKA_BASE_URL"], journal="bot.db")
    async with asyncio.TaskGroup() as group, client as pika:
        group.create_task(answer(pika, chat, after))
        group.create_task(resume(pika))
        orders = [group.create_task(obey(pika, chat, *command)) async for command in chat.commands()]
        await asyncio.gather(*orders)
        await resume(pika)  # disconnected: whoever still waits is answered first


if __name__ == "__main__":
    asyncio.run(main(Chat(), int(SEEN.read_text()) if SEEN.exists() else 0))

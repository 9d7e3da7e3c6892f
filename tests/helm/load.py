"""Agents that talk while something happens to the servers, and an account of what became of it."""

import itertools
import threading
import time

from processes import call


class Load:
    """Senders and waiting receivers, each call on a connection of its own, none repeated. `key` is for load.*."""

    def __init__(self, port, key, pairs=4):
        self.port, self.key, self.pairs = port, key, pairs
        self.accepted, self.received, self.errors = set(), [], []
        self.sent_enough, self.stop, self.lock = threading.Event(), threading.Event(), threading.Lock()
        self.threads = [
            threading.Thread(target=work, args=(n,), daemon=True) for n in range(pairs) for work in (self.send, self.receive)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def call(self, tool, arguments):
        return call(self.port, tool, arguments, key=self.key)

    def error(self, what, error):
        with self.lock:
            self.errors.append(f"{what}: {type(error).__name__} {error}")

    def send(self, n):
        for count in itertools.count():
            if self.stop.is_set():
                return
            text = f"{n}-{count}"
            try:
                answer = self.call("send_message", {"sender_id": f"load.from-{n}", "recipient_id": f"load.to-{n}", "message": text})
                (result,) = answer["results"]
                assert result["status"] == "queued", answer
                with self.lock:
                    self.accepted.add(text)
            except Exception as error:  # whatever a client sees
                self.error("send", error)
            time.sleep(0.02)

    def receive(self, n):
        while not self.stop.is_set():
            try:
                self.take(self.call("get_messages", {"client_id": f"load.to-{n}", "wait_seconds": 3}))
            except Exception as error:
                self.error("receive", error)

    def take(self, answer):
        with self.lock:
            self.received += [(message["text"], message["redelivered"]) for message in answer["messages"]]

    def settle(self):
        """Stops, takes what is left, and gives the account: nothing lost, nothing twice unmarked, nobody saw an error."""
        self.__exit__()
        for n in range(self.pairs):
            # A lease of a reader that is gone runs out.
            end = time.monotonic() + 15
            while time.monotonic() < end:
                answer = self.call("get_messages", {"client_id": f"load.to-{n}", "wait_seconds": 1})
                self.take(answer)
                if not answer["messages"] and not answer["busy"]:
                    break
        texts = [text for text, _ in self.received]
        again = [text for text, redelivered in self.received if not redelivered]
        return {
            "accepted": len(self.accepted),
            "errors": self.errors,
            "lost": sorted(self.accepted - set(texts)),
            "unmarked": sorted({text for text in again if again.count(text) > 1}),
        }


CLEAN = {"errors": [], "lost": [], "unmarked": []}


def assert_clean(account, at_least):
    assert {key: account[key] for key in CLEAN} == CLEAN, account
    assert account["accepted"] >= at_least, f"too little load to say anything: {account['accepted']}"

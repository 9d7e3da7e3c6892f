"""What agents do, for a Prometheus to see."""


def conversation(installation):
    """Work for `Installation.repeat`: a message to somebody who waits on the other replica, a question and its answer."""
    here, there = installation.replicas[0], installation.replicas[-1]

    def work(number):
        name = f"reader-{number % 8}"
        waiting = there.behind("get_messages", client_id=name, wait_seconds=5)
        here.call("send_message", sender_id="writer", recipient_id=name, message=f"message {number}")
        waiting.join()
        asking = here.behind("send_message_and_wait", sender_id="asker", recipient_id="answerer", message="a question", timeout=5)
        mail = there.call("get_messages", client_id="answerer", wait_seconds=5)
        for message in mail["messages"] if mail else []:
            there.call(
                "send_message",
                sender_id="answerer",
                recipient_id=message["from"],
                message="an answer",
                in_reply_to=message["message_id"],
            )
        asking.join()
        if number % 10 == 0:
            here.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            there.call("checkin_client", client_id=name, name="Reader", capabilities="reads")
            there.call("list_clients")
            here.call("message_status", sender_id="writer")

    return work


def trouble(installation):
    """Work for `Installation.repeat`: what is not as it should be, so that each such metric has a series. Needs short leases:
    MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS=1."""
    replica = installation.replicas[0]

    def work(number):
        # Refused, a bad argument, and a call that its client gives up.
        replica.call("send_message", sender_id="writer", recipient_id="reader", message="")
        replica.call("get_messages", client_id="{}")
        replica.hang_up("get_messages", client_id="impatient", wait_seconds=5)
        # Handed out and never confirmed: handed out again.
        careless = f"careless-{number % 4}"
        replica.call("send_message", sender_id="writer", recipient_id=careless, message="for ever", ttl_seconds=5)
        replica.call("get_messages", client_id=careless, ack="manual")
        # Expires unread; its sender is told at its next contact.
        replica.call("send_message", sender_id="teller", recipient_id=f"gone-{number}", message="too late", ttl_seconds=1)
        replica.call("get_messages", client_id="teller")

    return work

"""How much, how long and how many a server takes: whatever is beyond is refused with a sentence."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one server bears.

    Attributes:
        connections: Open at the same time, without WebSockets.
        strangers: WebSockets that have not said who they are, at the same time.
        listeners: WebSockets that speak, at the same time.
        greeting_seconds: The time in which a connection must have sent its request, and a WebSocket
            its first message.
        uploads: Recordings that are received and read at the same time.
        waiting: Inputs of models that wait for the devices: pictures of some hundred kilobytes, or
            waveforms of up to a megabyte.
        upload_bytes: Size of the largest recording as it comes.
        upload_seconds: The time in which a recording must have come.
        recording: Seconds of the longest recording.
        piece: Seconds of the longest utterance or window, to which programs are compiled.
        windows: Windows of a recording, at most.
        message_bytes: Size of the largest message with samples; a second at 48 kHz has 96,000.
        silence_seconds: The time after which a listener that sends nothing is let go.
        send_seconds: The time after which a listener that does not read its answers is let go.
        answer_seconds: The time in which an utterance, or a few windows of a recording, must be
            judged.
        behind: Answers of one listener that may be under way; then its samples are read later.
    """

    connections: int = 256
    strangers: int = 64
    listeners: int = 64
    greeting_seconds: float = 5.0
    uploads: int = 8
    waiting: int = 512
    upload_bytes: int = 20_000_000
    upload_seconds: float = 30.0
    recording: float = 600.0
    piece: float = 16.0
    windows: int = 600
    message_bytes: int = 400_000
    silence_seconds: float = 60.0
    send_seconds: float = 10.0
    answer_seconds: float = 60.0
    behind: int = 8


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: The status of HTTP.
        sentence: What is wrong and what to do.
        code: The one by which a WebSocket is closed.
    """

    def __init__(self, status: int, sentence: str, code: int = 1008):
        super().__init__(sentence)
        self.status, self.sentence, self.code = status, sentence, code

"""Server-sent events in bytes that come in pieces."""

DONE = b"[DONE]"


class EventReader:
    """Cuts bytes into the data of whole events; comments and events without data are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, piece: bytes) -> list[bytes]:
        """The events that are complete with this piece."""
        buffer = self._rest + piece
        # A pair of line ends may itself be cut in two: only what is behind the last whole pair waits.
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n")
        *events, self._rest = buffer.split(b"\n\n")
        return [data for data in map(_data, events) if data is not None]


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None

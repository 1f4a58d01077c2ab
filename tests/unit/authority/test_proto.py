"""The generated messages and the .proto files they come from say the same."""

from __future__ import annotations

import re
from pathlib import Path

from meshwake.authority.proto import citadel_pb2

PROTO = Path(citadel_pb2.__file__).with_name("citadel.proto")


def fields_written(message: str) -> dict[str, int]:
    """Name and number of every field of `message`, as the .proto file has them."""
    match = re.search(rf"message {message} {{(.*?)\n}}", PROTO.read_text(), re.DOTALL)
    assert match
    return {name: int(number) for name, number in re.findall(r"(\w+) = (\d+);", match[1])}


def test_generated_messages_are_fresh() -> None:
    """Every field of every message has the number that the .proto file gives it: else run `make
    proto`."""
    for name, descriptor in citadel_pb2.DESCRIPTOR.message_types_by_name.items():
        assert {field.name: field.number for field in descriptor.fields} == fields_written(name)
        assert fields_written(name)

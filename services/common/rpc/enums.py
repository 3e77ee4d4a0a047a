"""Names of the contract's enum values, as people and our own enums say them."""

from google.protobuf.descriptor import EnumDescriptor


def short_names(enum: EnumDescriptor) -> dict[int, str]:
    """Return the names of an enum's values, by number, without the enum's prefix; UNSPECIFIED is left out."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values if value.number}

"""Which images of containers a machine lets executions name."""

import fnmatch
import re
from dataclasses import dataclass
from typing import Final

IMAGE_SETTING: Final = "BOATYARD_EXECUTION_CONTAINER_IMAGE"
IMAGES_SETTING: Final = "BOATYARD_EXECUTION_CONTAINER_IMAGES"
# registry.example:5000/team/name:tag@sha256:…; with another first character it could be an option of the client.
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


@dataclass(frozen=True, slots=True)
class ContainerImages:
    """The image of executions that name none, empty where they have to, and patterns of others, with `*` and `?`."""

    default_image: str = ""
    allowed_images: tuple[str, ...] = ()

    def complaint(self, image: str) -> str | None:
        """Return why no container may be made from an image, or from the default if it is empty; None when one may."""
        image = image or self.default_image
        if not image:
            return f"is required (--image): there is no default here ({IMAGE_SETTING})"
        allowed = (self.default_image, *self.allowed_images)
        if _IMAGE.fullmatch(image) and any(fnmatch.fnmatchcase(image, pattern) for pattern in allowed):
            return None
        return f"{image!r} is not among those that may be used here ({IMAGES_SETTING})"


NO_IMAGES: Final = ContainerImages()

"""A finished model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prmkit.checkpoints import is_hub_id
from prmkit.errors import InvalidSetting, MissingDependency, PrmkitError


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDependency("huggingface_hub", "hf", "pushing a model") from None
    return huggingface_hub


def check_hub(name: str) -> None:
    """Refuse what could not be pushed, before the work.

    Raises:
        InvalidSetting: if the name is no id of the hub, or there is no token.
    """
    if not is_hub_id(name):
        raise InvalidSetting(f"push is {name!r}; give an id of the Hugging Face hub: ORG/NAME")
    if not _hub().get_token():
        raise InvalidSetting(
            "push needs a token of the Hugging Face hub with the right to write; sign in with: "
            "hf auth login (or set HF_TOKEN)"
        )


def push(folder: Path, name: str) -> str:
    """Upload a model's folder in one commit; a private repository is made where there is none.

    Args:
        folder: of the model.
        name: ORG/NAME.

    Returns:
        The address of the commit.

    Raises:
        PrmkitError: if the hub refuses it; the model on this machine is whole.
    """
    from huggingface_hub.errors import HfHubHTTPError

    api = _hub().HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        found = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload a model trained with prmkit"
        )
    except (HfHubHTTPError, OSError) as error:
        raise PrmkitError(
            f"the hub did not take {name}: {error}. The model is in {folder}; give the command "
            "again to push it"
        ) from None
    return str(found.commit_url)

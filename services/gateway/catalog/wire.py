"""Convert the catalogue between messages and values, and check everything that a request can get wrong."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from boatyard.agent.v1 import model_pb2
from boatyard.gateway.v1 import catalog_pb2 as pb

from services.agent.providers import ModelProvider
from services.agent.settings import environment_complaint, secret_complaints
from services.common.credentials import ca_complaint, credential_complaint
from services.common.errors import Invalid
from services.common.ids import NO_REMOTE, new_id
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Violation
from services.gateway import scope
from services.gateway.catalog.remotes import scheme_of, url_complaint
from services.gateway.values.catalog import (
    DEFAULT_PROJECT_ID,
    CatalogFilter,
    Project,
    Provider,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)
from services.redaction.strand import token_in

_STATES: Final = {pb.WorkItem.State.Value(f"STATE_{state}"): state for state in WorkItemState}

_MAX_NOTES_BYTES: Final = 256 << 10
_MAX_DOCUMENTS_BYTES: Final = 384 << 10

PROJECT: Final = Mapper(Project, pb.Project)
PROVIDER: Final = Mapper(Provider, pb.Provider, by_hand={"keys", "key_count", "is_implied"})
REPOSITORY: Final = Mapper(Repository, pb.Repository, by_hand={"has_token", "token"})
WORK_ITEM: Final = Mapper(WorkItem, pb.WorkItem)
TEMPLATE: Final = Mapper(Template, pb.Template)
WORKER: Final = Mapper(Worker, pb.Worker)


def project_from_proto(message: pb.Project) -> Project:
    """Read a project that is to be created."""
    project_id = message.project_id or new_id("project")
    return PROJECT.from_proto(message, project_id=project_id, create_time=datetime.now(UTC))


def repository_from_proto(message: pb.Repository) -> Repository:
    """Read a repository that is to be created, with its token."""
    repository_id = message.repository_id or new_id("repository")
    return REPOSITORY.from_proto(message, repository_id=repository_id, token=message.token, **_created(message))


def provider_from_proto(message: pb.Provider) -> Provider:
    """Read a provider that is to be created, with its keys; without a project it is for all of them.

    Raises PermissionDenied (PROJECT_NOT_ALLOWED) where the caller is not for all projects, and this is.
    """
    if not message.project_id:
        scope.check_all()
    provider_id = message.provider_id or new_id("provider")
    return PROVIDER.from_proto(
        message, provider_id=provider_id, keys=tuple(message.keys), create_time=datetime.now(UTC)
    )


def template_from_proto(message: pb.Template) -> Template:
    """Read a template that is to be created."""
    template_id = message.template_id or new_id("template")
    return TEMPLATE.from_proto(message, template_id=template_id, **_created(message))


def worker_from_proto(message: pb.Worker) -> Worker:
    """Read a worker that is to be created; the default of its name is its id."""
    worker_id = message.worker_id or new_id("worker")
    return WORKER.from_proto(
        message,
        worker_id=worker_id,
        display_name=message.display_name or worker_id,
        **_created(message),
    )


def work_item_from_proto(message: pb.WorkItem) -> WorkItem:
    """Read a work item that is to be created."""
    return WORK_ITEM.from_proto(
        message,
        work_item_id=message.work_item_id or new_id("item"),
        related_work_item_ids=tuple(dict.fromkeys(message.related_work_item_ids)),
        state=WorkItemState.TODO,
        **_created(message),
    )


def check_project(message: pb.Project) -> Iterator[Violation]:
    """Yield what is wrong with the secrets of a project, which all its agents get."""
    yield from ((f'secrets["{name}"]', rule) for name, rule in secret_complaints(message.secrets))
    if complaint := environment_complaint(message.secrets):
        yield "secrets", complaint


def checked(project: Project) -> Project:
    """Return a project after a change of its secrets. Raises Invalid."""
    if violations := [*check_project(PROJECT.to_proto(project))]:
        raise Invalid(violations)
    return project


def check_repository(message: pb.Repository) -> Iterator[Violation]:
    """Yield what is wrong with the id, the URL and the token of a repository."""
    if message.repository_id.startswith(NO_REMOTE):
        yield "repository_id", f"must not begin with {NO_REMOTE}: such are for jobs without a repository"
    if message.url and (complaint := url_complaint(message.url)):
        yield "url", complaint
    if complaint := credential_complaint(message.token, scheme_of(message.url)):
        yield "token", complaint
    if complaint := ca_complaint(message.ca, scheme_of(message.url)):
        yield "ca", complaint
    for index, option in enumerate(message.push_options):
        if (name := token_in(option)) is not None:
            yield f"push_options[{index}]", f"must not hold a token, as for {name}: everybody who sees it could use it"


def check_provider(message: pb.Provider) -> Iterator[Violation]:
    """Yield what is wrong with the certificates of a provider, and with keys that are twice there."""
    if complaint := ca_complaint(message.ca, scheme_of(message.base_url)):
        yield "ca", complaint
    if len(set(message.keys)) < len(message.keys):
        yield "keys", "must be different"


def check_worker(message: pb.Worker) -> Iterator[Violation]:
    """Yield what is wrong with a worker's name: git takes it as the author of a commit."""
    name = message.display_name
    if name and (set(name) & set("<>") or not any(map(str.isalnum, name))):
        yield "display_name", "must contain a letter or a digit, and no '<' or '>': it is an author of commits"


def check_work_item(message: pb.WorkItem) -> Iterator[Violation]:
    """Yield what is wrong with the notes, and with the documents, of a work item together."""
    if sum(len(note.encode()) for note in message.notes) > _MAX_NOTES_BYTES:
        yield "notes", f"must be at most {_MAX_NOTES_BYTES >> 10} KiB together"
    if sum(len(document.content.encode()) for document in message.documents) > _MAX_DOCUMENTS_BYTES:
        yield "documents", f"must be at most {_MAX_DOCUMENTS_BYTES >> 10} KiB together"
    if len({document.name for document in message.documents}) < len(message.documents):
        yield "documents", "must have different names"


def check_deleted_project(request: pb.DeleteProjectRequest) -> Iterator[Violation]:
    """Yield what is wrong with the project that is to be deleted."""
    if request.project_id == DEFAULT_PROJECT_ID:
        yield "project_id", f"must not be `{DEFAULT_PROJECT_ID}`, which is always there"


def list_from_proto(request: pb.ListTemplatesRequest | pb.ListWorkersRequest) -> CatalogFilter:
    """Read the filter for listing templates or workers."""
    return CatalogFilter(project_id=request.project_id)


def list_repositories_from_proto(request: pb.ListRepositoriesRequest) -> CatalogFilter:
    """Read the filter for listing repositories."""
    return CatalogFilter(project_id=request.project_id, url=request.url)


def list_work_items_from_proto(request: pb.ListWorkItemsRequest) -> CatalogFilter:
    """Read the filter for listing work items."""
    states = frozenset(_STATES[number] for number in request.states)
    return CatalogFilter(project_id=request.project_id, states=states)


def repository_to_proto(value: Repository) -> pb.Repository:
    """Write a repository, without its token."""
    return REPOSITORY.to_proto(value, has_token=bool(value.token))


def list_providers_from_proto(request: pb.ListProvidersRequest) -> CatalogFilter:
    """Read the filter for listing providers."""
    return CatalogFilter(project_id=request.project_id)


def provider_to_proto(value: Provider) -> pb.Provider:
    """Write a provider, without its keys."""
    return PROVIDER.to_proto(value, keys=(), key_count=len(value.keys))


def implied_to_proto(value: ModelProvider) -> pb.Provider:
    """Write a provider of this cell's environment, without its key."""
    return pb.Provider(
        provider_id=value.name,
        wire=model_pb2.ModelWire.Value(f"MODEL_WIRE_{value.wire}"),
        base_url=value.base_url,
        key_count=len(value.keys),
        is_implied=True,
    )


def target_state_from_proto(state: "pb.WorkItem.State.ValueType") -> WorkItemState:
    """Read the state that a person moves a work item to."""
    return _STATES[state]


def project_id_from_proto(value: str) -> str:
    """Read a project's id; empty means the caller's only project, or else the default project."""
    return value or scope.default_project()


def _created(message: pb.Repository | pb.Template | pb.Worker | pb.WorkItem) -> dict[str, object]:
    """Return where and when a resource is created."""
    return {"project_id": project_id_from_proto(message.project_id), "create_time": datetime.now(UTC)}

"""Convert the catalogue between messages and values, and check everything that a request can get wrong."""

from datetime import UTC, datetime
from typing import Final

from boatyard.gateway.v1 import catalog_pb2 as pb

from services.agent.wire import AGENT
from services.common.ids import new_id
from services.common.rpc.mapper import Mapper
from services.gateway import scope
from services.gateway.catalog.remotes import MAX_URL_BYTES, token_complaint, url_complaint
from services.gateway.values.catalog import (
    CatalogFilter,
    Document,
    Project,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)
from services.gateway.wire.policy import POLICY
from services.gateway.wire.validation import KIB, Validator

_STATES: Final = {
    pb.WorkItem.STATE_TODO: WorkItemState.TODO,
    pb.WorkItem.STATE_IN_PROGRESS: WorkItemState.IN_PROGRESS,
    pb.WorkItem.STATE_REVIEW: WorkItemState.REVIEW,
    pb.WorkItem.STATE_DONE: WorkItemState.DONE,
}
_TARGET_STATES: Final = {number: state for number, state in _STATES.items() if number != pb.WorkItem.STATE_REVIEW}

PROJECT: Final = Mapper(Project, pb.Project)
REPOSITORY: Final = Mapper(Repository, pb.Repository, by_hand={"has_token", "token"})
WORK_ITEM: Final = Mapper(WorkItem, pb.WorkItem)
TEMPLATE: Final = Mapper(Template, pb.Template)
WORKER: Final = Mapper(Worker, pb.Worker)

_MAX_LIMIT: Final = 100_000
_MAX_DESCRIPTION_BYTES: Final = 256 * KIB
_MAX_NOTES: Final = 100
_MAX_NOTES_BYTES: Final = 256 * KIB
_MAX_RELATED: Final = 100
_MAX_DOCUMENTS: Final = 20
_MAX_DOCUMENTS_BYTES: Final = 384 * KIB


def project_from_proto(check: Validator, message: pb.Project) -> Project:
    """Read a project that is to be created."""
    return Project(
        project_id=_id_from_proto(check, "project.project_id", message.project_id, "project"),
        display_name=check.line("project.display_name", message.display_name),
        max_running_jobs=_limit_from_proto(check, "project.max_running_jobs", message.max_running_jobs),
        default_worker_id=check.optional_id("project.default_worker_id", message.default_worker_id),
        create_time=datetime.now(UTC),
    )


def repository_from_proto(check: Validator, message: pb.Repository) -> Repository:
    """Read a repository that is to be created."""
    if complaint := url_complaint(message.url):
        check.add("repository.url", complaint)
    if complaint := token_complaint(message.url, message.token):
        check.add("repository.token", complaint)
    return Repository(
        repository_id=_id_from_proto(check, "repository.repository_id", message.repository_id, "repository"),
        project_id=project_id_from_proto(check, "repository.project_id", message.project_id),
        url=message.url,
        default_revision=check.revision("repository.default_revision", message.default_revision),
        token=message.token,
        max_running_jobs=_limit_from_proto(check, "repository.max_running_jobs", message.max_running_jobs),
        create_time=datetime.now(UTC),
    )


def template_from_proto(check: Validator, message: pb.Template) -> Template:
    """Read a template that is to be created."""
    return Template(
        template_id=_id_from_proto(check, "template.template_id", message.template_id, "template"),
        project_id=project_id_from_proto(check, "template.project_id", message.project_id),
        display_name=check.line("template.display_name", message.display_name),
        agent=AGENT.from_proto(message.agent),
        policy=POLICY.from_proto(message.policy),
        create_time=datetime.now(UTC),
    )


def worker_from_proto(check: Validator, message: pb.Worker) -> Worker:
    """Read a worker that is to be created."""
    worker_id = _id_from_proto(check, "worker.worker_id", message.worker_id, "worker")
    name = check.line("worker.display_name", message.display_name or worker_id)
    if set(name) & set("<>") or not any(map(str.isalnum, name)):
        check.add(
            "worker.display_name", "must contain a letter or a digit, and no '<' or '>': it is an author of commits"
        )
    return Worker(
        worker_id=worker_id,
        project_id=project_id_from_proto(check, "worker.project_id", message.project_id),
        display_name=name,
        template_id=check.optional_id("worker.template_id", message.template_id),
        agent=AGENT.from_proto(message.agent),
        policy=POLICY.from_proto(message.policy),
        max_running_jobs=_limit_from_proto(check, "worker.max_running_jobs", message.max_running_jobs),
        create_time=datetime.now(UTC),
    )


def work_item_from_proto(check: Validator, message: pb.WorkItem) -> WorkItem:
    """Read a work item that is to be created."""
    related = tuple(message.related_work_item_ids)
    if len(related) > _MAX_RELATED:
        check.add("work_item.related_work_item_ids", f"must be at most {_MAX_RELATED}")
    for index, work_item_id in enumerate(related[:_MAX_RELATED]):
        check.required_id(f"work_item.related_work_item_ids[{index}]", work_item_id)
    return WorkItem(
        work_item_id=_id_from_proto(check, "work_item.work_item_id", message.work_item_id, "item"),
        project_id=project_id_from_proto(check, "work_item.project_id", message.project_id),
        title=check.line("work_item.title", message.title, required=True),
        description=check.text("work_item.description", message.description, _MAX_DESCRIPTION_BYTES),
        notes=_notes_from_proto(check, message),
        related_work_item_ids=tuple(dict.fromkeys(related)),
        repository_id=check.optional_id("work_item.repository_id", message.repository_id),
        documents=_documents_from_proto(check, message),
        worker_id=check.optional_id("work_item.worker_id", message.worker_id),
        template_id=check.optional_id("work_item.template_id", message.template_id),
        create_time=datetime.now(UTC),
    )


def list_from_proto(check: Validator, request: pb.ListTemplatesRequest | pb.ListWorkersRequest) -> CatalogFilter:
    """Read the filter for listing templates or workers."""
    return CatalogFilter(project_id=check.optional_id("project_id", request.project_id))


def list_repositories_from_proto(check: Validator, request: pb.ListRepositoriesRequest) -> CatalogFilter:
    """Read the filter for listing repositories."""
    if len(request.url.encode()) > MAX_URL_BYTES or "\0" in request.url:
        check.add("url", f"must be at most {MAX_URL_BYTES} bytes, without NUL characters")
    return CatalogFilter(project_id=check.optional_id("project_id", request.project_id), url=request.url)


def list_work_items_from_proto(check: Validator, request: pb.ListWorkItemsRequest) -> CatalogFilter:
    """Read the filter for listing work items."""
    return CatalogFilter(
        project_id=check.optional_id("project_id", request.project_id),
        states=check.choices("states", request.states, _STATES),
    )


def repository_to_proto(value: Repository) -> pb.Repository:
    """Write a repository, without its token."""
    return REPOSITORY.to_proto(value, has_token=bool(value.token))


def target_state_from_proto(check: Validator, state: "pb.WorkItem.State.ValueType") -> WorkItemState:
    """Read the state that a person moves a work item to."""
    return check.choice("state", state, _TARGET_STATES)


def project_id_from_proto(check: Validator, field: str, value: str) -> str:
    """Read a project's id; empty means the caller's only project, or else the default project."""
    return check.optional_id(field, value) or scope.default_project()


def _id_from_proto(check: Validator, field: str, value: str, prefix: str) -> str:
    """Read an id that the caller may choose; make one when it is empty."""
    return check.optional_id(field, value) or new_id(prefix)


def _limit_from_proto(check: Validator, field: str, value: int) -> int:
    if not 0 <= value <= _MAX_LIMIT:
        check.add(field, f"must be from 0 (no limit) to {_MAX_LIMIT}")
    return value


def _notes_from_proto(check: Validator, message: pb.WorkItem) -> tuple[str, ...]:
    if len(message.notes) > _MAX_NOTES or sum(len(note.encode()) for note in message.notes) > _MAX_NOTES_BYTES:
        check.add("work_item.notes", f"must be at most {_MAX_NOTES}, of {_MAX_NOTES_BYTES // KIB} KiB in total")
    if any("\0" in note for note in message.notes):
        check.add("work_item.notes", "must not contain NUL characters")
    return tuple(message.notes)


def _documents_from_proto(check: Validator, message: pb.WorkItem) -> tuple[Document, ...]:
    documents = tuple(Document(document.name, document.content) for document in message.documents)
    size = sum(len(document.content.encode()) for document in documents)
    if len(documents) > _MAX_DOCUMENTS or size > _MAX_DOCUMENTS_BYTES:
        check.add(
            "work_item.documents", f"must be at most {_MAX_DOCUMENTS}, of {_MAX_DOCUMENTS_BYTES // KIB} KiB in total"
        )
    for index, document in enumerate(documents[:_MAX_DOCUMENTS]):
        check.line(f"work_item.documents[{index}].name", document.name, required=True)
        if "\0" in document.content:
            check.add(f"work_item.documents[{index}].content", "must not contain NUL characters")
    if len({document.name for document in documents}) < len(documents):
        check.add("work_item.documents", "must have different names")
    return documents

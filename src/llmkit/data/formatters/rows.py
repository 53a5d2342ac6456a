"""What all formats of conversations share: tools, media, a reference answer and extra columns beside the messages."""

from collections.abc import Collection, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.columns import Place, given, others, reference_answer
from llmkit.data.formatters.media import MediaColumns, put_media
from llmkit.data.formatters.tool_calls import as_tools
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

MEDIA_COLUMNS = {"image": "images_column", "video": "videos_column", "audio": "audios_column"}


class SharedColumns(Section):
    """Columns that rows may have beside their conversation; null for one that is left to rewards as it is."""

    tools_column: str | None = "tools"
    """Column with the list of tool schemas, or its JSON text."""
    images_column: str | None = "images"
    """Column with the paths or URLs of images, one for each `<image>` in the text."""
    videos_column: str | None = "videos"
    """The same for `<video>`."""
    audios_column: str | None = "audios"
    """The same for `<audio>`."""
    answer_column: str | None = "answer"
    """Column with the reference answer for rewards; rows need not have it."""

    def columns(self) -> set[str]:
        """Every column that some option names."""
        return {value for name, value in self if name.endswith("_column") and isinstance(value, str)}


def make_record(
    row: Row,
    config: SharedColumns,
    used: Collection[str | None],
    messages: Sequence[Message],
    *,
    chosen: tuple[Message, ...] = (),
    rejected: tuple[Message, ...] = (),
    label: bool | None = None,
) -> Record:
    """The record of a row, its tools, media, answer and extra columns added to what the format has read.

    Args:
        row: as it was read.
        config: the format's options.
        used: columns that the format has read itself.
        messages: the conversation.
        chosen: the better answer of a pair.
        rejected: the other one.
        label: whether the answer is a good one.
    Raises:
        DataError: the two answers are the same, or a column cannot be read; names it.
    """
    refuse_same(row, chosen, rejected)
    _refuse_single_media(row, config, used)
    answer = reference_answer(row, config.answer_column)
    media = MediaColumns(config.images_column, config.videos_column, config.audios_column)
    tools = config.tools_column
    return Record(
        put_media(row, messages, media),
        row.source,
        chosen=chosen,
        rejected=rejected,
        answer=answer,
        # A column `answer` that holds no text is an extra one.
        extra=others(row, {*used, tools, *media} | ({config.answer_column} if answer is not None else set())),
        tools=None if tools is None else as_tools(given(row, tools), Place(row.source, tools)),
        label=label,
    )


def refuse_same(row: Row, chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> None:
    """Stop at a pair that prefers an answer to itself.

    Raises:
        DataError: the two answers are equal.
    """
    if chosen and chosen == rejected:
        raise DataError(f"{row.source}: the chosen and the rejected answer are the same; such a pair teaches nothing")


def refuse_beyond_text(row: Row, formatter: str) -> None:
    """Stop at a row with tools or media, which a format of text alone would leave out.

    Raises:
        DataError: a column holds them.
    """
    beyond = next((column for column in ("tools", "images", "videos", "audios") if given(row, column)), None)
    if beyond is not None:
        raise DataError(
            f"{row.source}: the row has '{beyond}', and the formatter '{formatter}' reads text only; use "
            "'prompt_completion' or 'messages', or remove the column"
        )


def shared_row(record: Record, config: SharedColumns, tools: Any) -> dict[str, Any]:
    """The columns for tools and the reference answer, where the record has them.

    Args:
        record: to be written.
        config: the format's options.
        tools: the schemas, in the form that the format writes.
    """
    row: dict[str, Any] = {}
    if record.tools is not None:
        row[_named(config.tools_column, record, "tools_column")] = tools
    if record.answer is not None:
        row[_named(config.answer_column, record, "answer_column")] = record.answer
    return row


def reserved(record: Record, config: SharedColumns) -> set[str]:
    """Columns to which a format gives a meaning, so that no extra column may have their names."""
    return config.columns() - {config.answer_column} if record.answer is None else config.columns()


def share(rows: Sequence[Row], fits: Any) -> float:
    """Share of rows that fit; 0 when there are none."""
    return sum(map(fits, rows)) / max(len(rows), 1)


def _named(column: str | None, record: Record, option: str) -> str:
    if column is None:
        raise DataError(f"{record.source}: no column to write to; name one with --set formatter.{option}=...")
    return column


def _refuse_single_media(row: Row, config: SharedColumns, used: Collection[str | None]) -> None:
    """Stop at a column `image` that no option names: training would go on without what the row shows."""
    for medium, option in MEDIA_COLUMNS.items():
        if not row.values.get(medium) or medium in used:
            continue
        if getattr(config, option) not in (None, medium):
            raise DataError(
                f"{row.source}: the row has '{medium}'; read it with --set formatter.{option}={medium}, or rename it "
                "to leave it to rewards"
            )

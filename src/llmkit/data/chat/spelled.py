"""Where the content of messages spells special tokens, which must stay text."""

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.marks import Span, unused_marks
from llmkit.data.chat.template_input import Chat
from llmkit.errors import DataError


def spelled_specials(template: ChatTemplate, chat: Chat, text: str, *, generation_prompt: bool = False) -> list[Span]:
    """Where in the rendering `text` the conversation's own texts spell a special token.

    Raises:
        DataError: the template treats such content in a way that cannot be followed.
    """
    pattern = template.special_pattern
    if not any(pattern.search(part) for part in chat.texts()):
        return []
    (mark,) = unused_marks(chat.texts(), 1)
    marking = chat.edited(lambda content: pattern.sub(lambda match: mark + match[0], content))
    marked = template.render_marked(marking, mark, generation_prompt=generation_prompt)
    if marked.text != text:
        where = f"{chat.place}: " if chat.place else ""
        raise DataError(
            f"{where}the content spells a special token of the model, and the chat template changes such content; "
            "take the token out of it"
        )
    matches = [pattern.match(text, position) for position in marked.marks[mark]]
    return [match.span() for match in matches if match]

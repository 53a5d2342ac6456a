from llmkit.bench.chats import SENTENCES, TURNS, chats


def test_the_same_seed_gives_the_same_chats():
    assert list(chats(20, seed=3)) == list(chats(20, seed=3))
    assert list(chats(20, seed=3)) != list(chats(20, seed=4))


def test_more_chats_begin_with_the_fewer_ones():
    assert list(chats(30))[:10] == list(chats(10))


def test_a_chat_has_a_system_prompt_and_two_questions_with_answers():
    for row in chats(20):
        assert tuple(message["role"] for message in row["messages"]) == TURNS
        assert all(message["content"] for message in row["messages"])


def test_chats_differ_and_answers_are_longer_than_questions():
    rows = list(chats(200))
    assert len({str(row) for row in rows}) == 200
    lengths = {
        role: sum(len(m["content"]) for row in rows for m in row["messages"] if m["role"] == role) for role in SENTENCES
    }
    assert lengths["assistant"] > lengths["user"] > lengths["system"]


def test_the_share_of_accents_is_chosen():
    def ascii_share(accents: float) -> float:
        words = " ".join(m["content"] for row in chats(100, accents=accents) for m in row["messages"]).split()
        return sum(word.isascii() for word in words) / len(words)

    assert ascii_share(0.0) == 1
    assert 0.45 < ascii_share(0.5) < 0.55

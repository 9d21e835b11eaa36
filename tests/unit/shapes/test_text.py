"""The word-level tokenizer of the embedded world, read by the same class as the public ones."""

from genloop.models.common.text import FileTokenizer
from genloop.records import TAGS
from genloop.shapes.prompts import SETS, pool
from genloop.shapes.text import vocabulary, write_text_tokenizer


def test_every_sentence_of_the_world_comes_back(tmp_path):
    write_text_tokenizer(tmp_path)
    tokenizer = FileTokenizer(tmp_path)
    assert tokenizer.num_tokens == len(vocabulary())
    for text in [prompt.text for name in SETS for tag in TAGS for prompt in pool(name, tag)[:40]]:
        ids = tokenizer.encode(text)
        assert len(ids) == len(text.split())
        assert tokenizer.bos_id not in ids
        assert tokenizer.decode(ids) == text


def test_unknown_words_become_the_end_token(tmp_path):
    write_text_tokenizer(tmp_path)
    tokenizer = FileTokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 0)
    ids = tokenizer.encode("A photo of a giraffe")
    assert ids[-1] == 0
    assert 0 not in ids[:-1]

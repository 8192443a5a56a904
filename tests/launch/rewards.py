"""A reward that random text earns in different amounts, for models that never answer."""


def vowels(record, said, config):  # noqa: ARG001 - as rewards are called
    """The share of vowels; a text that begins with one is too much for it."""
    text = said.reasoning.lower()
    if text[:1] in tuple("aeiou"):
        raise ValueError("cannot begin with a vowel")
    return {"vowels": sum(letter in "aeiou" for letter in text) / max(len(text), 1)}
